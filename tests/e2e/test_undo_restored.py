"""Undo after a real `pg_dump` and `pg_restore`: every row bears another transaction's id then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from langgraph.checkpoint.postgres import PostgresSaver

from include.checkpoint_migration.errors import NotUndoable
from tests.support.dumps import dump_to, restored
from tests.support.engine import Migration
from tests.support.faults import go_on, write_source
from tests.support.postgres import Database, TestServer
from tests.support.undoing import Undo, dump

TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")
RESTORED = "restored from a copy, or rewritten, since"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "app").mkdir()
    return write_source(tmp_path / "app" / "app.sqlite", "anna", "bert", "carl")


@pytest.fixture
def migrated(database: Database, run: Callable[..., Migration]) -> Migration:
    """A migration beside a thread of the application's own, which has gone on with `anna` since."""
    with PostgresSaver.from_conn_string(database.dsn) as saver:
        saver.setup()
        go_on(saver, "somebody-else", 2)
        first = run("first")
        assert first.all()["verdict"] == "identical"
        go_on(saver, "anna")
    return first


@pytest.fixture
def other(postgres_server: TestServer) -> Iterator[Database]:
    """Another, empty database."""
    with postgres_server.database() as empty:
        yield empty


def undo_on(database: Database, migration: Migration) -> Undo:
    return replace(Undo.of(migration), dsn=database.dsn)


@pytest.mark.parametrize("options", [(), ("--single-transaction",)], ids=["by table", "at once"])
def test_a_database_restored_from_a_dump_is_refused_and_stays(
    database: Database, other: Database, migrated: Migration, tmp_path: Path, options: tuple[str]
) -> None:
    """Ledger and all in another database: nobody can tell the run's rows, so not one of them goes."""
    restored(dump_to(tmp_path / "whole.dump", database.dsn), other.dsn, *options)
    before = dump(other.dsn)
    assert before == dump(database.dsn)
    with pytest.raises(NotUndoable, match=RESTORED):
        undo_on(other, migrated).all()
    assert dump(other.dsn) == before
    assert Undo.of(migrated, "undo-2").all()["outcome"] == "partly"  # where it was not restored


def test_tables_that_were_restored_in_place_are_refused_and_stay(
    database: Database, migrated: Migration, tmp_path: Path
) -> None:
    """The saver's tables alone from a dump, as after an accident; the application goes on."""
    only = [f"--table={name}" for name in TABLES]
    file = dump_to(tmp_path / "tables.dump", database.dsn, *only)
    before = dump(database.dsn)
    restored(file, database.dsn, "--clean")
    assert dump(database.dsn) == before
    with PostgresSaver.from_conn_string(database.dsn) as saver:
        go_on(saver, "bert")
    went_on = dump(database.dsn)
    with pytest.raises(NotUndoable, match=RESTORED):
        Undo.of(migrated).all()
    assert dump(database.dsn) == went_on


def test_a_restore_that_happens_to_bear_the_runs_id_gives_nothing_of_others_away(
    database: Database, other: Database, migrated: Migration, tmp_path: Path
) -> None:
    """On another server the restoring transaction may have the noted number: rows that the application
    added to a thread keep it whole, and threads of others are none of the run's.
    """
    file = dump_to(tmp_path / "whole.dump", database.dsn)
    restored(file, other.dsn, "--single-transaction")
    other.execute(
        "UPDATE checkpoint_migration.undoable SET xid = (SELECT DISTINCT xmin::text::bigint"
        " FROM checkpoints) + (txid_current() >> 32 << 32)"
    )
    before = dump(other.dsn)
    report = undo_on(other, migrated).all()
    assert [left["thread_id"] for left in report["threads_left"]["listed"]] == ["anna"]
    kept = ("(anna,", "(somebody-else,")
    now = dump(other.dsn)
    for name in TABLES:
        assert now[name] == [row for row in before[name] if row[0].startswith(kept)]
