"""What a run counts and finds, and its verdict: plain frozen data. No I/O."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Counts(Struct, frozen=True):
    """Rows of a kind; `blobs` is None where the layout has no blobs (SQLite).

    `items` and `vectors` are the long-term store's, as far as a run takes them.
    """

    checkpoints: int = 0
    writes: int = 0
    blobs: int | None = None
    items: int = 0
    vectors: int = 0

    def __add__(self, other: Counts) -> Counts:
        blobs = None if self.blobs is None or other.blobs is None else self.blobs + other.blobs
        return Counts(
            self.checkpoints + other.checkpoints,
            self.writes + other.writes,
            blobs,
            self.items + other.items,
            self.vectors + other.vectors,
        )


class Blocker(Struct, frozen=True):
    """A row that PostgreSQL has no lossless place for. `why` names no value."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    column: str
    why: str


class Difference(Struct, frozen=True):
    """One place where two sides are not equal. `why` names no value."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    table: str
    column: str
    why: str


class Caution(Struct, frozen=True):
    """Something migrated that will bite after the switch; `threads` are examples, `count` is exact."""

    kind: str
    message: str
    count: int
    threads: tuple[str, ...] = ()


class Change(Struct, frozen=True):
    """Keys added, changed (same key, other content) and removed."""

    added: int = 0
    changed: int = 0
    removed: int = 0

    @property
    def total(self) -> int:
        return self.added + self.changed + self.removed


class Drift(Struct, frozen=True):
    """What changed in the source since it was frozen; of the store, None where it is not taken."""

    checkpoints: Change = Change()
    writes: Change = Change()
    items: Change | None = None
    vectors: Change | None = None

    @property
    def any(self) -> bool:
        kinds = (self.checkpoints, self.writes, self.items, self.vectors)
        return any(change.total for change in kinds if change is not None)


class Verdict(StrEnum):
    """`identical`: all rows live and equal. `different`: not. `unproven`: not checked or not reached."""

    IDENTICAL = "identical"
    DIFFERENT = "different"
    UNPROVEN = "unproven"


class ShardVerdict(Struct, frozen=True):
    """What the oracle says of one shard. `differences` holds the first ones, `found` counts all."""

    shard: int
    counts: Counts
    found: int
    differences: tuple[Difference, ...] = ()


class Promotion(Struct, frozen=True):
    """What the promoting transaction did, or found done (`already_done`).

    `removed` are staged rows that stay away because the application removed them from live after
    an earlier run; `kept` are live rows that differ and stay, `replaced` those that gave way.
    `other_histories` are threads that stay away because live has another history under their id.
    `conflicting` counts all conflicts, `conflicts` has the first. `on_both_sides` counts threads that went on
    in the source and on live, `both_sides` has the first.
    """

    inserted: Counts
    identical: Counts
    removed: Counts = Counts(0, 0, 0)
    kept: int = 0
    replaced: int = 0
    removed_threads: tuple[str, ...] = ()
    conflicts: tuple[Difference, ...] = ()
    conflicting: int = 0
    other_histories: int = 0
    on_both_sides: int = 0
    both_sides: tuple[str, ...] = ()
    already_done: bool = False


class LeftThread(Struct, frozen=True):
    """A thread that undoing left whole, and what it left there of the run's rows, by table."""

    thread_id: str
    why: str
    rows: dict[str, int]


class LeftItem(Struct, frozen=True):
    """An item of the store that undoing left, and what it left there of the run's rows, by table."""

    namespace: str
    key: str
    why: str
    rows: dict[str, int]


class LeftBlob(Struct, frozen=True):
    """A blob that undoing left because a live checkpoint outside the run refers to it."""

    thread_id: str
    checkpoint_ns: str
    channel: str


class Undone(Struct, frozen=True):
    """What undoing a run did, or found done (`already_done`); rows by table.

    Of the rows that the run had inserted, `removed` were taken out now, `left` are live still, and
    `gone` were not live any more, or rewritten; of those it had replaced, `restored` have their originals again.
    `left_threads`, `left_items` and `left_blobs` count all; `threads`, `items` and `blobs` have the
    first. Tables of the store are there where the run wrote rows of it.
    """

    run_id: str
    dag_id: str
    schema: str
    removed: dict[str, int]
    restored: dict[str, int]
    left: dict[str, int]
    gone: dict[str, int]
    left_threads: int = 0
    threads: tuple[LeftThread, ...] = ()
    left_items: int = 0
    items: tuple[LeftItem, ...] = ()
    left_blobs: int = 0
    blobs: tuple[LeftBlob, ...] = ()
    nothing_live: bool = False
    already_done: bool = False


class LiveCheck(Struct, frozen=True):
    """What of staging is live and equal. `removed` and kept rows are not looked for.

    `swept` are items of the store that expired and that the application has swept since.
    """

    staged: Counts
    wanted: Counts
    live: Counts
    differences: tuple[Difference, ...]
    found: int
    swept: Counts = Counts(0, 0, 0)


class LateCheck(Struct, frozen=True):
    """What became of the checkpoints and items that a run recorded when it was promoted."""

    recorded: int
    unchanged: int
    changed: int
    missing: int


class WitnessResult(Struct, frozen=True):
    """What the witness found on live.

    `sampled` checkpoints were read back through both savers; `unread` ones of the sample could not
    be, because reading them would run code of the database (pickle). `swept` items of the store
    expired, and the application has removed them from live since promote.
    """

    verdict: Verdict
    source: Counts | None = None
    frozen: Counts | None = None
    exported: Counts | None = None
    staged: Counts | None = None
    live: Counts | None = None
    found: int = 0
    differences: tuple[Difference, ...] = ()
    sampled: int = 0
    unread: int = 0
    late: LateCheck | None = None
    swept: int = 0
