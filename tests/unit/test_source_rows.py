"""Rows leave the source once each, in byte order, by index, and whatever their ids are."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.checkpoint_migration.model import CheckpointRow, ThreadStat, WriteRow
from include.checkpoint_migration.settings import ThreadFilter
from include.checkpoint_migration.source import (
    count,
    iter_checkpoints,
    iter_writes,
    open_frozen,
    plan,
    sort_key,
    thread_counts,
    thread_stats,
)
from tests.support.sqlite_sources import FIXTURES, add_checkpoint, add_write, empty, even

EVERYTHING = ThreadFilter()
TODAY = FIXTURES / "checkpoint-sqlite-3.1.2.sqlite"
KEY = slice(0, 3)


def raw(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def exported(
    conn: sqlite3.Connection, taken: ThreadFilter, cap: int
) -> tuple[list[CheckpointRow], list[WriteRow]]:
    """What all shards give together, one after another."""
    shards = plan(conn, taken, even(cap))
    checkpoints = [row for shard in shards for row in iter_checkpoints(conn, shard, taken)]
    return checkpoints, [row for shard in shards for row in iter_writes(conn, shard, taken)]


@pytest.fixture
def today() -> Iterator[sqlite3.Connection]:
    with closing(open_frozen(TODAY)) as conn:
        yield conn


@pytest.mark.parametrize("cap", [1, 2, 7, 64])
def test_shards_give_every_row_once_in_key_order(today: sqlite3.Connection, cap: int) -> None:
    """However threads are binned, shard after shard is the table in byte order of its key."""
    checkpoints, writes = exported(today, EVERYTHING, cap)
    assert (
        checkpoints
        == today.execute(
            f"SELECT {', '.join(CheckpointRow._fields)} FROM checkpoints"
            " ORDER BY thread_id, checkpoint_ns, checkpoint_id"
        ).fetchall()
    )
    assert (
        writes
        == today.execute(
            f"SELECT {', '.join(WriteRow._fields)} FROM writes"
            " ORDER BY thread_id, checkpoint_ns, checkpoint_id, task_id, idx"
        ).fetchall()
    )
    assert isinstance(checkpoints[0], CheckpointRow)
    assert isinstance(writes[0], WriteRow)


def test_missing_task_path_is_empty() -> None:
    """Where the layout has no `task_path`, every write has the empty one."""
    with closing(open_frozen(FIXTURES / "checkpoint-sqlite-2.0.6.sqlite")) as conn:
        _, writes = exported(conn, EVERYTHING, 64)
    assert len(writes) == 326
    assert {row.task_path for row in writes} == {""}
    assert {row.channel for row in writes} >= {"log"}


def test_text_blob_and_broken_text_keep_their_types(tmp_path: Path) -> None:
    """TEXT that is UTF-8 is `str`; other TEXT and BLOBs are `bytes`, and none is lost."""
    ids = ["plain", "with\0nul", "ünï", b"plain", b"\xff\xfe"]
    path = tmp_path / "a.sqlite"
    with closing(empty(path)) as conn:
        for thread in ids:
            add_checkpoint(conn, thread)
            add_write(conn, thread)
        for table in ("checkpoints", "writes"):
            conn.execute(
                f"UPDATE {table} SET thread_id = CAST(x'c328' AS TEXT) WHERE thread_id = 'ünï'"
            )
    with closing(open_frozen(path)) as conn:
        for cap in (1, 3, 64):
            checkpoints, writes = exported(conn, EVERYTHING, cap)
            expected = ["plain", "with\0nul", b"\xc3\x28", b"plain", b"\xff\xfe"]
            for rows in (checkpoints, writes):
                assert sorted((r.thread_id for r in rows), key=sort_key) == expected
        assert [s.thread_id for s in thread_stats(conn, EVERYTHING)] == [
            "plain", b"plain", "with\0nul", b"\xc3\x28", b"\xff\xfe",
        ]  # fmt: skip
        shards = plan(conn, EVERYTHING, even(64))
        assert [bytes.fromhex(s.first) for s in shards] == [
            b"plain", b"with\0nul", b"\xc3\x28", b"\xff\xfe",
        ]  # fmt: skip
        assert shards[0].threads == 2


@pytest.mark.parametrize("broken", [(), (0,), (7, 8), (19,)])
def test_rows_are_the_same_where_nobody_else_reads(tmp_path: Path, broken: tuple[int, ...]) -> None:
    """Two streams side by side, other questions in between, and any row whose text is no UTF-8."""
    path = tmp_path / "a.sqlite"
    with closing(empty(path)) as conn:
        for n in range(20):
            add_checkpoint(conn, "thread", id=f"{n:02}")
            add_write(conn, "thread", id=f"{n:02}")
        for n in broken:
            where = f"WHERE checkpoint_id = '{n:02}'"
            conn.execute(f"UPDATE checkpoints SET metadata = CAST(x'7bff7d' AS TEXT) {where}")
            conn.execute(f"UPDATE writes SET type = CAST(x'ff' AS TEXT), value = 'text' {where}")
    with closing(open_frozen(path)) as conn:
        (shard,) = plan(conn, EVERYTHING, even(1))
        found: list[tuple[Any, ...]] = []
        for rows in zip(
            iter_checkpoints(conn, shard, EVERYTHING, alone=True),
            iter_writes(conn, shard, EVERYTHING, alone=True),
            strict=True,
        ):
            assert conn.execute("SELECT CAST(x'ff' AS TEXT)").fetchone() == (b"\xff",)
            found.append(rows)
        both = iter_checkpoints(conn, shard, EVERYTHING), iter_writes(conn, shard, EVERYTHING)
        for row, expected in zip(found, zip(*both, strict=True), strict=True):
            assert row == expected
            assert [*map(type, row[0]), *map(type, row[1])] == [
                *map(type, expected[0]),
                *map(type, expected[1]),
            ]


id_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
ids = st.one_of(
    id_texts,
    st.sampled_from(["a", "b", "ab", "", "a\0", "é", "z" * 300]),
    st.binary(max_size=4),
)
keys = st.tuples(ids, ids, ids)
write_keys = st.tuples(
    ids, ids, ids, ids, st.one_of(st.integers(-5, 5), st.just("text"), st.binary(max_size=2))
)


@pytest.fixture(scope="module")
def anything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "any.sqlite"
    empty(path).close()
    return path


@given(
    checkpoints=st.sets(keys, max_size=12),
    writes=st.sets(write_keys, max_size=12),
    cap=st.integers(1, 8),
    globs=st.sampled_from([(), ("a*",), ("!a*",), ("a*", "b", "!ab"), ("?",)]),
)
def test_no_id_is_lost_or_doubled(
    anything: Path,
    checkpoints: set[tuple[Any, ...]],
    writes: set[tuple[Any, ...]],
    cap: int,
    globs: tuple[str, ...],
) -> None:
    """For any ids, filter and cap, shards partition the rows taken, each in SQLite's key order."""
    taken = ThreadFilter(globs)
    with closing(sqlite3.connect(anything, isolation_level=None)) as conn:
        conn.execute("BEGIN")
        conn.execute("DELETE FROM checkpoints")
        conn.execute("DELETE FROM writes")
        conn.executemany(
            "INSERT INTO checkpoints VALUES (?, ?, ?, NULL, 'msgpack', x'80', x'7b7d')", checkpoints
        )
        conn.executemany(
            "INSERT INTO writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel,"
            " type, value) VALUES (?, ?, ?, ?, ?, 'c', 'null', x'')",
            writes,
        )
        conn.execute("COMMIT")
    with closing(open_frozen(anything)) as conn:
        shards = plan(conn, taken, even(cap))
        found: list[tuple[Any, ...]] = []
        found_writes: list[tuple[Any, ...]] = []
        for shard in shards:
            rows = [tuple(r[KEY]) for r in iter_checkpoints(conn, shard, taken)]
            pending = [(*r[:4], r.idx) for r in iter_writes(conn, shard, taken)]
            for order in (rows, pending):
                assert order == sorted(order, key=lambda key: [sort_key(c) for c in key])
            assert (len(rows), len(pending)) == (shard.checkpoints, shard.writes)
            found += rows
            found_writes += pending
        stats = list(thread_stats(conn, taken))
        counts = count(conn, taken)
        counted = [ThreadStat(s.thread_id, s.checkpoints, s.writes, 0) for s in stats]
        assert list(thread_counts(conn, taken)) == counted
    assert len(shards) <= cap
    assert len(found) == len(set(found)) == counts.checkpoints
    assert set(found) == {key for key in checkpoints if taken.takes(key[0])}
    assert len(found_writes) == len(set(found_writes)) == counts.writes
    assert set(found_writes) == {key for key in writes if taken.takes(key[0])}
    assert [raw(s.thread_id) for s in stats] == sorted(raw(s.thread_id) for s in stats)
    bounds = [bytes.fromhex(bound) for shard in shards for bound in (shard.first, shard.last)]
    assert bounds == sorted(bounds)


def statements(conn: sqlite3.Connection, rows: Iterator[Any]) -> list[str]:
    """The statements that reading all `rows` runs, as SQLite traces them."""
    run: list[str] = []
    conn.set_trace_callback(run.append)
    list(rows)
    conn.set_trace_callback(None)
    return [sql for sql in run if sql.startswith("SELECT") and " FROM pragma_" not in sql]


@pytest.mark.parametrize("globs", [(), ("s*",)])
@pytest.mark.parametrize("analyzed", [False, True])
def test_every_read_goes_by_the_keys_index(
    tmp_path: Path, globs: tuple[str, ...], analyzed: bool
) -> None:
    """No read sorts or scans a table, whatever the statistics of an ANALYZE suggest."""
    path = tmp_path / "a.sqlite"
    with closing(empty(path)) as conn:
        for number in range(200):
            add_checkpoint(conn, f"s{number % 3}", id=str(number))
            add_write(conn, b"blob", id=str(number))
            add_write(conn, "s1", id=str(number))
        if analyzed:
            conn.execute("ANALYZE")
    taken = ThreadFilter(globs)
    with closing(open_frozen(path)) as conn:
        shard = plan(conn, taken, even(1))[0]
        run = [
            sql
            for rows in (
                iter_checkpoints(conn, shard, taken),
                iter_writes(conn, shard, taken),
                thread_stats(conn, taken),
                thread_counts(conn, taken),
            )
            for sql in statements(conn, rows)
        ]
        assert len(run) >= 8
        for sql in run:
            steps = [row[3] for row in conn.execute(f"EXPLAIN QUERY PLAN {sql}")]
            for step in steps:
                assert "USING" in step, sql
                assert "INDEX sqlite_autoindex_" in step, sql
                assert "TEMP B-TREE" not in step, sql


def test_first_row_costs_one_row(tmp_path: Path) -> None:
    """Rows stream: the first comes before the others are read."""
    path = tmp_path / "a.sqlite"
    with closing(empty(path)) as conn:
        conn.execute("BEGIN")
        for number in range(5_000):
            add_checkpoint(conn, "thread", id=f"{number:06d}")
        conn.execute("COMMIT")
    with closing(open_frozen(path)) as conn:
        (shard,) = plan(conn, EVERYTHING, even(1))
        steps: list[int] = []
        conn.set_progress_handler(lambda: steps.append(1), 100)
        rows = iter_checkpoints(conn, shard, EVERYTHING)
        assert next(rows).checkpoint_id == "000000"
        early = len(steps)
        assert sum(1 for _ in rows) == 4_999
        assert early * 20 < len(steps)
