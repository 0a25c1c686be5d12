"""The nouns of a migration: plain frozen data that tasks hand to one another. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

# --- rows of the source -----------------------------------------------------------------------
# A TEXT that is valid UTF-8 arrives as `str`; a BLOB, and a TEXT that is not UTF-8, as `bytes`.

Text = str | bytes


class CheckpointRow(NamedTuple):
    """A row of the source's `checkpoints`."""

    thread_id: Text
    checkpoint_ns: Text
    checkpoint_id: Text
    parent_checkpoint_id: Text | None
    type: Text | None
    checkpoint: Text | None
    metadata: Text | None


class WriteRow(NamedTuple):
    """A row of the source's `writes`; `task_path` is "" where the layout has none."""

    thread_id: Text
    checkpoint_ns: Text
    checkpoint_id: Text
    task_id: Text
    task_path: Text
    idx: Any
    channel: Text
    type: Text | None
    value: Text | None


# --- rows of the target -----------------------------------------------------------------------


class TargetBlob(NamedTuple):
    """A row of `checkpoint_blobs`, without its thread and namespace."""

    channel: str
    version: str
    type: str
    blob: bytes


class TargetWrite(NamedTuple):
    """A row of `checkpoint_writes`, without its thread, namespace and checkpoint."""

    task_id: str
    task_path: str
    idx: int
    channel: str
    type: str
    blob: bytes


class TargetCheckpoint(NamedTuple):
    """A row of `checkpoints` (JSON texts) with the blobs it is the first to need and its writes.

    `checkpoint` is None for pending writes whose checkpoint the source does not have (orphans).
    `original_metadata` are the source's bytes where `metadata` had to be sanitised.
    """

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    parent_checkpoint_id: str | None
    checkpoint: bytes | None
    metadata: bytes | None
    blobs: list[TargetBlob]
    writes: list[TargetWrite]
    original_metadata: bytes | None = None


# --- counts and findings ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows of a kind; `blobs` is None where the layout has no blobs (SQLite)."""

    checkpoints: int = 0
    writes: int = 0
    blobs: int | None = None

    def __add__(self, other: Counts) -> Counts:
        blobs = None if self.blobs is None or other.blobs is None else self.blobs + other.blobs
        return Counts(self.checkpoints + other.checkpoints, self.writes + other.writes, blobs)


@dataclass(frozen=True, slots=True)
class Blocker:
    """A row that PostgreSQL has no lossless place for. `why` names no value."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    column: str
    why: str


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where two sides are not equal. `why` names no value."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    table: str
    column: str
    why: str


@dataclass(frozen=True, slots=True)
class Warning_:
    """Something migrated that will bite after the switch; `threads` are examples, `count` is exact."""

    kind: str
    message: str
    count: int
    threads: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """Keys added, changed (same key, other content) and removed."""

    added: int = 0
    changed: int = 0
    removed: int = 0

    @property
    def total(self) -> int:
        return self.added + self.changed + self.removed


@dataclass(frozen=True, slots=True)
class Drift:
    """What changed in the source since it was frozen."""

    checkpoints: Change = Change()
    writes: Change = Change()

    @property
    def any(self) -> bool:
        return bool(self.checkpoints.total + self.writes.total)


class Verdict(StrEnum):
    """`identical`: all rows live and equal. `different`: not. `unproven`: not checked or not reached."""

    IDENTICAL = "identical"
    DIFFERENT = "different"
    UNPROVEN = "unproven"


# --- the source -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What a look at the source shows. `format` is a name from `docs/formats.md`."""

    uri: str
    format: str
    bytes: int
    has_task_path: bool
    counts: Counts
    threads: int
    max_row_bytes: int
    other_tables: tuple[str, ...] = ()
    other_columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ThreadStat:
    """A thread with its rows and their bytes."""

    thread_id: Text
    checkpoints: int
    writes: int
    bytes: int


# --- plan, export, load -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shard:
    """The threads that one export task takes: those from `first` to `last` in byte order.

    Bounds are the hex of the ids' UTF-8 bytes, so that no id of a database travels raw.
    """

    index: int
    first: str
    last: str
    threads: int
    checkpoints: int
    writes: int
    bytes: int
    label: str


@dataclass(frozen=True, slots=True)
class BatchEntry:
    """A batch within its export file: the byte range of one zstd frame, what it holds, its SHA-256."""

    offset: int
    length: int
    raw_length: int
    checkpoints: int
    writes: int
    blobs: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an export file claims."""

    version: int
    created: str
    run: str
    shard: int
    threads: int
    counts: Counts
    length: int
    batches: tuple[BatchEntry, ...]
    blockers: tuple[Blocker, ...] = ()
    warnings: tuple[Warning_, ...] = ()
    classes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Export:
    """What an export task hands on through XCom: a path, ids, counts and digests."""

    shard: int
    path: str
    manifest_sha256: str
    counts: Counts
    batches: int
    blockers: int


@dataclass(frozen=True, slots=True)
class BatchRange:
    """Consecutive batches of one export file: `first` and the `count - 1` that follow it."""

    shard: int
    path: str
    manifest_sha256: str
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Load:
    """The batches that one `load_batch` task takes, each a transaction and a receipt of its own."""

    index: int
    label: str
    batches: tuple[BatchRange, ...]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a batch committed."""

    shard: int
    batch: int
    counts: Counts
    again: bool = False


@dataclass(frozen=True, slots=True)
class ShardVerdict:
    """What the oracle says of one shard. `differences` holds the first ones, `found` counts all."""

    shard: int
    counts: Counts
    found: int
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True, slots=True)
class Promotion:
    """What the promoting transaction did, or found done (`again`).

    `removed` are staged rows that stay away because the application removed them from live after
    an earlier run; `kept` are live rows that differ and stay, `replaced` those that gave way.
    """

    inserted: Counts
    identical: Counts
    removed: Counts = Counts(0, 0, 0)
    kept: int = 0
    replaced: int = 0
    removed_threads: tuple[str, ...] = ()
    conflicts: tuple[Difference, ...] = ()
    again: bool = False
