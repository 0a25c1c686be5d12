"""Whole runs over sources of which some are refused by name, before anything is frozen or made live."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from langgraph.store.sqlite import SqliteStore

from include.checkpoint_migration.errors import SourceHasNoTables
from tests.support.engine import Migration
from tests.support.postgres import Database
from tests.support.sqlite_sources import FIXTURES, add_write, listing, saved


def test_a_thread_of_two_languages_is_refused_before_a_freeze(
    database: Database, tmp_path: Path
) -> None:
    """check_schema names it; no copy is made and no table of the target touched."""
    source = saved(tmp_path / "a.sqlite", "both")
    with closing(sqlite3.connect(source, isolation_level=None)) as conn:
        conn.execute("ATTACH ? AS js", (str(FIXTURES / "js-checkpoint-sqlite-1.0.4.sqlite"),))
        conn.execute("UPDATE checkpoints SET thread_id = 'simple'")
        conn.execute("INSERT INTO checkpoints SELECT * FROM js.checkpoints")
    migration = Migration(database.dsn, source, tmp_path / "exports")
    with pytest.raises(SourceHasNoTables, match=r"both LangGraph\.js and LangGraph for Python"):
        migration.all()
    report = migration.report
    assert (report["verdict"], report["error"]["type"]) == ("unproven", "SourceHasNoTables")
    assert not (migration.folder / "source.sqlite").exists()
    assert database.rows("SELECT 1 FROM pg_tables WHERE tablename = 'checkpoints'") == []


def warnings_of(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The warnings by kind, of which there is one each."""
    kinds = [warning["kind"] for warning in report["warnings"]]
    assert len(kinds) == len(set(kinds))
    return {warning["kind"]: warning for warning in report["warnings"]}


def test_what_lies_beside_is_told_and_the_run_is_identical(
    database: Database, tmp_path: Path
) -> None:
    """An application's own, sound or not, an orphan and a store: all told, each kind once."""
    source = saved(tmp_path / "a.sqlite", "one")
    with SqliteStore.from_conn_string(str(source)) as store:
        store.setup()
        store.put(("memories", "u1"), "k", {"likes": "made-up tea"})
    with closing(sqlite3.connect(source, isolation_level=None)) as conn:
        conn.create_collation("german", lambda a, b: (a > b) - (a < b))
        conn.create_function("slug", 1, str, deterministic=True)
        conn.executescript(
            """
            CREATE TABLE app (x, y AS (json_extract(x, '$.a')) STORED);
            INSERT INTO app (x) VALUES ('{"a": 1}'), ('{"a": 2}');
            CREATE INDEX of_app ON app (x COLLATE german);
            CREATE INDEX of_slugs ON app (slug(x));
            CREATE VIRTUAL TABLE search USING fts5(title);
            INSERT INTO search VALUES ('made up');
            CREATE VIEW latest AS SELECT thread_id, max(checkpoint_id) AS c FROM checkpoints GROUP BY 1;
            CREATE TRIGGER gone AFTER DELETE ON app BEGIN DELETE FROM search; END;
            ALTER TABLE checkpoints ADD COLUMN origin AS (json_extract(metadata, '$.source')) VIRTUAL;
            CREATE INDEX by_origin ON checkpoints (json_extract(metadata, '$.source'));
            CREATE TABLE strict_one (x);
            INSERT INTO strict_one VALUES (NULL);
            PRAGMA writable_schema=1;
            UPDATE sqlite_master SET sql = 'CREATE TABLE strict_one (x NOT NULL)'
             WHERE name = 'strict_one';
            """
        )
        add_write(conn, "one", id="deleted")
        add_write(conn, "deleted")
    before = listing(tmp_path)
    report = Migration(database.dsn, source, tmp_path / "exports").all()
    assert report["verdict"] == "identical", report["error"]
    shutil.rmtree(tmp_path / "exports")
    assert listing(tmp_path) == before
    told = warnings_of(report)
    others = told["other_tables"]
    assert others["count"] == 5
    for part in (
        "'app' (2 rows)",
        "'search' (fts5, 1 row, kept in 'search_config', 'search_content', 'search_data'",
        "'strict_one' (1 row)",
        "view 'latest'",
        "trigger 'gone'",
    ):
        assert part in others["message"]
    assert "store" not in others["message"]
    assert "store_tables" not in told
    assert report["counts"]["store"]["live"] == 1
    assert told["orphan_writes"]["count"] == 2
    assert told["orphan_writes"]["threads"] == ["deleted", "one"]
    assert told["threads_without_checkpoints"]["threads"] == ["deleted"]
    assert "origin" in told["other_column"]["message"]
    if "source_check" in told:  # an application's collation keeps SQLite from a check of the whole
        assert "strict_one" in told["source_check"]["message"]


def test_a_source_whose_name_is_not_utf8_migrates(database: Database, tmp_path: Path) -> None:
    """From a path of Latin-1 bytes to a report, a journal and a ledger that hold text."""
    folder = tmp_path / "app"
    folder.mkdir()
    path = os.fsdecode(os.fsencode(folder) + b"/caf\xe9.sqlite")
    saved(folder / "a.sqlite", "one").rename(path)
    before = listing(folder)
    report = Migration(database.dsn, path, tmp_path / "exports").all()
    assert report["verdict"] == "identical"
    uri = f"file://{folder}/caf%E9.sqlite"
    assert report["source"]["uri"] == uri
    assert database.rows("SELECT source FROM checkpoint_migration.runs") == [(uri,)]
    assert listing(folder) == before
    again = Migration(database.dsn, uri, tmp_path / "exports").all()
    assert again["verdict"] == "identical"
