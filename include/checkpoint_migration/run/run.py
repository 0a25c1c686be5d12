"""A run in hand: its settings, its connection, its folder, its log, and how its steps are kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import msgspec

from ..bucket import run_folder
from ..collector import seldom_collecting
from ..errors import AS_PROMOTE_LEFT_IT, MigrationError, StorageRefused
from ..model import Shard
from ..objects import Objects
from ..postgres import Connect
from ..progress import Progress
from ..resting import resting_connections
from ..settings import Settings
from ..storage import RunFolder
from . import lease, undo_ledger
from .journal import Journal
from .ledger import RunState
from .records import Record

R = TypeVar("R", bound=Record)
PLAN = "plan.json"


@dataclass(frozen=True, slots=True)
class Step(Generic[R]):
    """A step at work: the record that it fills, and the run's state in the ledger when it began."""

    record: R
    state: RunState

    @property
    def is_done(self) -> bool:
        """The run ended well before: its tasks were cleared, and there is nothing to do."""
        return self.state == "done"

    @property
    def is_promoted(self) -> bool:
        return self.state in ("promoted", "done")


@dataclass(frozen=True, slots=True)
class Run:
    """A run: what it was asked, how it reaches the target, where it writes, to whom it talks.

    `owner` names the process that carries the whole run, where there is one (`lease.acquire`).
    `aes_key` is kept out of the settings, and so out of every file and log. `log_at` takes a level of
    `logging` and a line; where there is none, everything goes to `log`. `objects` opens object stores.
    """

    settings: Settings
    connect: Connect
    log: Callable[[str], None]
    owner: str | None = None
    aes_key: bytes | None = field(default=None, repr=False)
    log_at: Callable[[int, str], None] | None = field(default=None, repr=False)
    objects: Objects | None = field(default=None, repr=False)

    def tell(self, level: int, line: str) -> None:
        """Log a line as what it is: information, a warning or an error."""
        if self.log_at is None:
            self.log(line)
        else:
            self.log_at(level, line)

    def warn(self, line: str) -> None:
        self.tell(logging.WARNING, line)

    @property
    def folder(self) -> RunFolder:
        return run_folder(self.settings.export_uri, self.settings.folder_name, self.objects)

    def open_folder(self) -> list[str]:
        """Make the run's folder, private to us; warn of what its volume does not keep, and return that."""
        cautions = self.folder.create()
        for caution in cautions:
            self.warn(caution)
        return cautions

    @property
    def journal(self) -> Journal:
        return Journal(self.folder)

    def progress(self, total: int, verb: str, noun: str = "checkpoints") -> Progress:
        return Progress(total, noun, self.log, verb=verb)

    @contextmanager
    def step(self, kind: type[R], part: int | None = None) -> Iterator[Step[R]]:
        """A step that is recorded, and that keeps the run alive in the ledger while it works."""
        with (
            seldom_collecting(),
            resting_connections(),
            self.folder.in_use(),
            self.journal.step(kind, part) as record,
            lease.alive(self.connect, self.settings) as row,
        ):
            state = row.state if row else "running"
            undo_ledger.refuse_undone(state, self.settings.key)
            yield Step(record, state)

    def keep_plan(self, shards: Sequence[Shard]) -> None:
        self.folder.keep(PLAN, msgspec.json.encode(shards))

    def read_plan(self) -> list[Shard]:
        """The shards that plan_shards planned."""
        return msgspec.json.decode(self.folder.kept(PLAN), type=list[Shard])

    def records_gone(self) -> MigrationError:
        """The error of a step that does not find what earlier ones recorded."""
        return StorageRefused(
            f"the records of this run's earlier steps are not in {self.folder.where}.",
            safe=AS_PROMOTE_LEFT_IT,
            next="give all workers the same folder as export_uri; then clear check_schema and what follows.",
        )
