"""What else lies in the file is told, and decides nothing about the checkpoints."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from langgraph.store.sqlite import SqliteStore

from include.checkpoint_migration.errors import SourceUnreadable
from include.checkpoint_migration.model import Beside, OtherTable, SourceInfo
from include.checkpoint_migration.settings import ThreadFilter
from include.checkpoint_migration.source import (
    drift,
    freeze,
    inspect_source,
    open_frozen,
    thread_counts,
)
from tests.support.sqlite_sources import add_checkpoint, add_write, empty, listing, saved

Change = Callable[[sqlite3.Connection], object]


def order(a: str, b: str) -> int:
    return (a > b) - (a < b)


def generated_column(conn: sqlite3.Connection) -> None:
    conn.execute("CREATE TABLE app (x, y AS (json_extract(x, '$.a')) STORED)")
    conn.execute("INSERT INTO app (x) VALUES ('{\"a\": 1}')")


def index_over_json(conn: sqlite3.Connection) -> None:
    conn.execute("CREATE TABLE app (x)")
    conn.execute("CREATE INDEX of_app ON app (json_extract(x, '$.a'))")


def index_with_a_collation(conn: sqlite3.Connection) -> None:
    conn.create_collation("german", order)
    conn.execute("CREATE TABLE app (x)")
    conn.execute("CREATE INDEX of_app ON app (x COLLATE german)")
    conn.execute("INSERT INTO app VALUES ('a'), ('b')")


def index_over_a_function(conn: sqlite3.Connection) -> None:
    conn.create_function("slug", 1, str, deterministic=True)
    conn.execute("CREATE TABLE app (x)")
    conn.execute("CREATE INDEX of_app ON app (slug(x))")
    conn.execute("INSERT INTO app VALUES ('a')")


def check_with_a_function(conn: sqlite3.Connection) -> None:
    conn.create_function("slug", 1, str, deterministic=True)
    conn.execute("CREATE TABLE app (x CHECK (slug(x) = x))")
    conn.execute("INSERT INTO app VALUES ('a')")


def violated_not_null(conn: sqlite3.Connection) -> None:
    conn.execute("CREATE TABLE app (x)")
    conn.execute("INSERT INTO app VALUES (NULL)")
    conn.execute("PRAGMA writable_schema=1")
    conn.execute("UPDATE sqlite_master SET sql = 'CREATE TABLE app (x NOT NULL)' WHERE name='app'")


def module_that_is_not_here(conn: sqlite3.Connection) -> None:
    conn.execute("CREATE TABLE memory_rowids (rowid INTEGER PRIMARY KEY, id)")
    conn.execute("INSERT INTO memory_rowids (id) VALUES ('a'), ('b')")
    conn.execute("CREATE TABLE memory_vector_chunks00 (rowid INTEGER PRIMARY KEY, vectors BLOB)")
    conn.execute("PRAGMA writable_schema=1")
    conn.execute(
        "INSERT INTO sqlite_master VALUES ('table', 'memory', 'memory', 0,"
        " 'CREATE VIRTUAL TABLE memory USING vec0(x float[3])')"
    )


def generated_column_of_ours(conn: sqlite3.Connection) -> None:
    conn.execute(
        "ALTER TABLE checkpoints ADD COLUMN origin AS (json_extract(metadata, '$.source')) VIRTUAL"
    )


def index_of_ours_over_json(conn: sqlite3.Connection) -> None:
    conn.execute("CREATE INDEX ours ON checkpoints (json_extract(metadata, '$.source'))")


def index_of_ours_with_a_collation(conn: sqlite3.Connection) -> None:
    conn.create_collation("german", order)
    conn.execute("CREATE INDEX ours ON checkpoints (thread_id, type COLLATE german)")
    conn.execute("CREATE INDEX small ON writes (type COLLATE german)")


def index_of_ours_over_a_function(conn: sqlite3.Connection) -> None:
    conn.create_function("slug", 1, str, deterministic=True)
    conn.execute("CREATE INDEX ours ON checkpoints (slug(type))")


def check_of_ours_with_a_function(conn: sqlite3.Connection) -> None:
    conn.create_function("slug", 1, str, deterministic=True)
    conn.execute("PRAGMA writable_schema=1")
    conn.execute(
        "UPDATE sqlite_master SET sql = replace(sql, 'type TEXT', 'type TEXT CHECK (slug(type) = 1)')"
        " WHERE name = 'checkpoints'"
    )


def violated_not_null_of_ours(conn: sqlite3.Connection) -> None:
    conn.execute("PRAGMA writable_schema=1")
    conn.execute(
        "UPDATE sqlite_master SET sql = replace(sql, 'parent_checkpoint_id TEXT',"
        " 'parent_checkpoint_id TEXT NOT NULL') WHERE name = 'checkpoints'"
    )


@pytest.mark.parametrize(
    "change",
    [
        generated_column,
        index_over_json,
        index_with_a_collation,
        index_over_a_function,
        check_with_a_function,
        violated_not_null,
        module_that_is_not_here,
        generated_column_of_ours,
        index_of_ours_over_json,
        index_of_ours_with_a_collation,
        index_of_ours_over_a_function,
        check_of_ours_with_a_function,
        violated_not_null_of_ours,
    ],
)
def test_an_applications_own_does_not_decide(tmp_path: Path, change: Change) -> None:
    """With what an application keeps in the file, sound or not, the two tables are read whole."""
    path = tmp_path / "app" / "app.sqlite"
    path.parent.mkdir()
    saved(path, "one", "two")
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("PRAGMA journal_mode=DELETE")
        change(conn)
    before = listing(path.parent)
    info = inspect_source(str(path))
    assert (info.counts.checkpoints, info.threads) == (6, 2)
    (tmp_path / "run").mkdir()
    frozen = freeze(str(path), tmp_path / "run" / "source.sqlite")
    assert frozen.counts == info.counts
    with closing(open_frozen(tmp_path / "run" / "source.sqlite")) as conn:
        assert len(list(thread_counts(conn, ThreadFilter()))) == 2
        changed, counts = drift(str(path), conn)
        assert (changed.any, counts) == (False, info.counts)
    assert listing(path.parent) == before


def looked_at(path: Path, thread_filter: ThreadFilter | None = None) -> Beside:
    """What freezing tells of what lies beside."""
    folder = path.parent / "run"
    folder.mkdir()
    info: SourceInfo = freeze(str(path), folder / "source.sqlite", thread_filter or ThreadFilter())
    assert info.beside is not None
    return info.beside


def test_a_leaked_page_and_a_null_are_told_of(tmp_path: Path) -> None:
    """What SQLite's own check says of the file and of other tables is told, not refused."""
    path = tmp_path / "a.sqlite"
    with closing(empty(path)) as conn:
        add_checkpoint(conn, "t")
        violated_not_null(conn)
    with path.open("r+b") as file:
        file.seek(28)
        (pages,) = struct.unpack(">I", file.read(4))
        file.seek(28)
        file.write(struct.pack(">I", pages + 1))
        file.seek(0, 2)
        file.write(bytes(4096))
    assert inspect_source(str(path)).counts.checkpoints == 1
    leaked, null = looked_at(path).faults
    assert "never used" in leaked
    assert null == "'NULL value in app.x'"


def test_a_broken_table_beside_is_told_of(tmp_path: Path) -> None:
    """Pages of another table that are no pages any more keep nobody from the checkpoints."""
    path = tmp_path / "a.sqlite"
    with closing(empty(path)) as conn:
        add_checkpoint(conn, "t")
        conn.execute("CREATE TABLE app (x)")
        conn.execute("INSERT INTO app VALUES ('a')")
        (page,) = conn.execute("SELECT rootpage FROM sqlite_master WHERE name = 'app'").fetchone()
    with path.open("r+b") as file:
        file.seek(4096 * (page - 1))
        file.write(b"\xff" * 512)
    beside = looked_at(path)
    assert beside.tables == (OtherTable("app", None),)
    assert beside.faults


def test_a_broken_page_of_ours_is_malformed(tmp_path: Path) -> None:
    """A page of an index on the two tables that is none any more is a refusal, and names the table."""
    path = tmp_path / "a.sqlite"
    with closing(empty(path)) as conn:
        add_write(conn, "t")
        conn.execute("CREATE INDEX ours ON writes (channel)")
        (page,) = conn.execute("SELECT rootpage FROM sqlite_master WHERE name = 'ours'").fetchone()
    with path.open("r+b") as file:
        file.seek(4096 * (page - 1))
        file.write(b"\xff" * 512)
    with pytest.raises(SourceUnreadable, match=r"is malformed: .* of the table 'writes'"):
        inspect_source(str(path))


def test_a_key_that_is_null_is_refused_by_its_name(tmp_path: Path) -> None:
    """A NULL in a key, where rows would be overlooked, is named; nobody is sent to a backup."""
    path = tmp_path / "a.sqlite"
    with closing(empty(path)) as conn:
        add_checkpoint(conn, "t")
        conn.execute("PRAGMA writable_schema=1")
        declared = "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE name = 'checkpoints'"
        conn.execute(declared, ("thread_id TEXT NOT NULL", "thread_id TEXT"))
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("INSERT INTO checkpoints (checkpoint_id) VALUES ('lost')")
        conn.execute("PRAGMA writable_schema=1")
        conn.execute(declared, ("thread_id TEXT", "thread_id TEXT NOT NULL"))
    with pytest.raises(SourceUnreadable, match="'checkpoints' whose thread_id is NULL") as caught:
        inspect_source(str(path))
    assert "backup" not in caught.value.next


def test_a_schema_that_this_sqlite_cannot_read_is_told_from_a_broken_file(tmp_path: Path) -> None:
    """An entry that does not parse here is named, with what to do; nobody is sent to a backup."""
    path = tmp_path / "a.sqlite"
    with closing(empty(path)) as conn:
        conn.execute("CREATE TABLE app (x)")
        conn.execute("PRAGMA writable_schema=1")
        conn.execute(
            "UPDATE sqlite_master SET sql = 'CREATE TABLE app (x) SOON' WHERE name = 'app'"
        )
    with pytest.raises(SourceUnreadable, match="describes 'app' in a way that SQLite") as caught:
        inspect_source(str(path))
    assert "malformed" not in caught.value.what
    assert "backup" not in caught.value.next


def test_tables_are_told_with_their_rows_and_owners(tmp_path: Path) -> None:
    """Each other table with its rows; those that a virtual table keeps its rows in go with it."""
    path = tmp_path / "a.sqlite"
    with closing(empty(path)) as conn:
        conn.execute("CREATE TABLE notes (x)")
        conn.execute("INSERT INTO notes VALUES (1), (2), (3)")
        conn.execute("CREATE TABLE search_log (x)")
        conn.execute("CREATE VIRTUAL TABLE search USING fts5(title)")
        conn.execute("INSERT INTO search VALUES ('made'), ('up')")
        conn.execute("CREATE VIEW latest AS SELECT * FROM checkpoints")
        conn.execute("CREATE TRIGGER gone DELETE ON notes BEGIN DELETE FROM search; END")
        module_that_is_not_here(conn)
    beside = looked_at(path)
    kept = ("search_config", "search_content", "search_data", "search_docsize", "search_idx")
    assert beside.tables == (
        OtherTable("memory", 2, "vec0", ("memory_rowids", "memory_vector_chunks00")),
        OtherTable("notes", 3),
        OtherTable("search", 2, "fts5", kept),
        OtherTable("search_log", 0),
    )
    assert beside.objects == ("trigger 'gone'", "view 'latest'")
    assert (beside.store, beside.faults) == ((), ())


def test_a_store_is_told_apart_by_its_columns(tmp_path: Path) -> None:
    """A SqliteStore's tables are long-term memory; a shop's table of that name is a table."""
    path = saved(tmp_path / "a.sqlite", "one")
    with SqliteStore.from_conn_string(str(path)) as store:
        store.setup()
        store.put(("memories", "u1"), "k", {"likes": "made-up tea"})
    beside = looked_at(path)
    assert beside.tables == ()
    assert beside.store[0] == OtherTable("store", 1)
    assert {t.name for t in beside.store} == {"store", "store_migrations"}
    (tmp_path / "shop").mkdir()
    shop = saved(tmp_path / "shop" / "b.sqlite", "one")
    with closing(sqlite3.connect(shop, isolation_level=None)) as conn:
        conn.execute("CREATE TABLE store (street)")
    assert looked_at(shop).store == ()


def test_orphans_are_counted_and_named(tmp_path: Path) -> None:
    """Writes without their checkpoint, and threads without any, of the threads taken."""
    path = tmp_path / "a.sqlite"
    with closing(empty(path)) as conn:
        add_checkpoint(conn, "a", id="1")
        add_write(conn, "a", id="1")
        add_write(conn, "a", id="gone")
        add_write(conn, "deleted", id="1", idx=0)
        add_write(conn, "deleted", id="1", idx=1)
        add_write(conn, b"a", id="1")  # a BLOB is no TEXT: its checkpoint is not there
    beside = looked_at(path)
    assert (beside.orphan_writes, beside.orphan_threads) == (4, ("a", "deleted"))
    assert (beside.lone_threads, beside.lone_examples) == (2, ("a", "deleted"))
    (tmp_path / "run" / "source.sqlite").unlink()
    info = freeze(str(path), tmp_path / "run" / "source.sqlite", ThreadFilter(("dele*",)))
    assert info.beside is not None
    assert (info.beside.orphan_writes, info.beside.lone_threads) == (2, 1)


def test_names_that_are_no_text_are_told(tmp_path: Path) -> None:
    """Odd names of tables are told escaped, and what cannot be counted is not."""
    path = tmp_path / "a.sqlite"
    with closing(empty(path)) as conn:
        conn.execute('CREATE TABLE "a "" b" (x)')
        conn.execute("CREATE TABLE latin (x)")
        conn.execute("PRAGMA writable_schema=1")
        rename = "UPDATE sqlite_master SET name = t, tbl_name = t, sql = CAST(? AS TEXT)"
        rename += " FROM (SELECT CAST(x'6ce9' AS TEXT) AS t) WHERE name = 'latin'"
        conn.execute(rename, (b'CREATE TABLE "l\xe9" (x)',))
    tables = looked_at(path).tables
    assert tables == (OtherTable('a " b', 0), OtherTable("l\\xe9", None))


def test_a_schema_that_python_cannot_tell_of_is_refused_by_name(tmp_path: Path) -> None:
    """What SQLite says of a name that is no UTF-8 never comes out as an error of decoding."""
    path = tmp_path / "a.sqlite"
    with closing(empty(path)) as conn:
        conn.execute("CREATE TABLE latin (x)")
        conn.execute("PRAGMA writable_schema=1")
        conn.execute("UPDATE sqlite_master SET name = CAST(x'6ce9' AS TEXT) WHERE name = 'latin'")
    with pytest.raises(SourceUnreadable, match="describes a name that is no UTF-8"):
        inspect_source(str(path))
