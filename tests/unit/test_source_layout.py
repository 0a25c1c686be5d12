"""What a look at a database says of its layout, and what it refuses by name."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from include.checkpoint_migration.errors import MigrationError, SourceHasNoTables, SourceUnreadable
from include.checkpoint_migration.findings import Counts
from include.checkpoint_migration.settings import ThreadFilter
from include.checkpoint_migration.source import freeze, inspect_source
from tests.support.sqlite_sources import FIXTURES, add_checkpoint, add_write, empty, saved


@pytest.mark.parametrize(
    ("name", "format", "counts", "threads"),
    [
        ("checkpoint-sqlite-3.1.2", "langgraph-checkpoint-sqlite ({})", Counts(143, 314), 34),
        ("checkpoint-sqlite-2.0.6", "langgraph-checkpoint-sqlite ({}) without task_path", None, 0),
        ("checkpoint-sqlite-1.0.4", "langgraph-checkpoint-sqlite ({}) without task_path", None, 0),
    ],
)
def test_eras_are_told_apart(name: str, format: str, counts: Counts | None, threads: int) -> None:
    """Each release's database is named for its layout, and its rows are counted."""
    path = FIXTURES / f"{name}.sqlite"
    info = inspect_source(str(path))
    assert info.format in {
        format.format(t) for t in ("msgpack", "json, msgpack", "msgpack, pickle")
    }
    assert info.has_task_path == ("3.1.2" in name)
    assert counts in (None, info.counts)
    assert threads in (0, info.threads)
    assert (info.uri, info.bytes) == (str(path), path.stat().st_size)
    assert info.max_row_bytes > 500


def test_other_tables_are_named() -> None:
    """What else lives in the file is listed, since it stays behind; SQLite's own tables are not."""
    info = inspect_source(str(FIXTURES / "checkpoint-sqlite-3.1.2.sqlite"))
    assert info.other_tables == ("store", "store_migrations")


def test_other_columns_are_named(tmp_path: Path) -> None:
    """Columns that the saver never made are listed, generated ones too."""
    with closing(empty(tmp_path / "a.sqlite")) as conn:
        conn.execute("ALTER TABLE checkpoints ADD COLUMN tenant TEXT")
        conn.execute("ALTER TABLE writes ADD COLUMN size AS (length(value))")
        conn.execute("ANALYZE")
    info = inspect_source(str(tmp_path / "a.sqlite"))
    assert info.other_columns == ("checkpoints.tenant", "writes.size")
    assert info.other_tables == ()


def test_saver_and_graph_of_today_are_read(tmp_path: Path) -> None:
    """A database that SqliteSaver and a real graph left is today's format."""
    path = saved(tmp_path / "a.sqlite", "one", "two")
    info = inspect_source(str(path))
    assert info.format == "langgraph-checkpoint-sqlite (msgpack)"
    assert info.threads == 2
    assert info.counts.checkpoints == 6
    assert info.counts.writes > 0


def test_async_saver_makes_the_same(tmp_path: Path) -> None:
    """AsyncSqliteSaver's database is no other format."""
    path = tmp_path / "a.sqlite"

    async def setup() -> None:
        async with AsyncSqliteSaver.from_conn_string(str(path)) as saver:
            await saver.setup()

    asyncio.run(setup())
    with closing(sqlite3.connect(path)) as conn, conn:
        add_checkpoint(conn, "thread")
    info = inspect_source(str(path))
    assert (info.format, info.has_task_path) == ("langgraph-checkpoint-sqlite (msgpack)", True)
    assert info.counts == Counts(1, 0)


@pytest.mark.parametrize(
    ("type", "blob", "format"),
    [
        ("json", b'{"v": 1, "ts": ""}', "langgraph-checkpoint-sqlite (json)"),
        ("json", b'{"v":4,"id":"","ts":"2026-11-21T19:04:42.661Z",', "langgraph.js (json)"),
        ("json", b'{"v":4,"id":""}', "langgraph-checkpoint-sqlite (json)"),
        ("msgpack+aes", b"\1\2", "langgraph-checkpoint-sqlite (msgpack+aes)"),
        ("rot13", b"", "langgraph-checkpoint-sqlite (other)"),
        (None, None, "langgraph-checkpoint-sqlite (other)"),
    ],
)
def test_types_of_rows_name_the_format(
    tmp_path: Path, type: str | None, blob: bytes | None, format: str
) -> None:
    """The types of a few rows tell json, AES and LangGraph.js apart."""
    with closing(empty(tmp_path / "a.sqlite")) as conn:
        conn.execute(
            "INSERT INTO checkpoints VALUES ('t', '', '1', NULL, ?, ?, NULL)", (type, blob)
        )
    assert inspect_source(str(tmp_path / "a.sqlite")).format == format


def test_both_tables_and_no_rows_are_a_source(tmp_path: Path) -> None:
    """An empty pair of tables is a database with nothing to migrate, and no error."""
    empty(tmp_path / "a.sqlite").close()
    info = inspect_source(str(tmp_path / "a.sqlite"))
    assert (info.counts, info.threads, info.max_row_bytes) == (Counts(0, 0), 0, 0)
    assert info.format == "langgraph-checkpoint-sqlite (empty)"


def test_filter_narrows_counts_and_threads() -> None:
    """Counts and threads are those of the threads taken."""
    taken = ThreadFilter(("s*", "!sends*"))
    info = inspect_source(str(FIXTURES / "checkpoint-sqlite-3.1.2.sqlite"), taken)
    assert (info.counts, info.threads) == (Counts(22, 47), 4)


def test_orphan_writes_count_as_threads(tmp_path: Path) -> None:
    """A thread that has pending writes only is a thread."""
    with closing(empty(tmp_path / "a.sqlite")) as conn:
        add_checkpoint(conn, "a")
        add_write(conn, "orphan")
    info = inspect_source(str(tmp_path / "a.sqlite"))
    assert (info.counts, info.threads) == (Counts(1, 1), 2)


def folder(path: Path) -> None:
    path.mkdir()


def zeros(path: Path) -> None:
    path.write_bytes(bytes(8192))


def prose(path: Path) -> None:
    path.write_text("These are people's conversations. " * 300)


def header_only(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + bytes(84))


def fifo(path: Path) -> None:
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.symlink_to(path)


def cut(path: Path) -> None:
    shutil.copy(FIXTURES / "checkpoint-sqlite-3.1.2.sqlite", path)
    os.truncate(path, 100_000)


def scribbled(path: Path) -> None:
    shutil.copy(FIXTURES / "checkpoint-sqlite-3.1.2.sqlite", path)
    with path.open("r+b") as file:
        for page in range(3, 40):
            file.seek(4096 * page)
            file.write(b"\xff" * 64)


def utf16(path: Path) -> None:
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA encoding='UTF-16le'")
        conn.execute("CREATE TABLE store (key TEXT)")
    empty(path).close()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "does not exist"),
        (folder, "is a folder"),
        (fifo, "is not a file"),
        (loop, "cannot be read: ELOOP"),
        (zeros, "is not an SQLite database"),
        (prose, "is not an SQLite database"),
        (header_only, "is not an SQLite database"),
        (cut, "is malformed"),
        (scribbled, "is malformed"),
        (utf16, "UTF-16le"),
    ],
)
def test_what_cannot_be_read_is_refused(
    tmp_path: Path, make: Callable[[Path], None], why: str
) -> None:
    """No database, or a broken one, is refused for good, before anything is frozen."""
    path = tmp_path / "source.sqlite"
    make(path)
    (tmp_path / "run").mkdir()
    for attempt in (
        lambda: inspect_source(str(path)),
        lambda: freeze(str(path), tmp_path / "run" / "source.sqlite"),
    ):
        with pytest.raises(SourceUnreadable) as caught:
            attempt()
        assert why in caught.value.what
        assert "source.sqlite" in caught.value.what
        assert not caught.value.transient
    assert list((tmp_path / "run").iterdir()) == []


def test_index_that_hides_rows_is_malformed(tmp_path: Path) -> None:
    """A key's index that lacks a row, which an older SQLite's quick check overlooks, is found."""
    path = tmp_path / "a.sqlite"
    with closing(empty(path)) as conn:
        add_checkpoint(conn, "t", id="1")
        conn.execute("PRAGMA writable_schema=1")
        of_table = "FROM sqlite_master WHERE tbl_name = 'checkpoints'"
        kept = conn.execute(f"SELECT * {of_table}").fetchall()
        conn.execute(f"DELETE {of_table} AND type = 'index'")
        conn.execute(
            "UPDATE sqlite_master SET sql = substr(sql, 1, instr(sql, 'metadata BLOB') + 12) || ')'"
            " WHERE name = 'checkpoints'"
        )
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        add_checkpoint(conn, "t", id="2")
        conn.execute("PRAGMA writable_schema=1")
        conn.execute(f"DELETE {of_table}")
        conn.executemany("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", kept)
    with closing(sqlite3.connect(path)) as conn:
        if sqlite3.sqlite_version_info < (3, 41):
            assert conn.execute("PRAGMA quick_check").fetchall() == [("ok",)]
        assert conn.execute("SELECT count(*) FROM checkpoints NOT INDEXED").fetchone() == (2,)
    with pytest.raises(SourceUnreadable, match="malformed") as caught:
        inspect_source(str(path))
    assert "REINDEX checkpoints" in caught.value.next


def one_table(conn: sqlite3.Connection) -> None:
    conn.execute("DROP TABLE writes")


def a_view(conn: sqlite3.Connection) -> None:
    conn.execute("ALTER TABLE writes RENAME TO hidden")
    conn.execute("CREATE VIEW writes AS SELECT * FROM hidden")


def lacks_a_column(conn: sqlite3.Connection) -> None:
    conn.execute("ALTER TABLE checkpoints RENAME COLUMN metadata TO meta")


def copied_without_keys(conn: sqlite3.Connection) -> None:
    conn.execute("CREATE TABLE copy AS SELECT * FROM checkpoints")
    conn.execute("DROP TABLE checkpoints")
    conn.execute("ALTER TABLE copy RENAME TO checkpoints")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (one_table, "no table 'writes'"),
        (a_view, "no table 'writes'"),
        (lacks_a_column, "lacks metadata"),
        (copied_without_keys, "not declared TEXT NOT NULL"),
    ],
)
def test_other_layouts_are_not_langgraphs(
    tmp_path: Path, change: Callable[[sqlite3.Connection], None], why: str
) -> None:
    """A SQLite database with other tables, or with ones that only look alike, is refused."""
    path = tmp_path / "a.sqlite"
    with closing(empty(path)) as conn:
        change(conn)
    with pytest.raises(SourceHasNoTables, match=why):
        inspect_source(str(path))


def test_database_without_any_table_is_refused(tmp_path: Path) -> None:
    """A SQLite database of somebody else's is not a source."""
    with closing(sqlite3.connect(tmp_path / "a.sqlite")) as conn:
        conn.execute("CREATE TABLE store (key TEXT)")
    with pytest.raises(SourceHasNoTables, match="no table 'checkpoints'"):
        inspect_source(str(tmp_path / "a.sqlite"))


def test_file_of_0_bytes_has_no_tables(tmp_path: Path) -> None:
    """An empty file, which SQLite takes for an empty database, is refused as one without tables."""
    path = tmp_path / "a.sqlite"
    path.touch()
    with pytest.raises(SourceHasNoTables, match="0 bytes"):
        inspect_source(str(path))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.sqlite"]


def test_layout_of_before_the_history_is_refused_by_name(tmp_path: Path) -> None:
    """One pickled row a thread, as langgraph wrote it before it had `thread_ts`, is no history."""
    path = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("CREATE TABLE checkpoints (thread_id TEXT PRIMARY KEY, checkpoint BLOB)")
    with pytest.raises(SourceHasNoTables, match=r"before 0\.0\.30 \(one pickled row") as caught:
        inspect_source(str(path))
    assert "keep the file" in caught.value.next


def test_no_message_shows_a_value(tmp_path: Path) -> None:
    """Errors of the source name the file and nothing that it holds."""
    path = tmp_path / "a.sqlite"
    with closing(empty(path)) as conn:
        add_checkpoint(conn, "secret-thread", blob=b"secret-value" * 500)
    os.truncate(path, path.stat().st_size - 4096)
    with pytest.raises(MigrationError) as caught:
        inspect_source(str(path))
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(caught.value.__cause__)
