"""An undo that is killed, raced or cut off left the live tables as before it or as after it."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langgraph.checkpoint.postgres import PostgresSaver

from include import checkpoint_migration as engine
from include.checkpoint_migration.errors import TargetNotReady
from include.checkpoint_migration.run import lease
from include.checkpoint_migration.undoing import find_run_to_undo, undo_run
from tests.support.engine import Migration
from tests.support.faults import (
    BATCH_SIZE,
    LoseAnswer,
    Proxy,
    die_at_exchange,
    go_on,
    killed,
    wait_for_a_lock,
)
from tests.support.postgres import Database
from tests.support.stores import postgres_store, sqlite_store, write_many
from tests.support.undoing import UNDOING, Dump, Undo, dump


@pytest.fixture
def migrated(database: Database, source: Path, tmp_path: Path) -> Migration:
    """A run that ended well, of checkpoints and a store, with rows of the application beside it."""
    with PostgresSaver.from_conn_string(database.dsn) as saver:
        saver.setup()
        go_on(saver, "somebody-else")
    with postgres_store(database.dsn) as store:
        store.setup()
        store.put(("somebody-else",), "a", {"n": -1})
    with sqlite_store(source) as store:
        write_many(store, 6)
    migration = Migration(
        database.dsn, source, tmp_path / "exports", {"batch_size": BATCH_SIZE}, run_id="moved"
    )
    assert migration.all()["verdict"] == "identical"
    return migration


def killed_at_exchange(undo: Undo, number: int, sent: bool) -> None:
    """Undo, dying at the `number`-th exchange of its transaction."""
    run, found = at_target(undo)
    die_at_exchange(number, sent)
    undo_run(run.connect, run.settings, found)


def at_target(undo: Undo) -> tuple[engine.Run, str]:
    found = find_run_to_undo(undo.connect, undo.run.settings, undo.asked)
    settings = replace(undo.run.settings, source=found.source, target_schema=found.live_schema)
    return replace(undo.run, settings=settings), found.run_key


def states(database: Database, before: Dump) -> tuple[bool, bool]:
    """Whether live is as before the undo, and whether nothing of the run is there; one is true."""
    now = dump(database.dsn)
    left = {row[0].split(",")[0] for name in now if "_migrations" not in name for row in now[name]}
    return now == before, left == {"(somebody-else"}


@pytest.mark.parametrize("sent", [False, True], ids=["before", "sent"])
def test_undo_killed_at_any_statement_is_all_or_nothing(
    database: Database, migrated: Migration, sent: bool
) -> None:
    """Killed before any statement, or with it on its way, undo left live as before or as after."""
    before, undo = dump(database.dsn), Undo.of(migrated)
    run, _ = at_target(undo)
    lease.acquire(run.connect, run.settings)
    seen, number = [], 1
    while killed(killed_at_exchange, undo, number, sent):
        seen.append(states(database, before))
        number += 1
    assert seen.count((True, False)) >= 20
    assert set(seen) <= {(True, False), (False, True)}
    assert seen == sorted(seen, reverse=True), "live went back"
    report = undo.all()
    assert (
        report["outcome"] == "nothing"
    )  # the last of the tries above did it, or one that was killed
    assert states(database, before) == (False, True)
    again = replace_run(migrated, "again").all()
    assert again["verdict"] == "identical"
    assert dump(database.dsn) == before


def replace_run(migration: Migration, run_id: str) -> Migration:
    return replace(migration, run_id=run_id)


def test_an_undo_whose_commit_was_not_answered_is_not_done_twice(
    database: Database, migrated: Migration, proxy: Proxy
) -> None:
    """The receipt that was committed with the rows speaks for a try that never heard of it."""
    before, undo = dump(database.dsn), Undo.of(migrated)
    proxy.rule = LoseAnswer(after=UNDOING)
    with pytest.raises(engine.TargetUnreachable) as caught:
        replace(undo, dsn=proxy.dsn).all()
    assert caught.value.transient
    assert states(database, before) == (False, True)
    report = undo.all()
    assert report["outcome"] == "nothing"
    assert report["undone"]["already"]
    assert report["rows"]["checkpoints"]["removed"] > 0


def test_what_the_application_writes_meanwhile_is_never_lost(
    database: Database, migrated: Migration
) -> None:
    """A turn that is taken while undo waits keeps its thread whole: nobody slips in between."""
    undo, failed = Undo.of(migrated), []

    def work() -> None:
        try:
            undo.all()
        except engine.MigrationError as error:
            failed.append(error)

    undoing = threading.Thread(target=work)
    with psycopg.connect(database.dsn) as conn:
        saver: Any = PostgresSaver(conn)  # type: ignore[arg-type]
        go_on(saver, "anna")
        undoing.start()
        wait_for_a_lock(database)
        conn.commit()
    undoing.join(60)
    assert not failed
    [left] = undo.report["threads_left"]["listed"]
    assert left["thread_id"] == "anna"
    threads = {row[0].split(",")[0] for row in dump(database.dsn)["checkpoints"]}
    assert threads == {"(anna", "(somebody-else"}


def test_an_undo_that_was_taken_over_cannot_commit(database: Database, migrated: Migration) -> None:
    """A migration that began since has the target: the zombie's undo is refused."""
    before, undo = dump(database.dsn), Undo.of(migrated)
    run, key = at_target(undo)
    lease.acquire(run.connect, run.settings)
    database.execute("UPDATE checkpoint_migration.leases SET until = '-infinity'")
    replace_run(migrated, "newer").check()
    with pytest.raises(engine.MigrationError, match="newer run took over"):
        undo_run(run.connect, run.settings, key)
    assert dump(database.dsn) == before


@pytest.mark.parametrize("name", ["checkpoints", "checkpoint_blobs", "store"])
def test_a_trigger_that_keeps_rows_undoes_nothing_and_the_next_undo_does(
    migrated: Migration, database: Database, name: str
) -> None:
    """Half a thread is never taken out; a team's trigger that swallows deletes is named as what it is."""
    before = dump(database.dsn)
    database.execute(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;"
        f"CREATE TRIGGER keep BEFORE DELETE ON {name} FOR EACH ROW EXECUTE FUNCTION keep()"
    )
    with pytest.raises(TargetNotReady, match=f"rows of {name} did not go"):
        Undo.of(migrated).all()
    assert dump(database.dsn) == before
    database.execute(f"DROP TRIGGER keep ON {name}")
    assert Undo.of(migrated, "undo-2").all()["outcome"] == "undone"
    gone = dump(database.dsn)
    assert {row for (row,) in gone["checkpoints"]} < {row for (row,) in before["checkpoints"]}
    assert len(gone["store"]) == 1


def test_a_trigger_that_keeps_what_was_to_come_back_undoes_nothing(
    database: Database, source: Path, tmp_path: Path
) -> None:
    """The originals of replaced rows come back, all of them, or nothing is undone."""
    first = Migration(database.dsn, source, tmp_path / "exports", {"batch_size": 5}, run_id="first")
    first.all()
    database.execute("""UPDATE checkpoints SET metadata = metadata || '{"x": 1}'""")
    params = {"batch_size": 5, "on_conflict": "replace"}
    again = replace(first, params=params, run_id="again")
    assert again.all()["verdict"] == "identical"
    before = dump(database.dsn)
    database.execute(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;"
        "CREATE TRIGGER keep BEFORE UPDATE ON checkpoints FOR EACH ROW EXECUTE FUNCTION keep()"
    )
    with pytest.raises(TargetNotReady, match="rows of checkpoints did not go or change"):
        Undo.of(again).all()
    assert dump(database.dsn) == before
