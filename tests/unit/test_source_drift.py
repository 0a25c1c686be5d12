"""Drift is counted exactly: every key added, changed or removed since the source was frozen."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.checkpoint.sqlite import SqliteSaver

from include.checkpoint_migration.errors import SourceBusy, SourceHasNoTables, SourceUnreadable
from include.checkpoint_migration.findings import Change, Counts, Drift
from include.checkpoint_migration.settings import ThreadFilter
from include.checkpoint_migration.source import (
    drift,
    freeze,
    inspect_source,
    open_frozen,
    seen_path,
)
from tests.support.application import Application
from tests.support.sqlite_sources import (
    FIXTURES,
    add_checkpoint,
    add_write,
    empty,
    listing,
    open_folder,
    run_graph,
    saved,
)

EVERYTHING = ThreadFilter()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "app.sqlite"
    shutil.copyfile(FIXTURES / "checkpoint-sqlite-3.1.2.sqlite", path)
    return path


@pytest.fixture
def frozen(tmp_path: Path, source: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    freeze(str(source), folder / "source.sqlite")
    return folder / "source.sqlite"


def drifted(
    source: Path, frozen: Path, taken: ThreadFilter = EVERYTHING, **options: Any
) -> tuple[Drift, Counts]:
    with closing(open_frozen(frozen)) as conn:
        return drift(str(source), conn, taken, **options)


def change(source: Path, *statements: str) -> None:
    with closing(sqlite3.connect(source)) as conn, conn:
        for sql in statements:
            conn.execute(sql)


def test_untouched_source_has_no_drift(source: Path, frozen: Path) -> None:
    """A source nobody wrote is the same, with the frozen copy's counts."""
    assert drifted(source, frozen) == (Drift(), Counts(143, 314))


def test_proof_by_the_files_reads_no_row(source: Path, frozen: Path) -> None:
    """Where the files are as they were seen, the source is not even opened by SQLite."""
    opened: list[Any] = []
    with closing(open_frozen(frozen)) as conn:
        conn.set_trace_callback(opened.append)
        assert drift(str(source), conn, EVERYTHING) == (Drift(), Counts(143, 314))
    assert not [sql for sql in opened if "checkpoint_ns" in sql]


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"settled": true}'])
def test_without_the_note_everything_is_compared(
    source: Path, frozen: Path, content: str | None
) -> None:
    """A note that is lost or broken costs time and changes no answer."""
    note = seen_path(frozen)
    note.unlink()
    if content is not None:
        note.write_text(content)
    change(source, "DELETE FROM writes WHERE thread_id = 'simple'")
    found, counts = drifted(source, frozen)
    assert found == Drift(writes=Change(removed=314 - counts.writes))
    assert counts.writes < 314


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (
            "INSERT INTO checkpoints VALUES ('new', '', '1', NULL, 'msgpack', x'80', x'7b7d')",
            Drift(checkpoints=Change(added=1)),
        ),
        (
            "UPDATE checkpoints SET metadata = x'7b7d' WHERE rowid = 7",
            Drift(checkpoints=Change(changed=1)),
        ),
        (
            "UPDATE checkpoints SET parent_checkpoint_id = 'other' WHERE rowid IN (3, 5)",
            Drift(checkpoints=Change(changed=2)),
        ),
        (
            "UPDATE checkpoints SET checkpoint = CAST(checkpoint AS TEXT) WHERE rowid = 9",
            Drift(checkpoints=Change(changed=1)),
        ),
        ("DELETE FROM checkpoints WHERE rowid < 11", Drift(checkpoints=Change(removed=10))),
        (
            "UPDATE checkpoints SET checkpoint_id = 'moved' WHERE rowid = 1",
            Drift(checkpoints=Change(added=1, removed=1)),
        ),
        ("UPDATE writes SET value = x'c0' WHERE rowid = 4", Drift(writes=Change(changed=1))),
        ("UPDATE writes SET task_path = 'p' WHERE rowid = 4", Drift(writes=Change(changed=1))),
        ("UPDATE writes SET idx = idx + 900", Drift(writes=Change(added=314, removed=314))),
        (
            "DELETE FROM writes",
            Drift(writes=Change(removed=314)),
        ),
        ("UPDATE store SET value = 'other'", Drift()),
        ("VACUUM", Drift()),
    ],
)
def test_each_kind_of_change_is_counted(
    source: Path, frozen: Path, sql: str, expected: Drift
) -> None:
    """Keys count as added, changed or removed by all their columns, types of values included."""
    with closing(sqlite3.connect(source, isolation_level=None)) as conn:
        conn.execute(sql)
        now = conn.execute(
            "SELECT (SELECT count(*) FROM checkpoints), (SELECT count(*) FROM writes)"
        ).fetchone()
    found, counts = drifted(source, frozen)
    assert found == expected
    assert counts == Counts(*now)
    assert found.any == (expected != Drift())


def test_content_of_equal_size_and_time_is_compared(source: Path, frozen: Path) -> None:
    """A change that keeps the file's size and puts back its mtime is found all the same."""
    found = source.stat()
    change(
        source, "UPDATE checkpoints SET checkpoint = zeroblob(length(checkpoint)) WHERE rowid = 1"
    )
    os.utime(source, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert source.stat().st_size == found.st_size
    assert drifted(source, frozen)[0] == Drift(checkpoints=Change(changed=1))


def test_threads_not_taken_do_not_drift(source: Path, frozen: Path) -> None:
    """Drift and counts concern the threads taken."""
    change(source, "DELETE FROM checkpoints WHERE thread_id = 'simple'")
    taken = ThreadFilter(("s*", "!simple"))
    found, counts = drifted(source, frozen, taken)
    assert not found.any
    assert counts == inspect_source(str(source), taken).counts
    assert drifted(source, frozen, ThreadFilter(("simple",)))[0].checkpoints == Change(removed=8)


def test_graph_that_went_on_is_drift(tmp_path: Path) -> None:
    """Steps that a real graph takes after the freeze are added keys, and no others."""
    path = saved(tmp_path / "app.sqlite", "one")
    (tmp_path / "run").mkdir()
    before = freeze(str(path), tmp_path / "run" / "source.sqlite").counts
    with SqliteSaver.from_conn_string(str(path)) as saver:
        run_graph(saver, "one")
        run_graph(saver, "two")
    found, now = drifted(path, tmp_path / "run" / "source.sqlite")
    assert found.checkpoints == Change(added=now.checkpoints - before.checkpoints)
    assert found.writes == Change(added=now.writes - before.writes)
    assert now.checkpoints == 3 * before.checkpoints


def test_column_that_an_upgrade_adds_is_no_drift(tmp_path: Path) -> None:
    """An application that upgrades its saver adds `task_path`, and not a row has changed."""
    path = tmp_path / "app.sqlite"
    shutil.copyfile(FIXTURES / "checkpoint-sqlite-2.0.6.sqlite", path)
    (tmp_path / "run").mkdir()
    info = freeze(str(path), tmp_path / "run" / "source.sqlite")
    with SqliteSaver.from_conn_string(str(path)) as saver:
        saver.setup()
    assert inspect_source(str(path)).has_task_path
    assert drifted(path, tmp_path / "run" / "source.sqlite") == (Drift(), info.counts)


def test_write_within_the_clocks_tick_is_found(tmp_path: Path) -> None:
    """A source written right before and right after the freeze is never taken for unchanged."""
    path = tmp_path / "app.sqlite"
    with Application(path, "wal") as app:
        for round_ in range(5):
            run = tmp_path / f"run{round_}"
            run.mkdir()
            app.insert()
            kept = freeze(str(path), run / "source.sqlite").counts
            app.insert()
            found, now = drifted(path, run / "source.sqlite")
            assert found.checkpoints == Change(added=1)
            assert now.checkpoints == kept.checkpoints + 1


@pytest.mark.parametrize(
    ("harm", "error"),
    [
        (lambda path: path.unlink(), SourceUnreadable),
        (lambda path: path.write_bytes(b""), SourceHasNoTables),
        (lambda path: change(path, "DROP TABLE writes"), SourceHasNoTables),
        (lambda path: os.truncate(path, 90_000), SourceUnreadable),
    ],
)
def test_source_that_is_gone_is_named(
    source: Path, frozen: Path, harm: Callable[[Path], None], error: type[Exception]
) -> None:
    """A source that was removed, emptied or broken since is an error, not drift of every row."""
    harm(source)
    with pytest.raises(error):
        drifted(source, frozen)


def test_locked_source_is_busy(tmp_path: Path) -> None:
    """A source that is locked when drift is judged is waited for, then named."""
    path = tmp_path / "app.sqlite"
    with Application(path, "delete") as app:
        app.insert(2)
        (tmp_path / "run").mkdir()
        freeze(str(path), tmp_path / "run" / "source.sqlite")
        app.insert()
        app.execute("BEGIN EXCLUSIVE")
        with pytest.raises(SourceBusy):
            drifted(path, tmp_path / "run" / "source.sqlite", timeout=0.3)
        app.execute("COMMIT")
        assert drifted(path, tmp_path / "run" / "source.sqlite")[0].checkpoints == Change(added=1)


def test_comparing_a_busy_rollback_database_leaves_no_copy(tmp_path: Path) -> None:
    """The private copy that spares writers the wait is gone afterwards, and the source untouched."""
    with open_folder() as folder, Application(folder / "app.sqlite", "delete") as app:
        app.insert(50)
        (tmp_path / "run").mkdir()
        freeze(str(folder / "app.sqlite"), tmp_path / "run" / "source.sqlite")
        app.write(500)
        time.sleep(0.3)
        found, _ = drifted(folder / "app.sqlite", tmp_path / "run" / "source.sqlite")
        report = app.stop()
        before = listing(folder)
        drifted(folder / "app.sqlite", tmp_path / "run" / "source.sqlite")
        assert listing(folder) == before
    assert found.checkpoints.added > 0
    assert report["errors"] == []
    assert len(list((tmp_path / "run").iterdir())) == 2


ids = st.sampled_from(["a", "a\0", "b", "ä", "", b"a", b"\xff"])
cells = st.dictionaries(st.tuples(ids, ids, st.integers(-2, 2)), st.integers(0, 1), max_size=8)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pair")
    for name in ("frozen.sqlite", "source.sqlite"):
        empty(folder / name).close()
    return folder / "frozen.sqlite", folder / "source.sqlite"


def fill(path: Path, rows: dict[tuple[Any, ...], int]) -> None:
    """Make `rows` the writes, and of each thread a checkpoint, of an existing database."""
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("PRAGMA synchronous=OFF")
        conn.execute("BEGIN")
        conn.execute("DELETE FROM checkpoints")
        conn.execute("DELETE FROM writes")
        for (thread, task, idx), value in rows.items():
            add_write(conn, thread, task=task, idx=idx)
            conn.execute("UPDATE writes SET value = ? WHERE rowid = last_insert_rowid()", (value,))
        for thread, value in {thread: value for (thread, _, _), value in rows.items()}.items():
            add_checkpoint(conn, thread, blob=bytes([value]))
        conn.execute("COMMIT")


@given(then=cells, now=cells)
def test_drift_is_the_difference_of_two_sets(
    pair: tuple[Path, Path], then: dict[tuple[Any, ...], int], now: dict[tuple[Any, ...], int]
) -> None:
    """For any two states, the counts are those of comparing them as dictionaries."""
    frozen, source = pair
    fill(frozen, then)
    fill(source, now)
    found, counts = drifted(source, frozen)

    def expected(old: dict[Any, Any], new: dict[Any, Any]) -> Change:
        both = old.keys() & new.keys()
        return Change(
            added=len(new.keys() - both),
            changed=sum(old[key] != new[key] for key in both),
            removed=len(old.keys() - both),
        )

    threads_then, threads_now = (
        {thread: value for (thread, _, _), value in rows.items()} for rows in (then, now)
    )
    assert found == Drift(expected(threads_then, threads_now), expected(then, now))
    assert counts == Counts(len(threads_now), len(now))
