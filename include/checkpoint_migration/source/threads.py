"""Knows what each thread of an open database weighs, and bins threads into shards."""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import chain, groupby, islice

from include.checkpoint_migration.errors import quoted
from include.checkpoint_migration.model import Counts, Shard, Text, ThreadStat
from include.checkpoint_migration.settings import ThreadFilter

from .rows import BLOB_IDS, TEXT_IDS, Kind, has_blob_ids, indexed, raw, select

ROW_COST = 2_000  # a row's share of an export's time, in bytes of state
LENGTHS = {
    "checkpoints": "ifnull(length(checkpoint), 0) + ifnull(length(metadata), 0)",
    "writes": "ifnull(length(value), 0)",
}


def thread_stats(conn: sqlite3.Connection, taken: ThreadFilter) -> Iterator[ThreadStat]:
    """The threads taken in byte order, orphan writes' threads too, with rows and bytes of state."""
    return _stats(conn, taken, weigh=True)


def thread_counts(conn: sqlite3.Connection, taken: ThreadFilter) -> Iterator[ThreadStat]:
    """As `thread_stats`, from the keys' indexes alone: `bytes` is 0."""
    return _stats(conn, taken, weigh=False)


def count(conn: sqlite3.Connection, taken: ThreadFilter) -> Counts:
    """The rows of the threads taken."""
    if taken.globs:
        return sum((Counts(s.checkpoints, s.writes) for s in thread_counts(conn, taken)), Counts())
    checkpoints, writes = conn.execute(
        "SELECT (SELECT count(*) FROM checkpoints), (SELECT count(*) FROM writes)"
    ).fetchone()
    return Counts(checkpoints, writes)


def plan(conn: sqlite3.Connection, taken: ThreadFilter, cap: int) -> tuple[Shard, ...]:
    """A shard for each thread while there are at most `cap`; else `cap` shards of about equal cost.

    A shard is a range of the threads taken, in byte order; ids of the same bytes stay together.
    """
    few = list(islice(_by_bytes(conn, taken), cap + 1))
    if len(few) <= cap:
        return tuple(_shard(i, stats) for i, stats in enumerate(few))
    total = sum(_cost(s) for s in thread_stats(conn, taken))
    bins = groupby(_by_bytes(conn, taken), key=_Bins(cap, total))
    return tuple(_shard(i, chain.from_iterable(group)) for i, (_, group) in enumerate(bins))


class _Bins:
    """Says which of `cap` bins the next threads belong to: where the middle of their cost falls."""

    def __init__(self, cap: int, total: int) -> None:
        self.cap, self.total, self.before = cap, total, 0

    def __call__(self, stats: list[ThreadStat]) -> int:
        cost = sum(map(_cost, stats))
        middle = self.before + cost / 2
        self.before += cost
        return min(int(middle * self.cap / self.total), self.cap - 1)


def _cost(stat: ThreadStat) -> int:
    return stat.bytes + ROW_COST * (stat.checkpoints + stat.writes)


def _by_bytes(conn: sqlite3.Connection, taken: ThreadFilter) -> Iterator[list[ThreadStat]]:
    """Threads, those together whose ids are the same bytes: a range cannot part them."""
    for _, stats in groupby(thread_stats(conn, taken), key=lambda s: raw(s.thread_id)):
        yield list(stats)


def _shard(index: int, stats: Iterable[ThreadStat]) -> Shard:
    first = last = None
    threads = checkpoints = writes = size = 0
    for last in stats:
        first = first or last
        threads += 1
        checkpoints += last.checkpoints
        writes += last.writes
        size += last.bytes
    if first is None or last is None:
        raise ValueError("a shard without threads")
    what = f"thread {quoted(first.thread_id, 40)}" if threads == 1 else f"{threads:,} threads"
    return Shard(
        index=index,
        first=raw(first.thread_id).hex(),
        last=raw(last.thread_id).hex(),
        threads=threads,
        checkpoints=checkpoints,
        writes=writes,
        bytes=size,
        label=f"{what} · {checkpoints:,} checkpoint{'' if checkpoints == 1 else 's'}",
    )


def _stats(conn: sqlite3.Connection, taken: ThreadFilter, weigh: bool) -> Iterator[ThreadStat]:
    stats = _of_kind(conn, TEXT_IDS, weigh)
    if has_blob_ids(conn, "checkpoints") or has_blob_ids(conn, "writes"):
        blobs = _of_kind(conn, BLOB_IDS, weigh)
        stats = heapq.merge(stats, blobs, key=lambda s: raw(s.thread_id))
    return (s for s in stats if taken.takes(s.thread_id)) if taken.globs else stats


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
) -> Iterator[tuple[Text, int, int]]:
    size = f"sum({LENGTHS[table]})" if weigh else "0"
    rest = f"WHERE {kind.rows} GROUP BY thread_id ORDER BY thread_id"
    return conn.execute(select(f"thread_id, count(*), {size}", indexed(conn, table), rest))
