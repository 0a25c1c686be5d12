"""A refusal says what it is about, by the code of SQLite's error and by what lies beside the file."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest

from include.checkpoint_migration.errors import (
    MigrationError,
    SettingsInvalid,
    SourceBusy,
    SourceHasNoTables,
    SourceUnreadable,
    StorageFull,
    StorageRefused,
)
from include.checkpoint_migration.findings import Counts
from include.checkpoint_migration.settings import Settings, ThreadFilter, parse_settings
from include.checkpoint_migration.source import (
    drift,
    freeze,
    freezing,
    inspect_source,
    open_frozen,
)
from include.checkpoint_migration.source.failures import source_error
from tests.support.application import Application
from tests.support.sqlite_sources import (
    FIXTURES,
    OWNER,
    add_checkpoint,
    empty,
    listing,
    open_folder,
    saved,
)

LATIN = b"caf\xe9.sqlite"


# --- by its code --------------------------------------------------------------------------------


def failure(code: int, text: str = "") -> MigrationError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    error.sqlite_errorname = next(
        n for n in dir(sqlite3) if n.startswith("SQLITE_") and getattr(sqlite3, n) == code
    )
    return source_error(error, "/srv/app.sqlite")


@pytest.mark.parametrize(
    ("code", "text", "kind", "what"),
    [
        (sqlite3.SQLITE_CORRUPT, "", SourceUnreadable, "is malformed"),
        (sqlite3.SQLITE_CORRUPT_INDEX, "", SourceUnreadable, "is malformed"),
        (
            sqlite3.SQLITE_CORRUPT,
            "malformed database schema (app) - unsafe use of f()",
            SourceUnreadable,
            "describes 'app' in a way",
        ),
        (sqlite3.SQLITE_ERROR, "no such collation sequence: de", SourceUnreadable, "sequence 'de'"),
        (sqlite3.SQLITE_ERROR_MISSING_COLLSEQ, "", SourceUnreadable, "needs something"),
        (sqlite3.SQLITE_ERROR, "no such module: vec0", SourceUnreadable, "module 'vec0'"),
        (sqlite3.SQLITE_ERROR, "unknown function: f()", SourceUnreadable, "function 'f()'"),
        (sqlite3.SQLITE_IOERR_READ, "", SourceUnreadable, "SQLITE_IOERR_READ"),
        (sqlite3.SQLITE_IOERR_CORRUPTFS, "", SourceUnreadable, "damaged file system"),
        (sqlite3.SQLITE_IOERR_NOMEM, "", SourceUnreadable, "fit into memory"),
        (sqlite3.SQLITE_NOMEM, "", SourceUnreadable, "fit into memory"),
        (sqlite3.SQLITE_TOOBIG, "", SourceUnreadable, "fit into memory"),
        (sqlite3.SQLITE_FULL, "", StorageFull, "temporary room"),
        (sqlite3.SQLITE_SCHEMA, "", SourceBusy, "tables were altered"),
        (sqlite3.SQLITE_BUSY_RECOVERY, "", SourceBusy, "locked"),
        (sqlite3.SQLITE_CANTOPEN, "", SourceUnreadable, "cannot be opened"),
        (sqlite3.SQLITE_CANTOPEN_ISDIR, "", SourceUnreadable, "is a folder"),
        (sqlite3.SQLITE_CANTOPEN_NOTEMPDIR, "", StorageRefused, "temporary files"),
        (sqlite3.SQLITE_IOERR_GETTEMPPATH, "", StorageRefused, "temporary files"),
        (sqlite3.SQLITE_READONLY_CANTINIT, "", SourceUnreadable, "SQLITE_READONLY_CANTINIT"),
        (sqlite3.SQLITE_READONLY_ROLLBACK, "", SourceUnreadable, "hot rollback journal"),
        (sqlite3.SQLITE_NOTADB, "", SourceUnreadable, "is not an SQLite database"),
        (sqlite3.SQLITE_MISUSE, "", SourceUnreadable, "SQLITE_"),
    ],
)
def test_each_code_of_sqlite_has_its_error(
    code: int, text: str, kind: type[MigrationError], what: str
) -> None:
    """Each says its own; only pages that do not fit together send anybody to a backup."""
    error = failure(code, text)
    assert type(error) is kind
    assert what in error.what
    assert all((error.what, error.safe, error.next))
    assert ("malformed" in error.what) == (code & 0xFF == sqlite3.SQLITE_CORRUPT and not text)
    assert ("backup" in error.next) == (
        "malformed" in error.what or code == sqlite3.SQLITE_IOERR_CORRUPTFS
    )


# --- by what lies beside ------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["inspect", "freeze"])
def test_a_wal_that_was_not_copied_along_is_asked_for(tmp_path: Path, step: str) -> None:
    """A file in WAL mode without tables and without a -wal is half of a copy, and is told so."""
    with open_folder(OWNER) as folder, Application(folder / "app.sqlite", "wal") as app:
        app.insert(3)
        shutil.copy(folder / "app.sqlite", tmp_path / "copy.sqlite")
    (tmp_path / "run").mkdir()
    steps = {
        "inspect": inspect_source,
        "freeze": partial(freeze, destination=tmp_path / "run" / "source.sqlite"),
    }
    with pytest.raises(SourceHasNoTables, match="its -wal, where the rows then are, was not") as e:
        steps[step](str(tmp_path / "copy.sqlite"))
    assert "copy the database together with its -wal" in e.value.next
    assert list((tmp_path / "run").iterdir()) == []


def test_a_wal_that_may_be_missing_is_hinted_at(tmp_path: Path) -> None:
    """Where some other table is there, the missing -wal is one of two explanations."""
    path = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA journal_mode=WAL")
        conn.execute("CREATE TABLE app (x)")
    with pytest.raises(SourceHasNoTables, match="has no table 'checkpoints'") as caught:
        inspect_source(str(path))
    assert "has no -wal beside it" in caught.value.next
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA journal_mode=DELETE")
    with pytest.raises(SourceHasNoTables) as caught:
        inspect_source(str(path))
    assert "-wal" not in caught.value.next


def test_a_wal_of_another_copy_is_hinted_at(tmp_path: Path) -> None:
    """A -wal that makes nonsense of the file, or brings nothing to it, is under suspicion."""
    with open_folder(OWNER) as folder:
        with Application(folder / "app.sqlite", "wal") as app:
            app.insert(3)
            shutil.copy(folder / "app.sqlite", tmp_path / "early.sqlite")
            app.insert(200)
            app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            app.execute("UPDATE checkpoints SET checkpoint = zeroblob(9000)")
            app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            app.execute("DELETE FROM checkpoints")
            app.insert(150)
        late = (folder / "app.sqlite-wal").read_bytes()
    other = saved(tmp_path / "other.sqlite", "one", "two", "three")
    (tmp_path / "other.sqlite-wal").write_bytes(late)
    with pytest.raises(SourceUnreadable, match="is malformed") as caught:
        inspect_source(str(other))
    assert "A -wal lies beside it, which may be another copy's" in caught.value.what
    (tmp_path / "early.sqlite-wal").write_bytes(b"\0" * 4096)
    with pytest.raises(SourceHasNoTables, match="may be another copy's") as empty_one:
        inspect_source(str(tmp_path / "early.sqlite"))
    assert "together with its -wal" in empty_one.value.next


# --- names --------------------------------------------------------------------------------------


def asked(source: str) -> Settings:
    return parse_settings({"source": source}, dag_id="d", run_id="r", default_export_uri="/exports")


def test_a_name_that_is_not_utf8_is_read(tmp_path: Path) -> None:
    """Latin-1 bytes in a path or URI lead to the file; what is printed and kept is text."""
    folder = os.fsencode(tmp_path)
    saved(tmp_path / "a.sqlite", "one").rename(os.fsdecode(folder + b"/" + LATIN))
    (tmp_path / "run").mkdir()
    as_path = asked(os.fsdecode(folder + b"/" + LATIN)).source
    as_uri = asked(f"file://{quote(folder)}/caf%E9.sqlite").source
    assert as_path == as_uri == f"file://{quote(folder)}/caf%E9.sqlite"
    assert asked(as_uri).source == as_uri
    before = listing(tmp_path)
    info = inspect_source(as_uri)
    assert (info.uri, info.threads) == (as_uri, 1)
    frozen = tmp_path / "run" / "source.sqlite"
    assert freeze(as_uri, frozen).counts == info.counts
    with closing(open_frozen(frozen)) as conn:
        found, counts = drift(as_uri, conn)
    assert (found.any, counts) == (False, info.counts)
    assert listing(tmp_path) == before


def test_a_refusal_of_such_a_name_can_be_printed(tmp_path: Path) -> None:
    """Every part of an error about it is text that UTF-8 holds."""
    path = os.fsdecode(os.fsencode(tmp_path) + b"/" + LATIN)
    with pytest.raises(SourceUnreadable, match="does not exist") as caught:
        inspect_source(asked(path).source)
    Path(path).write_bytes(b"SQLite format 3\0" + bytes(5000))
    with pytest.raises(MigrationError) as broken:
        inspect_source(path)  # the engine's own face takes it too
    for error in (caught.value, broken.value):
        f"{error}{error.facts}".encode()
        assert "caf\\xe9.sqlite" in error.what or "caf\\\\xe9.sqlite" in error.what


def test_a_frozen_source_in_such_a_folder_is_read(tmp_path: Path) -> None:
    """A run's folder whose name is no UTF-8 is found again from the connection."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9"))
    folder.mkdir()
    freeze(str(saved(tmp_path / "a.sqlite", "one")), folder / "source.sqlite")
    with closing(open_frozen(folder / "source.sqlite")) as conn:
        assert freezing.folder_of(conn) == folder


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("/a\ud800b", "lone surrogate"),
        ("file:///a%00b", "NUL"),
        ("/a\0b", "NUL"),
        ("file://[/a", "no URI"),
        ("file:a.sqlite", "must be absolute"),
    ],
)
def test_what_no_file_can_be_called_is_refused(source: str, why: str) -> None:
    """A name that no system call takes is a setting that makes no sense."""
    with pytest.raises(SettingsInvalid, match=why):
        asked(source)


def test_a_table_in_capitals_gets_a_hint(tmp_path: Path) -> None:
    """`Checkpoints`, which SQLite takes for `checkpoints`, is told how to become it."""
    path = tmp_path / "a.sqlite"
    with closing(empty(path)) as conn:
        add_checkpoint(conn, "t")
        conn.execute("ALTER TABLE checkpoints RENAME TO kept")
        conn.execute("ALTER TABLE kept RENAME TO Checkpoints")
    with pytest.raises(SourceHasNoTables, match="'checkpoints', though a table 'Checkpoints'") as e:
        inspect_source(str(path))
    assert "RENAME TO checkpoints" in e.value.next
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:  # what the hint says
        conn.execute("ALTER TABLE Checkpoints RENAME TO renamed")
        conn.execute("ALTER TABLE renamed RENAME TO checkpoints")
    assert inspect_source(str(path)).threads == 1


def test_a_virtual_table_of_that_name_is_none(tmp_path: Path) -> None:
    """A virtual table, which code of a module would answer for, is never asked."""
    path = tmp_path / "a.sqlite"
    with closing(empty(path)) as conn:
        conn.execute("DROP TABLE checkpoints")
        conn.execute("CREATE VIRTUAL TABLE checkpoints USING fts5(thread_id, checkpoint_id)")
    with pytest.raises(SourceHasNoTables, match="no table 'checkpoints', but a virtual table"):
        inspect_source(str(path))


# --- layouts that this release does not migrate -------------------------------------------------

JUNE = """
CREATE TABLE checkpoints (thread_id TEXT NOT NULL, thread_ts TEXT NOT NULL, parent_ts TEXT,
    checkpoint BLOB, metadata BLOB, PRIMARY KEY (thread_id, thread_ts))
"""
JULY = """
CREATE TABLE writes (thread_id TEXT NOT NULL, thread_ts TEXT NOT NULL, task_id TEXT NOT NULL,
    idx INTEGER NOT NULL, channel TEXT NOT NULL, value BLOB,
    PRIMARY KEY (thread_id, thread_ts, task_id, idx))
"""


@pytest.mark.parametrize("then_opened", [False, True])
@pytest.mark.parametrize("tables", [[JUNE], [JUNE, JULY]])
def test_each_generation_of_thread_ts_is_named(
    tmp_path: Path, tables: list[str], then_opened: bool
) -> None:
    """Without `writes`, with it, and opened by a later saver, which adds today's `writes`."""
    path = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        for sql in tables:
            conn.execute(sql)
    if then_opened and JULY not in tables:
        empty(path).close()
    info = inspect_source(str(path))
    writes = "writes" if JULY in tables else "no writes"
    assert info.format == f"langgraph up to 0.1, thread_ts (no rows; {writes}; empty)"
    assert (info.counts, info.other_columns, info.other_tables) == (Counts(0, 0), (), ())


def test_a_column_thread_ts_of_the_applications_own_is_a_column(tmp_path: Path) -> None:
    """Beside checkpoint ids it is no layout, but a column that stays behind."""
    with closing(empty(tmp_path / "a.sqlite")) as conn:
        conn.execute("ALTER TABLE checkpoints ADD COLUMN thread_ts TEXT")
    assert inspect_source(str(tmp_path / "a.sqlite")).other_columns == ("checkpoints.thread_ts",)


JS = FIXTURES / "js-checkpoint-sqlite-1.0.4.sqlite"


def test_langgraph_js_has_a_name_of_its_own() -> None:
    """A file of it is named for the language, whichever threads are taken."""
    assert inspect_source(str(JS)).format == "langgraph.js (json)"
    assert inspect_source(str(JS), ThreadFilter(("s*",))).format == "langgraph.js (json)"


def test_a_file_of_two_languages_is_named_for_both(tmp_path: Path) -> None:
    """Threads of both lie beside each other; a filter that takes one language's alone is that one's."""
    path = both_languages(tmp_path / "a.sqlite")
    assert inspect_source(str(path)).format == (
        "langgraph.js (json) beside threads of LangGraph for Python"
    )
    of_python = inspect_source(str(path), ThreadFilter(("python-*",)))
    assert "langgraph.js" not in of_python.format
    of_javascript = inspect_source(str(path), ThreadFilter(("!python-*",)))
    assert of_javascript.format == "langgraph.js (json)"


def test_a_thread_that_both_languages_wrote_is_refused_by_name(tmp_path: Path) -> None:
    """Neither language's saver reads all of it; without such threads the file is a source."""
    path = both_languages(tmp_path / "a.sqlite")
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("UPDATE checkpoints SET thread_id = 'python-2' WHERE thread_id = 'simple'")
    with pytest.raises(
        SourceHasNoTables, match=r"both LangGraph\.js and LangGraph for P"
    ) as caught:
        inspect_source(str(path))
    assert caught.value.facts["threads"] == ["python-2"]
    assert "`threads`" in caught.value.next
    assert inspect_source(str(path), ThreadFilter(("!python-2",))).counts.checkpoints == 40


def both_languages(path: Path) -> Path:
    """Two threads of Python's saver, and all of the file that LangGraph.js wrote."""
    saved(path, "python-1", "python-2")
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("ATTACH ? AS js", (str(JS),))
        conn.execute("INSERT INTO checkpoints SELECT * FROM js.checkpoints")
    return path


@pytest.mark.parametrize(
    "blob",
    [
        b'{"v": 1, "ts": "2026-11-21T18:51:07.263846Z", "id": "1"}',
        b'{"v":1,"ts":"2024-08-01T00:00:00.000000+00:00","id":"1"}',
        b'{"v":4,"id":""}',
    ],
)
def test_json_by_hand_is_not_taken_for_javascripts(tmp_path: Path, blob: bytes) -> None:
    """Spaces, or a moment that does not end in Z, are not JavaScript's."""
    with closing(empty(tmp_path / "a.sqlite")) as conn:
        conn.execute(
            "INSERT INTO checkpoints VALUES ('t', '', '1', NULL, 'json', ?, '{}')", (blob,)
        )
    assert "langgraph.js" not in inspect_source(str(tmp_path / "a.sqlite")).format


@pytest.mark.parametrize(
    "blob",
    [
        b'{"v":4,"id":"1f1e5de6","ts":"2026-11-21T19:04:42.661Z","channel_values":{}}',
        b'{"v":1,"ts":"2024-08-01T00:00:00.000Z","channel_values":{}}',
    ],
)
@pytest.mark.parametrize("bind", [bytes, bytes.decode], ids=["BLOB", "TEXT"])
def test_both_orders_of_javascript_are_known(
    tmp_path: Path, blob: bytes, bind: Callable[[bytes], bytes | str]
) -> None:
    """Newer releases put the id first, older ones the moment; drivers bind text or bytes."""
    with closing(empty(tmp_path / "a.sqlite")) as conn:
        row = "INSERT INTO checkpoints VALUES ('t', '', '1', NULL, 'json', ?, '{}')"
        conn.execute(row, (bind(blob),))
    assert inspect_source(str(tmp_path / "a.sqlite")).format == "langgraph.js (json)"


# --- scratch ------------------------------------------------------------------------------------


def test_a_copy_that_reading_takes_lies_where_it_is_told_to(tmp_path: Path) -> None:
    """A -wal without its -shm is read from a copy in the folder given, and that is empty after."""
    with open_folder(OWNER) as folder, Application(folder / "app.sqlite", "wal") as app:
        app.insert(3)
        for name in ("app.sqlite", "app.sqlite-wal"):
            shutil.copy(folder / name, tmp_path / name)
    run = tmp_path / "run"
    run.mkdir()
    (run / ".scratch-left").mkdir()  # of a try that was killed
    assert inspect_source(str(tmp_path / "app.sqlite"), scratch=run).counts.checkpoints == 3
    assert list(run.iterdir()) == []
    with pytest.raises(StorageRefused, match="ENOENT"):
        inspect_source(str(tmp_path / "app.sqlite"), scratch=tmp_path / "missing")
