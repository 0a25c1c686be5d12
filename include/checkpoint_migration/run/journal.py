"""What each step of a run found, kept in the run's folder, so that the report works after any failure."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ..errors import MigrationError, described
from ..storage import FOLDER_MODE, RunFolder, atomic_file, open_regular

T = TypeVar("T")


class Step(msgspec.Struct, frozen=True):
    """One step: when it ran (Unix seconds), what it found, how it failed."""

    name: str
    started: float
    finished: float
    facts: Any = None
    error: dict[str, Any] | None = None
    moved: int | None = None


class Journal:
    """The steps of a run, a small file each; a step that is tried again replaces its own."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder.path / "steps"

    @contextmanager
    def step(self, name: str, part: int | None = None) -> Iterator[dict[str, Any]]:
        """Record a step: the dictionary it fills is its facts; an exception is its error."""
        started = time.time()
        facts: dict[str, Any] = {}
        try:
            yield facts
        except BaseException as error:
            self._write(name, part, started, facts, described(error))
            raise
        self._write(name, part, started, facts, None)

    def _write(
        self, name: str, part: int | None, started: float, facts: Any, error: dict[str, Any] | None
    ) -> None:
        moved = facts.pop("moved", None)
        step = Step(name, started, time.time(), msgspec.to_builtins(facts), error, moved)
        try:
            self._folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
            with atomic_file(self._file(name, part)) as file:
                file.write(msgspec.json.encode(step))
        except (OSError, MigrationError):
            if error is None:
                raise  # a failure that cannot be recorded must not hide the failure itself

    def _file(self, name: str, part: int | None) -> Path:
        return self._folder / (f"{name}.json" if part is None else f"{name}-{part:04}.json")

    def steps(self) -> list[Step]:
        """All steps in the order in which they began; empty where nothing was recorded."""
        if not self._folder.is_dir():
            return []
        found: list[Step] = []
        for path in self._folder.glob("[a-z]*.json"):
            with open_regular(path) as file:
                found.append(msgspec.json.decode(file.read(), type=Step))
        return sorted(found, key=lambda step: step.started)

    def fact(self, name: str, key: str, kind: type[T], part: int | None = None) -> T | None:
        """One fact of a step, or None where the step did not get that far."""
        path = self._file(name, part)
        if not path.is_file():
            return None
        with open_regular(path) as file:
            step = msgspec.json.decode(file.read(), type=Step)
        value = (step.facts or {}).get(key)
        return None if value is None else msgspec.convert(value, kind)
