"""Running it again: nothing twice, what is new comes in, and what was removed stays away."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.postgres import PostgresSaver

from include.checkpoint_migration.errors import VerificationFailed
from include.checkpoint_migration.findings import Counts
from tests.support.engine import Migration
from tests.support.faults import CANARY, go_on, grow, live_rows, staging_schemas, write_source
from tests.support.postgres import Database
from tests.support.sqlite_sources import FIXTURES, listing

NOTHING = Counts(0, 0, 0)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "application").mkdir()
    return write_source(tmp_path / "application" / "app.sqlite", turns=2)


def promote_all(migration: Migration) -> tuple[Any, dict[str, Any]]:
    """The whole pipeline; the promotion and the report."""
    migration.to_staging()
    promotion = migration.promote()
    migration.witness()
    return promotion, migration.conclude()


def warnings(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {warning["kind"]: warning for warning in report["warnings"]}


def latest(database: Database, thread: str) -> Any:
    with PostgresSaver.from_conn_string(database.dsn) as saver:
        return saver.get_tuple({"configurable": {"thread_id": thread}})


def test_a_second_run_finds_all_of_it_and_inserts_nothing(
    run: Callable[..., Migration], database: Database
) -> None:
    """The same source again: every row is found identical, and no byte of live changes."""
    first, report = promote_all(run("first"))
    assert report["verdict"] == "identical"
    before = live_rows(database.dsn)
    second, report = promote_all(run("second"))
    assert report["verdict"] == "identical"
    assert (second.inserted, second.identical) == (NOTHING, first.inserted)
    assert live_rows(database.dsn) == before
    assert warnings(report).keys() == {"orphan_writes", "threads_without_checkpoints"}


def test_a_second_run_with_other_shards_and_batches_finds_the_same_rows(
    run: Callable[..., Migration], database: Database
) -> None:
    """How the work is dealt out shows in nothing that is live."""
    first, _ = promote_all(run("first"))
    again = run("second", batch_size=1)
    again.max_export_tasks = 64
    again.max_load_tasks = 3
    second, report = promote_all(again)
    assert report["verdict"] == "identical"
    assert (second.inserted, second.identical) == (NOTHING, first.inserted)


@pytest.mark.parametrize(
    "name",
    ["checkpoint-sqlite-3.1.2", "checkpoint-sqlite-2.0.6", "checkpoint-sqlite-1.0.4"],
)
def test_a_second_run_over_every_kind_of_value_inserts_nothing(
    run: Callable[..., Migration], source: Path, name: str
) -> None:
    """Versions that a first run gave to contested contents are found again by the next."""
    source.write_bytes((FIXTURES / f"{name}.sqlite").read_bytes())
    params = {"threads": ["!encrypted*", "!pickle*"], "on_blocker": "sanitize"}
    first, report = promote_all(run("first", **params))
    assert report["verdict"] == "identical"
    second, report = promote_all(run("second", **params))
    assert report["verdict"] == "identical"
    assert (second.inserted, second.identical) == (NOTHING, first.inserted)


def test_a_run_that_is_done_does_nothing_when_its_tasks_are_cleared(
    run: Callable[..., Migration], database: Database
) -> None:
    """Each step finds its receipt; the witness looks at live again and says so."""
    first = run("first")
    exports = first.to_staging()
    loads = first.promote()
    first.witness()
    report = first.conclude()
    before = live_rows(database.dsn)
    again = run("first")
    again.check()
    again.freeze()
    assert again.export() == []
    again.load(exports)
    again.verify(exports)
    assert again.promote().already_done
    assert again.promote().inserted == loads.inserted
    assert again.witness().verdict == "identical"
    looked = again.conclude()
    assert live_rows(database.dsn) == before
    assert staging_schemas(database) == []
    assert looked["verdict"] == "identical"
    assert looked["succeeded"]
    assert looked["counts"] == report["counts"]
    assert "looked_again" in warnings(looked)


def test_an_export_cleared_alone_in_a_run_that_is_done_does_nothing(
    run: Callable[..., Migration],
) -> None:
    """A task cleared in a run that the ledger says is done does nothing, an export too."""
    promote_all(run("first"))
    run("first").export_one()


def test_a_done_run_that_is_looked_at_again_says_what_changed(
    run: Callable[..., Migration], database: Database
) -> None:
    """Rows that changed or went since are counted, and the verdict is `different`."""
    promote_all(run("first"))
    database.execute(
        "UPDATE checkpoints SET metadata = metadata || '{\"x\": 1}' WHERE checkpoint_id ="
        " (SELECT min(checkpoint_id) FROM checkpoints WHERE thread_id = 'anna')"
    )
    database.execute("DELETE FROM checkpoints WHERE thread_id = 'bert'")
    again = run("first")
    with pytest.raises(VerificationFailed):
        again.all()
    report = again.report
    assert (report["verdict"], report["succeeded"]) == ("different", False)
    assert warnings(report)["looked_again"]["count"] == 1 + 6
    third = run("first")  # what the run has recorded is not lost by a look that failed
    with pytest.raises(VerificationFailed):
        third.all()
    assert third.report["counts"] == report["counts"]
    assert warnings(third.report)["looked_again"]["count"] == 1 + 6


def test_a_done_run_whose_tasks_are_cleared_keeps_nobody_waiting(
    run: Callable[..., Migration], database: Database
) -> None:
    """Without its report, too: the next run on the same tables starts at once."""
    promote_all(run("first"))
    run("first").witness()
    held = "SELECT count(*) FROM checkpoint_migration.leases WHERE until > clock_timestamp()"
    assert database.rows(held) == [(0,)]
    assert run("second").all()["verdict"] == "identical"


def test_what_is_new_in_the_source_is_added(
    run: Callable[..., Migration], database: Database, source: Path
) -> None:
    """Catching up is running it again: new turns and new threads come in, the rest is left."""
    promote_all(run("first"))
    before = live_rows(database.dsn)
    grow(source, "anna", 1)
    grow(source, "carl", 2)
    promotion, report = promote_all(run("second"))
    assert report["verdict"] == "identical"
    assert promotion.inserted.checkpoints == 3 + 6
    now = live_rows(database.dsn)
    for name, rows in before.items():
        assert set(rows) <= set(now[name])
    assert len(latest(database, "anna").checkpoint["channel_values"]["said"]) == 6


def test_a_thread_that_went_on_on_both_sides_is_named(
    run: Callable[..., Migration], database: Database, source: Path
) -> None:
    """Nothing of either is lost, and which turn is the latest was nobody's choice: a warning, before too."""
    promote_all(run("first"))
    with PostgresSaver.from_conn_string(database.dsn) as saver:
        go_on(saver, "anna")
        go_on(saver, "bert")
    grow(source, "anna")
    grow(source, "carl")
    rehearsal = replace(run("rehearsed"), dag_id="rehearse_checkpoints", rehearsal=True)
    for second in (rehearsal, run("second")):
        before = live_rows(database.dsn)
        _, report = promote_all(second)
        assert report["verdict"] == "identical"
        told = warnings(report)["went_on_both_sides"]
        assert (told["count"], told["threads"]) == (1, ["anna"])
    for name, rows in before.items():
        assert set(rows) <= set(live_rows(database.dsn)[name])
    _, report = promote_all(run("third"))
    assert "went_on_both_sides" not in warnings(report)


def test_a_thread_that_was_deleted_on_postgresql_does_not_come_back(
    run: Callable[..., Migration], database: Database, source: Path
) -> None:
    """What an earlier run brought and the application deleted stays away, with what is new in it."""
    promote_all(run("first"))
    with PostgresSaver.from_conn_string(database.dsn) as saver:
        saver.delete_thread("anna")
    kept = live_rows(database.dsn)
    grow(source, "anna", 1)
    grow(source, "carl", 1)
    before = listing(source.parent)
    promotion, report = promote_all(run("second"))
    assert report["verdict"] == "identical"
    assert report["succeeded"]
    assert latest(database, "anna") is None
    assert {row[0] for rows in live_rows(database.dsn).values() for row in rows} == {
        "bert",
        "carl",
        "orphan",
    }
    assert promotion.inserted.checkpoints == 3
    assert promotion.removed.checkpoints == 6 + 3
    assert promotion.removed_threads == ("anna",)
    listed = warnings(report)["removed_on_target"]
    assert listed["threads"] == ["anna"]
    assert listed["count"] == promotion.removed.checkpoints + promotion.removed.writes
    live = report["counts"]["checkpoints"]["live"]
    assert live == report["counts"]["checkpoints"]["frozen"] - promotion.removed.checkpoints
    assert report["sentence"].startswith(f"{live} checkpoints and ")
    assert (
        f"{listed['count']} rows that were removed from PostgreSQL since an earlier run were not brought back"
        in (report["sentence"])
    )
    for name, rows in kept.items():
        assert set(rows) <= set(live_rows(database.dsn)[name])
    assert listing(source.parent) == before
    third, report = promote_all(run("third"))
    assert report["verdict"] == "identical"
    assert third.inserted == NOTHING


def test_a_thread_that_was_pruned_on_postgresql_keeps_its_newest_only(
    run: Callable[..., Migration], database: Database, source: Path
) -> None:
    """Pruned checkpoints stay away with their blobs and writes; new ones of the thread come in."""
    promote_all(run("first"))
    with PostgresSaver.from_conn_string(database.dsn) as saver:
        saver.prune(["anna"], strategy="keep_latest")
    pruned = live_rows(database.dsn)
    assert sum(row[0] == "anna" for row in pruned["checkpoints"]) == 1
    grow(source, "anna", 1)
    promotion, report = promote_all(run("second"))
    assert report["verdict"] == "identical"
    now = live_rows(database.dsn)
    assert sum(row[0] == "anna" for row in now["checkpoints"]) == 1 + 3
    assert promotion.inserted.checkpoints == 3
    assert promotion.removed.checkpoints == 5
    assert warnings(report)["removed_on_target"]["threads"] == ["anna"]
    for name, rows in pruned.items():
        assert set(rows) <= set(now[name])
    tuple_ = latest(database, "anna")
    assert len(tuple_.checkpoint["channel_values"]["said"]) == 6
    needed = database.rows(
        "SELECT count(*) FROM checkpoint_blobs b WHERE thread_id = 'anna' AND NOT EXISTS ("
        " SELECT 1 FROM checkpoints c, jsonb_each_text(c.checkpoint -> 'channel_versions') v"
        " WHERE c.thread_id = b.thread_id AND v.key = b.channel AND v.value = b.version)"
    )
    assert needed == [(0,)], "a blob came back that no live checkpoint needs"


def test_a_pruned_thread_without_news_is_left_as_it_is(
    run: Callable[..., Migration], database: Database
) -> None:
    """A run over an unchanged source changes nothing of what the application pruned."""
    promote_all(run("first"))
    with PostgresSaver.from_conn_string(database.dsn) as saver:
        saver.prune(["anna", "bert"], strategy="keep_latest")
    pruned = live_rows(database.dsn)
    promotion, report = promote_all(run("second"))
    assert report["verdict"] == "identical"
    assert promotion.inserted == NOTHING
    assert live_rows(database.dsn) == pruned


def test_a_thread_that_went_on_after_the_switch_keeps_what_it_wrote(
    run: Callable[..., Migration], database: Database, source: Path
) -> None:
    """Turns taken on PostgreSQL stay beside what a later run brings of the same thread."""
    promote_all(run("first"))
    with PostgresSaver.from_conn_string(database.dsn) as saver:
        go_on(saver, "anna", 2, said=f"{CANARY} on PostgreSQL")
    before = live_rows(database.dsn)
    grow(source, "bert", 1)
    promotion, report = promote_all(run("second"))
    assert report["verdict"] == "identical"
    assert promotion.inserted.checkpoints == 3
    now = live_rows(database.dsn)
    for name, rows in before.items():
        assert set(rows) <= set(now[name])
    assert len(latest(database, "anna").checkpoint["channel_values"]["said"]) == 8


def test_a_thread_that_went_on_at_both_ends_keeps_both(
    run: Callable[..., Migration], database: Database, source: Path
) -> None:
    """Both sides count their versions from the same point: contents get versions of their own."""
    promote_all(run("first"))
    with PostgresSaver.from_conn_string(database.dsn) as saver:
        go_on(saver, "anna", 1, said=f"{CANARY} on PostgreSQL")
    before = live_rows(database.dsn)
    grow(source, "anna", 1, said=f"{CANARY} on SQLite")
    promotion, report = promote_all(run("second"))
    assert report["verdict"] == "identical"
    assert promotion.inserted.checkpoints == 3
    now = live_rows(database.dsn)
    for name, rows in before.items():
        assert set(rows) <= set(now[name])


def test_what_was_deleted_in_the_source_since_is_reported_and_left(
    run: Callable[..., Migration], database: Database, source: Path
) -> None:
    """A thread gone from the source stays live; the report says how many rows it has there."""
    promote_all(run("first"))
    before = live_rows(database.dsn)
    with closing(sqlite3.connect(source, isolation_level=None)) as conn:
        conn.execute("DELETE FROM checkpoints WHERE thread_id = 'bert'")
        conn.execute("DELETE FROM writes WHERE thread_id = 'bert'")
    promotion, report = promote_all(run("second"))
    assert report["verdict"] == "identical"
    assert promotion.inserted == NOTHING
    assert live_rows(database.dsn) == before
    gone = warnings(report)["removed_in_source"]
    assert (gone["count"], gone["threads"]) == (6, ["bert"])


def test_threads_that_a_run_does_not_take_are_not_called_gone(
    run: Callable[..., Migration],
) -> None:
    """A run over a part of the threads says nothing of the others."""
    promote_all(run("first"))
    _, report = promote_all(run("second", threads=["anna"]))
    assert report["verdict"] == "identical"
    assert warnings(report) == {}


def test_orphan_writes_that_the_application_removed_do_not_come_back(
    run: Callable[..., Migration], database: Database
) -> None:
    """Writes without a checkpoint are remembered as well."""
    promote_all(run("first"))
    database.execute("DELETE FROM checkpoint_writes WHERE thread_id = 'orphan'")
    promotion, report = promote_all(run("second"))
    assert report["verdict"] == "identical"
    assert promotion.inserted == NOTHING
    assert database.rows("SELECT 1 FROM checkpoint_writes WHERE thread_id = 'orphan'") == []
    assert warnings(report)["removed_on_target"]["threads"] == ["orphan"]
