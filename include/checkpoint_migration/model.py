"""The nouns of a migration: plain frozen data that tasks hand to one another. No I/O."""

from __future__ import annotations

from typing import Any, NamedTuple

from msgspec import Struct

from .findings import Blocker, Caution, Counts
from .store_model import StoreInfo

# --- rows of the source -----------------------------------------------------------------------
# A TEXT that is valid UTF-8 arrives as `str`; a BLOB, and a TEXT that is not UTF-8, as `bytes`.

SourceText = str | bytes


class CheckpointRow(NamedTuple):
    """A row of the source's `checkpoints`."""

    thread_id: SourceText
    checkpoint_ns: SourceText
    checkpoint_id: SourceText
    parent_checkpoint_id: SourceText | None
    type: SourceText | None
    checkpoint: SourceText | None
    metadata: SourceText | None


class WriteRow(NamedTuple):
    """A row of the source's `writes`; `task_path` is "" where the layout has none."""

    thread_id: SourceText
    checkpoint_ns: SourceText
    checkpoint_id: SourceText
    task_id: SourceText
    task_path: SourceText
    idx: Any
    channel: SourceText
    type: SourceText | None
    value: SourceText | None


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


# --- the source -------------------------------------------------------------------------------


class OtherTable(Struct, frozen=True):
    """A table beside the two; `rows` is None where they were not counted.

    `module`: it is a virtual table of that kind, and `shadows` are the tables that it keeps its rows in.
    """

    name: str
    rows: int | None
    module: str = ""
    shadows: tuple[str, ...] = ()


class Beside(Struct, frozen=True):
    """What the file holds besides, and rows of the threads taken that nothing leads to.

    `store`: the tables of a `SqliteStore`. `objects`: views and triggers. `faults`: what SQLite's own
    check says of other tables. Of orphan writes and of threads without checkpoints some are named.
    """

    tables: tuple[OtherTable, ...] = ()
    store: tuple[OtherTable, ...] = ()
    objects: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    orphan_writes: int = 0
    orphan_threads: tuple[str, ...] = ()
    lone_threads: int = 0
    lone_examples: tuple[str, ...] = ()


class SourceInfo(Struct, frozen=True):
    """What a look at the source shows. `format` is a name from `docs/formats.md`.

    `beside` is for the frozen source alone: looking takes time that writers should not wait for.
    `store` is None where the file has none.
    """

    uri: str
    format: str
    bytes: int
    has_task_path: bool
    counts: Counts
    threads: int
    max_row_bytes: int
    unmatched_globs: tuple[str, ...] = ()
    other_tables: tuple[str, ...] = ()
    other_columns: tuple[str, ...] = ()
    beside: Beside | None = None
    store: StoreInfo | None = None


class ThreadStat(Struct, frozen=True):
    """A thread with its rows and their bytes."""

    thread_id: SourceText
    checkpoints: int
    writes: int
    bytes: int


# --- the target -------------------------------------------------------------------------------


class TargetInfo(Struct, frozen=True):
    """What a look at the target showed, after its tables were made if they had to be.

    `schema` is the one that promote writes. `created_tables`: this call made or updated them.
    `fingerprint` is what `recheck_target` holds the schema against.
    """

    conn_id: str
    database: str
    database_oid: int
    role: str
    schema: str
    server_version: str
    encoding: str
    collation: str
    pooled: bool
    created_tables: bool
    tables_version: int
    fingerprint: str
    warnings: tuple[str, ...] = ()


# --- plan, export, load -----------------------------------------------------------------------


class Shard(Struct, frozen=True):
    """The threads that one export task takes: those from `first` to `last` in byte order.

    Bounds are the hex of the ids' UTF-8 bytes, so that no id of a database travels raw. `named` says
    which threads it takes, quoted and cut, and `label` what there is of them. The long-term store is a
    shard of its own, the last one, with `items` and no threads.
    """

    index: int
    first: str
    last: str
    threads: int
    checkpoints: int
    writes: int
    bytes: int
    label: str
    named: str = ""
    items: int | None = None

    @property
    def is_store(self) -> bool:
        return self.items is not None


class BatchEntry(Struct, frozen=True):
    """A batch within its export file: the byte range of one zstd frame, what it holds, its SHA-256."""

    offset: int
    length: int
    raw_length: int
    checkpoints: int
    writes: int
    blobs: int
    sha256: str
    items: int = 0
    vectors: int = 0


class Manifest(Struct, frozen=True):
    """What an export file claims; of its blockers, sanitising would solve those `curable`."""

    version: int
    created: str
    run: str
    shard: int
    threads: int
    counts: Counts
    length: int
    batches: tuple[BatchEntry, ...]
    blockers: tuple[Blocker, ...] = ()
    warnings: tuple[Caution, ...] = ()
    classes: dict[str, int] = {}
    curable: int = 0
    is_store: bool = False


class Export(Struct, frozen=True):
    """What an export task hands on through XCom: a path, ids, counts and digests.

    `label` is for people: which threads it took, quoted and cut.
    """

    shard: int
    path: str
    manifest_sha256: str
    counts: Counts
    batches: int
    blockers: int
    label: str = ""


class BatchRange(Struct, frozen=True):
    """Consecutive batches of one export file: `first` and the `count - 1` that follow it."""

    shard: int
    path: str
    manifest_sha256: str
    first: int
    count: int


class Load(Struct, frozen=True):
    """The batches that one `load_batch` task takes, each a transaction and a receipt of its own."""

    index: int
    label: str
    batches: tuple[BatchRange, ...]


class Receipt(Struct, frozen=True):
    """What a batch committed."""

    shard: int
    batch: int
    counts: Counts
    already_done: bool = False
