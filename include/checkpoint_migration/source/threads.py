"""Knows what each thread of an open database weighs, and bins threads into shards."""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterator
from functools import reduce
from itertools import count as count_from
from itertools import groupby
from typing import NamedTuple

from ..findings import Counts
from ..model import Shard, SourceText, ThreadStat
from ..settings import ThreadFilter
from ..task_sizes import TaskSizes
from ..texts import threads_named
from .rows import BLOB_IDS, TEXT_IDS, Kind, has_blob_ids, has_saver, indexed, raw, select
from .store import count_store

ROW_COST = 2_000  # a row's share of an export's time, in bytes of state
FINENESS = 32  # bins for each shard while planning: shards are then even to about 3 %
LENGTHS = {
    "checkpoints": "ifnull(length(checkpoint), 0) + ifnull(length(metadata), 0)",
    "writes": "ifnull(length(value), 0)",
}


def thread_stats(conn: sqlite3.Connection, thread_filter: ThreadFilter) -> Iterator[ThreadStat]:
    """The threads taken in byte order, orphan writes' threads too, with rows and bytes of state."""
    return _stats(conn, thread_filter, weigh=True)


def thread_counts(conn: sqlite3.Connection, thread_filter: ThreadFilter) -> Iterator[ThreadStat]:
    """As `thread_stats`, from the keys' indexes alone: `bytes` is 0."""
    return _stats(conn, thread_filter, weigh=False)


def count(
    conn: sqlite3.Connection, thread_filter: ThreadFilter, store_tables: tuple[str, ...] = ()
) -> Counts:
    """The rows of the threads taken, and of those of the store's tables that are."""
    return _count(conn, thread_filter) + count_store(conn, store_tables)


def _count(conn: sqlite3.Connection, thread_filter: ThreadFilter) -> Counts:
    if not has_saver(conn):
        return Counts()
    if thread_filter.globs:
        return sum(
            (Counts(s.checkpoints, s.writes) for s in thread_counts(conn, thread_filter)), Counts()
        )
    # count(*) takes the smallest index, which may need a collation of the application's
    (checkpoints,) = conn.execute(select("count(*)", "checkpoints NOT INDEXED")).fetchone()
    (writes,) = conn.execute(select("count(*)", "writes NOT INDEXED")).fetchone()
    return Counts(checkpoints, writes)


def plan(
    conn: sqlite3.Connection, thread_filter: ThreadFilter, sizes: TaskSizes
) -> tuple[Shard, ...]:
    """A shard for each thread while threads are few; else shards of about equal cost, as `sizes` says.

    A shard is a range of the threads taken, in byte order; ids of the same bytes stay together.
    Threads are read once: bins much finer than the shards are kept, and joined in the end.
    """
    fine = FINENESS * sizes.max_export_tasks
    bins: list[_Bin] = []
    total = state = threads = 0
    for _, stats in groupby(thread_stats(conn, thread_filter), key=lambda s: raw(s.thread_id)):
        bins.append(reduce(_joined, map(_bin, stats)))
        total += bins[-1].cost
        state += bins[-1].bytes
        threads += 1
        if len(bins) >= 4 * fine:
            bins = _coarser(bins, total / fine)
    shards = sizes.shards(threads, state)
    if len(bins) > shards:
        bins = [reduce(_joined, group) for _, group in groupby(bins, _Share(shards, total))]
    return tuple(map(_shard, count_from(0), bins))


def plan_store(
    conn: sqlite3.Connection, store_tables: tuple[str, ...], index: int
) -> tuple[Shard, ...]:
    """The store as a shard of its own, where it has items."""
    counts = count_store(conn, store_tables)
    if not counts.items:
        return ()
    label = f"store · {counts.items:,} item{'' if counts.items == 1 else 's'}"
    return (Shard(index, "", "", 0, 0, 0, 0, label, items=counts.items),)


class _Bin(NamedTuple):
    first: SourceText
    last: SourceText
    threads: int
    checkpoints: int
    writes: int
    bytes: int

    @property
    def cost(self) -> int:
        return self.bytes + ROW_COST * (self.checkpoints + self.writes)


def _bin(stat: ThreadStat) -> _Bin:
    return _Bin(stat.thread_id, stat.thread_id, 1, stat.checkpoints, stat.writes, stat.bytes)


def _joined(a: _Bin, b: _Bin) -> _Bin:
    return _Bin(a.first, b.last, *(x + y for x, y in zip(a[2:], b[2:], strict=True)))


def _coarser(bins: list[_Bin], limit: float) -> list[_Bin]:
    """Join neighbours while together they cost no more than `limit`."""
    joined = bins[:1]
    for next_ in bins[1:]:
        if joined[-1].cost + next_.cost <= limit:
            joined[-1] = _joined(joined[-1], next_)
        else:
            joined.append(next_)
    return joined


class _Share:
    """Says which of `shares` shares the next bin belongs to: where the middle of its cost falls."""

    def __init__(self, shares: int, total: int) -> None:
        self.shares, self.total, self.before = shares, total, 0

    def __call__(self, bin_: _Bin) -> int:
        middle = self.before + bin_.cost / 2
        self.before += bin_.cost
        return min(int(middle * self.shares / self.total), self.shares - 1)


def _shard(index: int, bin_: _Bin) -> Shard:
    threads, checkpoints = bin_.threads, bin_.checkpoints
    named = threads_named(bin_.first, bin_.last, threads)
    return Shard(
        index=index,
        first=raw(bin_.first).hex(),
        last=raw(bin_.last).hex(),
        threads=threads,
        checkpoints=checkpoints,
        writes=bin_.writes,
        bytes=bin_.bytes,
        label=f"{named} · {checkpoints:,} checkpoint{'' if checkpoints == 1 else 's'}",
        named=named,
    )


def _stats(
    conn: sqlite3.Connection, thread_filter: ThreadFilter, weigh: bool
) -> Iterator[ThreadStat]:
    if not has_saver(conn):
        return iter(())
    stats = _of_kind(conn, TEXT_IDS, weigh)
    if has_blob_ids(conn, "checkpoints") or has_blob_ids(conn, "writes"):
        blobs = _of_kind(conn, BLOB_IDS, weigh)
        stats = heapq.merge(stats, blobs, key=lambda s: raw(s.thread_id))
    return (s for s in stats if thread_filter.takes(s.thread_id)) if thread_filter.globs else stats


def _of_kind(conn: sqlite3.Connection, kind: Kind, weigh: bool) -> Iterator[ThreadStat]:
    """A full outer join of both tables' groups; both come in the order of their key's index."""
    ours = _groups(conn, "checkpoints", kind, weigh)
    theirs = _groups(conn, "writes", kind, weigh)
    a, b = next(ours, None), next(theirs, None)
    while a is not None or b is not None:
        if b is None or (a is not None and a[0] != b[0] and raw(a[0]) < raw(b[0])):
            assert a is not None
            yield ThreadStat(a[0], a[1], 0, a[2])
            a = next(ours, None)
        elif a is None or a[0] != b[0]:
            yield ThreadStat(b[0], 0, b[1], b[2])
            b = next(theirs, None)
        else:
            yield ThreadStat(a[0], a[1], b[1], a[2] + b[2])
            a, b = next(ours, None), next(theirs, None)


def _groups(
    conn: sqlite3.Connection, table: str, kind: Kind, weigh: bool
) -> Iterator[tuple[SourceText, int, int]]:
    size = f"sum({LENGTHS[table]})" if weigh else "0"
    rest = f"WHERE {kind.rows} GROUP BY thread_id ORDER BY thread_id"
    return conn.execute(select(f"thread_id, count(*), {size}", indexed(conn, table), rest))
