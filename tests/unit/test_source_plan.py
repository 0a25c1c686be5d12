"""Threads become shards: one each while they are few, else ranges of about equal cost."""

from __future__ import annotations

import resource
import time
from contextlib import closing
from pathlib import Path

import pytest

from include.checkpoint_migration.findings import Counts
from include.checkpoint_migration.settings import ThreadFilter
from include.checkpoint_migration.source import (
    count,
    iter_checkpoints,
    open_frozen,
    plan,
    thread_counts,
    thread_stats,
)
from tests.support.sqlite_sources import FIXTURES, add_checkpoint, add_write, empty, even

EVERYTHING = ThreadFilter()


def test_few_threads_get_a_shard_each_with_their_name(tmp_path: Path) -> None:
    """Up to the cap a shard is a thread, and its label says which and how much."""
    path = tmp_path / "a.sqlite"
    with closing(empty(path)) as conn:
        for number in range(1_118):
            add_checkpoint(conn, "user-42", id=str(number))
        add_checkpoint(conn, "one")
        add_write(conn, "only-writes")
        add_checkpoint(conn, "new\nline" + "x" * 100)
    with closing(open_frozen(path)) as conn:
        shards = plan(conn, EVERYTHING, even(4))
    assert [s.label for s in shards] == [
        f"thread 'new\\nline{'x' * 31}…' · 1 checkpoint".replace("…", "\\u2026"),
        "thread 'one' · 1 checkpoint",
        "thread 'only-writes' · 0 checkpoints",
        "thread 'user-42' · 1,118 checkpoints",
    ]
    assert [s.index for s in shards] == [0, 1, 2, 3]
    assert [s.writes for s in shards] == [0, 0, 1, 0]
    assert all(s.first == s.last for s in shards)


def test_many_threads_are_binned_evenly(tmp_path: Path) -> None:
    """Beyond the cap no shard costs much more than its share, where no thread does alone."""
    path = tmp_path / "a.sqlite"
    with closing(empty(path)) as conn:
        conn.execute("BEGIN")
        for number in range(500):
            add_checkpoint(conn, f"t{number:03d}", blob=bytes(100 * (number % 50)))
        conn.execute("COMMIT")
    with closing(open_frozen(path)) as conn:
        shards = plan(conn, EVERYTHING, even(8))
        stats = list(thread_stats(conn, EVERYTHING))
    assert len(shards) == 8
    assert sum(s.threads for s in shards) == 500
    assert sum(s.bytes for s in shards) == sum(s.bytes for s in stats)
    costs = [s.bytes + 2_000 * s.checkpoints for s in shards]
    assert max(costs) < 1.1 * sum(costs) / 8
    first = shards[0]
    last = f"t{first.threads - 1:03d}"
    assert first.named == f"'t000' … '{last}', {first.threads} threads"
    assert first.label == f"{first.named} · {first.checkpoints} checkpoints"


def test_rows_count_as_well_as_bytes(tmp_path: Path) -> None:
    """Many tiny rows weigh as a few large ones: a thread of rows alone does not join them all."""
    path = tmp_path / "a.sqlite"
    with closing(empty(path)) as conn:
        conn.execute("BEGIN")
        for number in range(1_000):
            add_checkpoint(conn, "a-tiny", id=str(number), blob=b"")
        for number in range(4):
            add_checkpoint(conn, f"b-large{number}", blob=bytes(500_000))
        conn.execute("COMMIT")
    with closing(open_frozen(path)) as conn:
        first, second = plan(conn, EVERYTHING, even(2))
    assert (first.threads, second.threads) == (1, 4)


def test_giant_thread_leaves_no_empty_shard(tmp_path: Path) -> None:
    """One thread that outweighs all others takes a shard; the rest share the others."""
    path = tmp_path / "a.sqlite"
    with closing(empty(path)) as conn:
        conn.execute("BEGIN")
        for number in range(20):
            add_checkpoint(conn, f"t{number:02d}", blob=bytes(5_000_000 if number == 10 else 10))
        conn.execute("COMMIT")
    with closing(open_frozen(path)) as conn:
        shards = plan(conn, EVERYTHING, even(8))
    assert [s.threads for s in shards] == [10, 1, 9]


def test_threads_not_taken_are_not_planned() -> None:
    """Counts, stats and shards concern the threads taken; a range may span others."""
    taken = ThreadFilter(("s*", "!sends*"))
    with closing(open_frozen(FIXTURES / "checkpoint-sqlite-3.1.2.sqlite")) as conn:
        names = [s.thread_id for s in thread_stats(conn, taken)]
        (shard,) = plan(conn, taken, even(1))
        rows = {row.thread_id for row in iter_checkpoints(conn, shard, taken)}
        counts = count(conn, taken)
    assert names == ["simple", "strenum", "subgraph", "surrogate"]
    assert rows == set(names)
    assert (shard.threads, shard.checkpoints) == (4, counts.checkpoints)
    assert counts == Counts(22, 47)


def test_no_threads_no_shards(tmp_path: Path) -> None:
    """A database with both tables and no rows is planned as nothing."""
    path = tmp_path / "a.sqlite"
    empty(path).close()
    with closing(open_frozen(path)) as conn:
        assert plan(conn, EVERYTHING, even(64)) == ()
        assert count(conn, EVERYTHING) == Counts(0, 0)
        assert list(thread_counts(conn, EVERYTHING)) == []


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100,000 threads with a checkpoint and a write each."""
    path = tmp_path_factory.mktemp("crowd") / "a.sqlite"
    with closing(empty(path)) as conn:
        conn.execute("PRAGMA synchronous=OFF")
        conn.execute("BEGIN")
        crowd = (
            "WITH RECURSIVE n(i) AS (VALUES (0) UNION ALL SELECT i + 1 FROM n WHERE i < 99999) "
            "INSERT INTO {} SELECT 'thread-' || i, '', 'id', {} FROM n"
        )
        conn.execute(crowd.format("checkpoints", "NULL, 'msgpack', x'80', x'7b7d'"))
        conn.execute(crowd.format("writes", "'task', '', 0, 'c', 'null', x''"))
        conn.execute("COMMIT")
    return path


def test_100_000_threads_are_planned_in_seconds(crowd: Path) -> None:
    """100,000 threads make 64 even shards within seconds, at no cost in memory."""
    with closing(open_frozen(crowd)) as conn:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.process_time()
        shards = plan(conn, EVERYTHING, even(64))
        seconds = time.process_time() - began
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert [s.threads for s in shards] == pytest.approx([1562.5] * 64, rel=0.04)
    assert sum(s.threads for s in shards) == 100_000
    bounds = [bytes.fromhex(bound) for shard in shards for bound in (shard.first, shard.last)]
    assert bounds == sorted(set(bounds))
    assert sum(s.checkpoints for s in shards) == sum(s.writes for s in shards) == 100_000
    assert seconds < 10
    assert grown < 40_000  # KiB, of which SQLite's page cache may take 16,000


def test_a_few_of_100_000_threads_are_found_by_seeks(crowd: Path) -> None:
    """Rows of the threads taken come without reading those of the others."""
    taken = ThreadFilter(("thread-5000?",))
    with closing(open_frozen(crowd)) as conn:
        (shard,) = plan(conn, taken, even(1))
        rows = [row.thread_id for row in iter_checkpoints(conn, shard, taken)]
    assert rows == [f"thread-5000{digit}" for digit in range(10)]
