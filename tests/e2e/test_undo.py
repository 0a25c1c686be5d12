"""Undo: what one run made live goes out again, and nothing else; what was left is listed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.postgres import PostgresSaver

from include import checkpoint_migration as engine
from include.checkpoint_migration.errors import AnotherRunIsAlive, NotUndoable, RunUndone
from include.checkpoint_migration.run import lease
from tests.support.engine import Migration
from tests.support.faults import CANARY, go_on, grow, write_source
from tests.support.postgres import Database
from tests.support.undoing import Undo, dump

Run = Callable[..., Migration]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "app").mkdir()
    return write_source(tmp_path / "app" / "app.sqlite", "anna", "bert", "carl")


def undo(migration: Migration, run_id: str = "undo-1") -> dict[str, Any]:
    return Undo.of(migration, run_id).all()


def set_up(database: Database) -> None:
    with database.connect() as conn:
        PostgresSaver(conn).setup()  # type: ignore[arg-type]


def application(database: Database, thread: str, turns: int = 1) -> None:
    """The application goes on in PostgreSQL."""
    with PostgresSaver.from_conn_string(database.dsn) as saver:
        go_on(saver, thread, turns)


def test_undone_the_live_tables_are_as_a_dump_from_before(database: Database, run: Run) -> None:
    """With rows of others in the tables, what a run inserted goes out, and not a row of theirs."""
    set_up(database)
    application(database, "somebody-else", 2)
    before = dump(database.dsn)
    first = run("first")
    assert first.all()["verdict"] == "identical"
    assert dump(database.dsn) != before
    report = undo(first)
    assert dump(database.dsn) == before
    assert report["outcome"] == "undone"
    live = first.report["counts"]
    assert {name: rows["removed"] for name, rows in report["rows"].items()} == {
        "checkpoints": live["checkpoints"]["live"],
        "checkpoint_writes": live["writes"]["live"],
        "checkpoint_blobs": live["blobs"]["live"],
    }
    assert all(rows["left"] == rows["gone"] == 0 for rows in report["rows"].values())


def test_a_second_undo_does_nothing_and_says_so(database: Database, run: Run) -> None:
    """The same undo tried again, and another one of the same run, find the receipt."""
    first = run("first")
    first.all()
    done = undo(first)
    before = dump(database.dsn)
    for run_id in ("undo-1", "undo-2"):
        again = undo(first, run_id)
        assert again["outcome"] == "nothing"
        assert again["undone"]["already"] is True
        assert "undone already" in again["sentence"]
        assert again["rows"] == done["rows"]
    assert dump(database.dsn) == before


def test_after_an_undo_the_migration_works_again(database: Database, run: Run) -> None:
    """What was undone is not taken for what the application removed: the rows come back, all equal."""
    first = run("first")
    first.all()
    after = dump(database.dsn)
    undo(first)
    second = run("second").all()
    assert second["verdict"] == "identical"
    assert second["counts"]["checkpoints"]["live"] == len(after["checkpoints"])
    assert dump(database.dsn) == after


def test_a_run_that_was_undone_may_begin_anew(database: Database, run: Run) -> None:
    """Its tasks are refused one by one; from check_schema on it is a run like any, and undone again."""
    first = run("first")
    first.all()
    after = dump(database.dsn)
    undo(first)
    before = dump(database.dsn)
    with pytest.raises(RunUndone):
        first.promote()
    with pytest.raises(RunUndone):
        first.witness()
    assert first.all()["verdict"] == "identical"
    assert dump(database.dsn) == after
    assert undo(first, "undo-2")["outcome"] == "undone"
    assert dump(database.dsn) == before


def test_threads_that_the_application_went_on_with_are_left_whole_and_listed(
    database: Database, run: Run
) -> None:
    """A new checkpoint in a thread keeps all of it; the others go; the application reads it on."""
    first = run("first")
    first.all()
    mine = [row for row in dump(database.dsn)["checkpoints"] if row[0].startswith("(anna")]
    application(database, "anna")
    went_on = {
        name: [row for row in rows if row[0].startswith("(anna")]
        for name, rows in dump(database.dsn).items()
        if name != "checkpoint_migrations"
    }
    report = undo(first)
    now = dump(database.dsn)
    assert {name: now[name] for name in went_on} == went_on
    assert report["outcome"] == "partly"
    [left] = report["threads_left"]["listed"]
    assert left["thread_id"] == "anna"
    assert "since" in left["why"]
    assert left["rows"]["checkpoints"] == len(mine)
    assert report["threads_left"]["total"] == 1
    with PostgresSaver.from_conn_string(database.dsn) as saver:
        config = {"configurable": {"thread_id": "anna"}}
        assert len(list(saver.list(config))) == len(went_on["checkpoints"])


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE checkpoints SET metadata = metadata || '{\"seen\": true}' WHERE thread_id = 'bert'",
        "UPDATE checkpoint_blobs SET blob = 'x' WHERE thread_id = 'bert'",
        """INSERT INTO checkpoint_writes (thread_id, checkpoint_id, task_id, idx, channel, blob)
        SELECT thread_id, checkpoint_id, 'late', 0, 'c', 'x' FROM checkpoints
         WHERE thread_id = 'bert' LIMIT 1""",
    ],
    ids=["row_changed", "blob_changed", "write_added"],
)
def test_a_thread_of_which_anything_was_changed_is_left_whole(
    database: Database, run: Run, change: str
) -> None:
    """Half a history is none: with one row changed or added, the thread stays as it is."""
    first = run("first")
    first.all()
    database.execute(change)
    before = dump(database.dsn)
    report = undo(first)
    assert [t["thread_id"] for t in report["threads_left"]["listed"]] == ["bert"]
    now = dump(database.dsn)
    for name in ("checkpoints", "checkpoint_blobs", "checkpoint_writes"):
        assert now[name] == [row for row in before[name] if row[0].startswith("(bert")]


def test_what_the_application_removed_is_counted_and_not_brought_back(
    database: Database, run: Run
) -> None:
    """Undo after a thread was deleted takes out the rest; the thread stays deleted afterwards too."""
    first = run("first")
    first.all()
    with PostgresSaver.from_conn_string(database.dsn) as saver:
        saver.delete_thread("carl")
    report = undo(first)
    assert report["outcome"] == "undone"
    assert report["rows"]["checkpoints"]["gone"] > 0
    assert dump(database.dsn)["checkpoints"] == []
    again = run("second").all()
    assert again["verdict"] == "identical"
    assert {row[0].split(",")[0] for row in dump(database.dsn)["checkpoints"]} == {"(anna", "(bert"}


def test_replaced_rows_have_their_originals_back(
    database: Database, run: Run, source: Path
) -> None:
    """What gave way under on_conflict: replace comes back byte for byte, NULLs included."""
    run("first").all()
    database.execute(
        "UPDATE checkpoints SET metadata = jsonb_set(metadata, '{n}', '1.50'), type = 'odd'"
        " WHERE thread_id = 'bert'"
    )
    database.execute("UPDATE checkpoint_writes SET blob = '\\x00ff', type = NULL")
    grow(source, "anna")
    before = dump(database.dsn)
    second = run("second", on_conflict="replace")
    assert second.all()["verdict"] == "identical"
    report = undo(second)
    assert dump(database.dsn) == before
    assert sum(rows["restored"] for rows in report["rows"].values()) > 5
    assert report["outcome"] == "undone"


def test_blobs_go_that_only_a_replaced_checkpoint_named(database: Database, run: Run) -> None:
    """Other contents were live, so the run's blobs had versions of their own: the originals that come back
    do not name these.
    """
    run("first").all()
    database.execute(
        "UPDATE checkpoint_blobs SET blob = '\\xa178' WHERE thread_id = 'bert' AND type <> 'empty'"
    )
    before = dump(database.dsn)
    second = run("second", on_conflict="replace")
    assert second.all()["verdict"] == "identical"
    assert len(dump(database.dsn)["checkpoint_blobs"]) > len(before["checkpoint_blobs"])
    report = undo(second)
    assert dump(database.dsn) == before
    assert (report["outcome"], report["blobs_left"]["total"]) == ("undone", 0)


def test_only_the_rows_of_the_run_that_is_named_go(
    database: Database, run: Run, source: Path
) -> None:
    """What a later run brought stays, and so does a thread that it went on with."""
    first = run("first")
    first.all()
    grow(source, "anna")
    grow(source, "dora")
    run("second").all()
    whole = dump(database.dsn)["checkpoints"]
    report = undo(first)
    assert [t["thread_id"] for t in report["threads_left"]["listed"]] == ["anna"]
    stay = [row for row in whole if row[0].startswith(("(anna,", "(dora,"))]
    assert dump(database.dsn)["checkpoints"] == stay


def test_a_catch_up_is_undone_to_the_state_before_it(
    database: Database, run: Run, source: Path
) -> None:
    """The second run's rows go, those that it found identical stay; the first is undone after it."""
    set_up(database)
    empty = dump(database.dsn)
    first = run("first")
    first.all()
    before = dump(database.dsn)
    grow(source, "anna")
    second = run("second")
    second.all()
    assert undo(second, "undo-second")["outcome"] == "undone"
    assert dump(database.dsn) == before
    assert undo(first, "undo-first")["outcome"] == "undone"
    assert dump(database.dsn) == empty


def test_a_blob_that_a_checkpoint_outside_the_run_refers_to_is_left_and_listed(
    database: Database, run: Run
) -> None:
    """A checkpoint that was there before needs a blob that the run brought: it keeps it."""
    run("first").all()
    [(channel, version)] = database.rows(
        "DELETE FROM checkpoint_blobs WHERE ctid IN (SELECT b.ctid FROM checkpoint_blobs b"
        " JOIN checkpoints c USING (thread_id, checkpoint_ns)"
        " WHERE thread_id = 'bert' AND c.checkpoint -> 'channel_versions' ->> channel = version"
        " AND b.type <> 'empty' LIMIT 1) RETURNING channel, version"
    )
    second = run("second")
    assert second.all()["verdict"] == "identical"
    report = undo(second)
    assert report["blobs_left"]["listed"] == [
        {"thread_id": "bert", "checkpoint_ns": "", "channel": channel}
    ]
    assert report["outcome"] == "partly"
    assert database.rows(
        "SELECT count(*) FROM checkpoint_blobs WHERE thread_id = 'bert' AND channel = %s"
        " AND version = %s",
        channel,
        version,
    ) == [(1,)]


def test_a_run_that_the_ledger_does_not_know_is_refused_with_what_is_known(
    database: Database, run: Run, tmp_path: Path
) -> None:
    """Whoever mistypes a run id is told which runs there are; a target without a ledger says so."""
    nobody = Undo(database.dsn, tmp_path / "exports", "no such run")
    with pytest.raises(engine.SettingsInvalid, match="no such run"):
        nobody.all()
    assert nobody.report["outcome"] == "failed"
    first = run("first")
    first.all()
    before = dump(database.dsn)
    with pytest.raises(engine.SettingsInvalid) as caught:
        nobody.all()
    assert "'first'" in caught.value.next
    assert caught.value.facts["known"] == ["first"]
    assert dump(database.dsn) == before


def test_a_rehearsal_has_nothing_to_undo(
    database: Database, run_on: Callable[..., Migration], source: Path
) -> None:
    """A rehearsal's rows never were live: refused by name."""
    rehearsal = run_on(source, run_id="tried", dag_id="rehearse_checkpoints", rehearsal=True)
    rehearsal.all()
    with pytest.raises(engine.SettingsInvalid, match="rehearsal"):
        undo(rehearsal)
    assert database.rows("SELECT count(*) FROM checkpoint_migration.threads_before") == [(0,)]


def test_a_run_that_made_nothing_live_is_undone_by_doing_nothing(
    database: Database, run: Run
) -> None:
    """A run that died before promote is taken over, and has no rows to take out."""
    first = run("first")
    first.to_staging()
    database.execute("UPDATE checkpoint_migration.leases SET until = '-infinity'")
    before = dump(database.dsn)
    report = undo(first)
    assert report["outcome"] == "nothing"
    assert "made no row live" in report["sentence"]
    assert dump(database.dsn) == before


def test_a_run_that_is_at_work_is_not_undone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo and a run that is alive exclude each other, as two runs do."""
    monkeypatch.setattr(lease, "BEAT", 0.2)
    first = run("first")
    first.to_staging()
    first.promote()
    with (
        lease.alive(first.connect, first.run.settings),
        pytest.raises(AnotherRunIsAlive, match="working on the same tables"),
    ):
        undo(first)


def test_what_undo_needs_is_kept_for_as_long_as_the_setting_says(
    database: Database, run: Run
) -> None:
    """The next run forgets what is older; the undo is then refused, and says what keeps it."""
    first = run("first")
    first.all()
    database.execute(
        "UPDATE checkpoint_migration.undoable SET promoted = now() - '31 days'::interval"
    )
    run("second").all()
    for name in ("undoable", "threads_before"):
        [(kept,)] = database.rows(
            f"SELECT count(*) FROM checkpoint_migration.{name} WHERE run_key = %s",
            first.run.settings.key,
        )
        assert kept == 0
    with pytest.raises(NotUndoable) as caught:
        undo(first)
    assert "CHECKPOINT_MIGRATION_UNDO_DAYS" in caught.value.next


def test_zero_days_keep_nothing(database: Database, run: Run) -> None:
    """Who does not want rows of the past in a ledger has none there."""
    first = run("first")
    first.undo_days = 0
    assert first.all()["verdict"] == "identical"
    for name in ("replaced", "threads_before", "undoable"):
        assert database.rows(f"SELECT count(*) FROM checkpoint_migration.{name}") == [(0,)]
    with pytest.raises(NotUndoable):
        undo(first)


def test_rows_that_a_foreign_key_would_take_along_keep_the_undo_from_anything(
    database: Database, run: Run
) -> None:
    """A team's rows that hang on the saver's are never deleted silently."""
    first = run("first")
    first.all()
    database.execute(
        "CREATE TABLE notes (thread_id text, checkpoint_ns text, checkpoint_id text,"
        " FOREIGN KEY (thread_id, checkpoint_ns, checkpoint_id) REFERENCES checkpoints"
        " ON DELETE CASCADE)"
    )
    before = dump(database.dsn)
    with pytest.raises(engine.MigrationError, match="notes"):
        undo(first)
    assert dump(database.dsn) == before


def test_nothing_of_a_value_is_told(database: Database, run: Run) -> None:
    """Log and undo.json hold names and counts; the file is private."""
    first = run("first")
    first.all()
    application(database, "anna")
    undone = Undo.of(first)
    undone.all()
    assert CANARY not in json.dumps(undone.report)
    assert CANARY not in "\n".join(undone.log)
    assert (undone.folder / "undo.json").stat().st_mode & 0o077 == 0


WRITTEN = """
SELECT count(*) FROM checkpoint_migration.undoable AS u, {} AS l
 WHERE l.xmin = (u.xid & 4294967295)::text::xid
"""
TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")


def test_every_row_bears_the_id_of_the_transaction_that_the_ledger_noted(
    database: Database, run: Run
) -> None:
    """Inserted outside of any savepoint: what the ledger noted once finds all of them."""
    set_up(database)
    application(database, "somebody-else")
    first = run("first")
    first.all()
    live = first.report["counts"]
    found = [database.rows(WRITTEN.format(name))[0][0] for name in TABLES]
    assert found == [live[kind]["live"] for kind in ("checkpoints", "blobs", "writes")]
    noted = "SELECT sum(written) FROM checkpoint_migration.threads_before"
    assert database.rows(noted) == [(sum(found),)]


@pytest.mark.parametrize("how", ["FREEZE", "FULL"])
def test_vacuum_takes_nothing_of_what_an_undo_needs(database: Database, run: Run, how: str) -> None:
    """Frozen or moved, a row still bears the id of the transaction that wrote it."""
    set_up(database)
    before = dump(database.dsn)
    first = run("first")
    first.all()
    with database.connect() as conn:
        conn.autocommit = True
        for name in TABLES:
            conn.execute(f"VACUUM ({how}) {name}".encode())
    assert undo(first)["outcome"] == "undone"
    assert dump(database.dsn) == before


@pytest.mark.parametrize("age", [2**31 + 1, -1_000_000], ids=["too_old", "of_another_server"])
def test_an_id_that_may_be_another_transactions_is_refused(
    database: Database, run: Run, age: int
) -> None:
    """When ids came round, or the server is one that never gave it, nothing is guessed."""
    first = run("first")
    first.all()
    before = dump(database.dsn)
    database.execute(f"UPDATE checkpoint_migration.undoable SET xid = txid_current() - ({age})")
    with pytest.raises(NotUndoable, match=r"transactions began since|restored from a copy"):
        undo(first)
    assert dump(database.dsn) == before


def restore(database: Database, tables: tuple[str, ...]) -> None:
    """Rows as a restore from a dump leaves them: the same, written by another transaction."""
    with database.connect() as conn:
        for name in tables:
            conn.execute(f"CREATE TABLE copy_of_{name} AS SELECT * FROM {name}".encode())
            conn.execute(f"TRUNCATE {name}".encode())
            conn.execute(f"INSERT INTO {name} SELECT * FROM copy_of_{name}".encode())
            conn.execute(f"DROP TABLE copy_of_{name}".encode())


def test_restored_tables_are_told_as_such_and_stay(database: Database, run: Run) -> None:
    """Where not one row is the transaction's, the undo says so, and takes nothing out."""
    first = run("first")
    first.all()
    restore(database, TABLES)
    before = dump(database.dsn)
    with pytest.raises(NotUndoable, match="restored from a copy, or rewritten, since"):
        undo(first)
    assert dump(database.dsn) == before


def test_threads_whose_rows_were_all_rewritten_stay_and_are_listed(
    database: Database, run: Run
) -> None:
    """No row of them is recognised any more: they are no less listed, and the undo is partial."""
    first = run("first")
    first.all()
    for name in TABLES:
        database.execute(f"UPDATE {name} SET type = type WHERE thread_id = 'bert'")
    before = dump(database.dsn)
    report = undo(first)
    assert report["outcome"] == "partly"
    [left] = report["threads_left"]["listed"]
    assert left["thread_id"] == "bert"
    assert "changed, written or removed since" in left["why"]
    assert set(left["rows"].values()) == {0}
    assert all(rows["gone"] > 0 for rows in report["rows"].values())
    now = dump(database.dsn)
    for name in TABLES:
        assert now[name] == [row for row in before[name] if row[0].startswith("(bert,")]


def test_a_table_that_was_restored_keeps_its_threads_whole(database: Database, run: Run) -> None:
    """With one of three tables from a copy, half a history is not taken out."""
    first = run("first")
    first.all()
    restore(database, ("checkpoint_blobs",))
    before = dump(database.dsn)
    report = undo(first)
    assert report["outcome"] == "partly"
    left = tuple(f"({thread['thread_id']}," for thread in report["threads_left"]["listed"])
    assert left == ("(anna,", "(bert,", "(carl,")
    now = dump(database.dsn)
    for name in TABLES:
        assert now[name] == [row for row in before[name] if row[0].startswith(left)]
    assert now["checkpoint_blobs"] == before["checkpoint_blobs"]


def test_an_undo_of_tens_of_thousands_of_rows_takes_seconds(
    database: Database, run_on: Callable[..., Migration], sample: Path
) -> None:
    """Nothing is joined row by row, whatever the server knows of the ledger's tables."""
    migration = run_on(sample)
    assert migration.all()["verdict"] == "identical"
    began = time.monotonic()
    report = undo(migration)
    assert time.monotonic() - began < 60  # row by row it took a quarter of an hour
    assert sum(rows["removed"] for rows in report["rows"].values()) > 30_000
    assert not any(
        rows for name, rows in dump(database.dsn).items() if name != "checkpoint_migrations"
    )
