"""The structure of `report.json`, version 1, as frozen dataclasses.

`docs/report-json.md` explains it. Keys are always all there, in this order; a figure that was not
reached is None. Only those of the store are left out where a run takes none.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct, structs

from ..findings import Blocker, Caution, Difference, Verdict


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """Where the run read, and what it found there."""

    uri: str | None = None
    format: str | None = None
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """Where the run wrote."""

    conn_id: str | None = None
    database: str | None = None
    schema: str | None = None
    server_version: str | None = None


@dataclass(frozen=True, slots=True)
class Stages:
    """Rows of a table at each stage; `live` counts the run's own keys."""

    source: int | None = None
    frozen: int | None = None
    exported: int | None = None
    staged: int | None = None
    live: int | None = None


@dataclass(frozen=True, slots=True)
class BlobStages:
    """The same for blobs, which SQLite's layout does not have."""

    exported: int | None = None
    staged: int | None = None
    live: int | None = None


@dataclass(frozen=True, slots=True)
class RowCounts:
    """Rows of each kind at each stage; the store's where the run takes one."""

    checkpoints: Stages = Stages()
    writes: Stages = Stages()
    blobs: BlobStages = BlobStages()
    store: Stages | None = None
    store_vectors: Stages | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """How many a run takes, and how many stay behind."""

    taken: int | None = None
    left_out: int | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """What the run's `threads` take of the frozen source, and what they leave behind in SQLite."""

    threads: Share = Share()
    checkpoints: Share = Share()
    globs: tuple[str, ...] | None = None
    store: Share | None = None

    @property
    def is_part(self) -> bool:
        """Whether anything stays behind."""
        return bool(self.threads.left_out or self.checkpoints.left_out or self.store_left_out)

    @property
    def is_unknown(self) -> bool:
        """Whether globs may leave something behind that could not be counted."""
        return self.globs is not None and self.threads.left_out is None

    @property
    def store_left_out(self) -> int:
        return (self.store.left_out or 0) if self.store is not None else 0


@dataclass(frozen=True, slots=True)
class ThreadLine:
    """A thread, what is proven of it, and its rows in the frozen source."""

    thread_id: str
    verdict: Verdict
    checkpoints: int
    writes: int


@dataclass(frozen=True, slots=True)
class Threads:
    """The threads taken: the first ones by name, the rest as a figure."""

    total: int | None = None
    listed: tuple[ThreadLine, ...] = ()
    omitted: int | None = None


@dataclass(frozen=True, slots=True)
class NamespaceLine:
    """A namespace of the store, its labels joined by dots, and its items in the frozen source."""

    namespace: str
    items: int


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """The store that the run takes: its namespaces, the first ones by name, the rest as a figure.

    `vectors`: `copied`, `none` where the source has none, or `not_copied`, of which a warning says why.
    """

    namespaces: int
    listed: tuple[NamespaceLine, ...]
    omitted: int
    vectors: str


@dataclass(frozen=True, slots=True)
class ChangeFigures:
    """Keys added, changed and removed."""

    added: int | None = None
    changed: int | None = None
    removed: int | None = None

    @property
    def total(self) -> int:
        return (self.added or 0) + (self.changed or 0) + (self.removed or 0)


@dataclass(frozen=True, slots=True)
class DriftFigures:
    """What changed in the source since it was frozen."""

    checkpoints: ChangeFigures = ChangeFigures()
    writes: ChangeFigures = ChangeFigures()
    store: ChangeFigures | None = None
    store_vectors: ChangeFigures | None = None

    @property
    def total(self) -> int:
        kinds = (self.checkpoints, self.writes, self.store, self.store_vectors)
        return sum(change.total for change in kinds if change is not None)


@dataclass(frozen=True, slots=True)
class ErrorFacts:
    """The error that ended the run; `type` is a name of the failure tree, or of Python."""

    type: str
    what: str
    safe: str
    next: str
    transient: bool


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the way with its seconds; no rate where it moves no checkpoints."""

    name: str
    seconds: float
    checkpoints_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL for a person to run, and what it is for."""

    what: str
    statement: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that a run has to say at its end."""

    version: int = 1
    run_id: str
    dag_id: str
    started: str | None = None
    finished: str | None = None
    succeeded: bool
    source: SourceFacts = SourceFacts()
    target: TargetFacts = TargetFacts()
    verdict: Verdict
    sentence: str = ""
    next_steps: tuple[str, ...] = ()
    counts: RowCounts = RowCounts()
    scope: Scope = Scope()
    threads: Threads = Threads()
    differences: tuple[Difference, ...] = ()
    conflicts: tuple[Difference, ...] = ()
    warnings: tuple[Caution, ...] = ()
    blockers: tuple[Blocker, ...] = ()
    drift: DriftFigures = DriftFigures()
    error: ErrorFacts | None = None
    phases: tuple[Phase, ...] = ()
    sql: tuple[Statement, ...] = ()
    store: StoreFacts | None = None

    @property
    def seconds(self) -> float | None:
        """From start to finish, when both are known."""
        if self.started is None or self.finished is None:
            return None
        span = datetime.fromisoformat(self.finished) - datetime.fromisoformat(self.started)
        return span.total_seconds()

    def to_json(self) -> bytes:
        """Return `report.json`: pretty-printed, and valid UTF-8 whatever the ids hold."""
        text = json.dumps(_plain(self), ensure_ascii=False, allow_nan=False, indent=2)
        return text.encode() + b"\n"


ONLY_WITH_A_STORE = ("store", "store_vectors")


def read_report(data: bytes) -> Report:
    """Return the report that `to_json` wrote; `msgspec.ValidationError` for anything else."""
    return msgspec.json.decode(data, type=Report)


def _plain(value: Any) -> Any:
    if isinstance(value, Struct):
        return {name: _plain(part) for name, part in structs.asdict(value).items()}
    if is_dataclass(value):
        named = [(f.name, getattr(value, f.name)) for f in fields(value)]
        return {n: _plain(v) for n, v in named if not (v is None and n in ONLY_WITH_A_STORE)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        # "\ud800" within JSON is legal and still refused by most readers, jsonb and jq among them.
        return value.encode("utf-8", "backslashreplace").decode()
    return value
