"""The journal: what each step of a run found, in the run's folder, for later steps and the report.

It is there after any failure, with the target out of reach too, and it decides nothing: who may
commit, and what was committed, only the ledger knows, which lives in PostgreSQL.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import msgspec

from ..errors import AS_PROMOTE_LEFT_IT, MigrationError, StorageRefused, described
from ..storage import RunFolder
from .records import Record

R = TypeVar("R", bound=Record)
STEPS = "steps"


class Entry(msgspec.Struct, Generic[R], frozen=True):
    """One step as it was kept: when it ran (Unix seconds), what it recorded, how it failed."""

    step: str
    started: float
    finished: float
    record: R
    error: dict[str, Any] | None = None


class Journal:
    """The steps of a run, a small file each; a step that is tried again replaces its own."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    @contextmanager
    def step(self, kind: type[R], part: int | None = None) -> Iterator[R]:
        """Keep a step: what the block puts into its record, and an exception as its error."""
        started = time.time()
        record = kind()
        try:
            yield record
        except BaseException as error:
            self._keep(kind, part, started, record, described(error))
            raise
        self._keep(kind, part, started, record, None)

    def keep_failure(
        self, kind: type[R], part: int | None, started: float, error: BaseException
    ) -> None:
        """Keep how a task failed outside its step, with what the step recorded before, if anything.

        What the step itself kept since `started` stays: it is the same failure, and says more.
        """
        name = _name(kind, part)
        known = _read(name, self._folder.kept(name), kind) if self._folder.has(name) else None
        if known is None or known.error is None or known.started < started:
            record = known.record if known else kind()
            self._keep(kind, part, started, record, described(error))

    def _keep(
        self,
        kind: type[R],
        part: int | None,
        started: float,
        record: R,
        error: dict[str, Any] | None,
    ) -> None:
        entry = Entry(kind.step, started, time.time(), record, error)
        try:
            self._folder.keep(_name(kind, part), msgspec.json.encode(entry))
        except MigrationError:
            if error is None:
                raise  # a failure that cannot be recorded must not hide the failure itself

    def entries(self, kind: type[R]) -> list[Entry[R]]:
        """A step's entries, one for each of its parts, in the order in which they began."""
        kept = self._folder.kept_all(STEPS, re.compile(rf"{kind.step}(-[0-9]+)?\.json"))
        found = [_read(path, data, kind) for path, data in kept]
        return sorted(found, key=lambda entry: entry.started)

    def record(self, kind: type[R]) -> R:
        """What a step recorded; an empty record where it did not get that far."""
        entries = self.entries(kind)
        return entries[0].record if entries else kind()


def _name(kind: type[Record], part: int | None) -> str:
    return f"{STEPS}/{kind.step if part is None else f'{kind.step}-{part:04}'}.json"


def _read(path: str, kept: bytes, kind: type[R]) -> Entry[R]:
    try:
        return msgspec.json.decode(kept, type=Entry[kind])  # type: ignore[valid-type]
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise StorageRefused(
            f"{path} is not what this release of the package keeps of a step.",
            safe=AS_PROMOTE_LEFT_IT,
            next="finish a run with the release that began it; or trigger the DAG again, as a new run.",
            path=path,
        ) from None
