"""The application goes on while a run works: it loses nothing, and nothing is silently different."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.postgres import PostgresSaver

from include.checkpoint_migration.errors import (
    MigrationError,
    SourceDrifted,
    TargetBusy,
    TargetConflict,
)
from tests.support.faults import (
    PROMOTING,
    Before,
    LoseAnswer,
    Proxy,
    Trial,
    go_on,
    grow,
    live_rows,
    load_one,
    plan,
    receipts,
    wait_for_a_lock,
)
from tests.support.postgres import Database
from tests.support.sqlite_sources import listing

COLUMNS = {
    "checkpoint_blobs": "thread_id, checkpoint_ns, channel, version, type, blob",
    "checkpoints": "thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata",
    "checkpoint_writes": "thread_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel,"
    " type, blob",
}
OTHER = {
    "checkpoint_blobs": ("blob", "'\\x07'::bytea"),
    "checkpoints": ("metadata", "'{\"mine\": true}'::jsonb"),
    "checkpoint_writes": ("blob", "'\\x07'::bytea"),
}


def write_one_of_ours(trial: Trial, table: str, *, other: bool, skip: int = 0) -> None:
    """As the application: insert a row with the key of a staged one, and commit."""
    column, value = OTHER[table]
    names = COLUMNS[table]
    values = names.replace(f" {column}", f" {value}") if other else names
    schema = trial.migration.run.settings.staging_schema
    trial.database.execute(
        f"INSERT INTO public.{table} ({names}) SELECT {values} FROM {schema}.{table}"
        f" ORDER BY {names} OFFSET {skip} LIMIT 1"
    )


@pytest.mark.parametrize("table", COLUMNS)
def test_another_content_written_between_check_and_insert_is_a_conflict(
    trial: Trial, proxy: Proxy, table: str
) -> None:
    """Promote begins anew at once, finds the application's row and names it."""
    trial.migration.to_staging()
    proxy.rule = Before(
        f'INSERT INTO "public"."{table}"'.encode(),
        lambda: write_one_of_ours(trial, table, other=True),
    )
    with pytest.raises(TargetConflict) as conflict:
        trial.through(proxy.dsn).promote()
    assert not conflict.value.transient
    trial.before = live_rows(trial.database.dsn)
    assert sum(map(len, trial.before.values())) == 1
    trial.holds(conflict.value)
    assert trial.live() == "before"
    report = trial.migration.conclude()
    assert not report["succeeded"]
    assert [conflict["table"] for conflict in report["conflicts"]] == [table]


@pytest.mark.parametrize("table", COLUMNS)
def test_equal_content_written_between_check_and_insert_is_found_by_the_next_try(
    trial: Trial, proxy: Proxy, table: str
) -> None:
    """A row that the application wrote just as we would is left, and the rest comes in."""
    trial.migration.to_staging()
    proxy.rule = Before(
        f'INSERT INTO "public"."{table}"'.encode(),
        lambda: write_one_of_ours(trial, table, other=False),
    )
    promotion = trial.through(proxy.dsn).promote()
    trial.before = live_rows(trial.database.dsn)
    found = promotion.identical
    assert found.checkpoints + found.writes + (found.blobs or 0) == 1
    trial.migration.witness()
    trial.concluded(trial.migration.conclude())


@pytest.mark.parametrize("table", COLUMNS)
def test_a_row_written_between_check_and_insert_beside_one_that_was_there_is_found_by_another_try(
    trial: Trial, proxy: Proxy, table: str
) -> None:
    """Where some keys are live already the insert fails as transient, and the next try finds the row."""
    trial.migration.to_staging()
    write_one_of_ours(trial, table, other=False)
    proxy.rule = Before(
        f'INSERT INTO "public"."{table}"'.encode(),
        lambda: write_one_of_ours(trial, table, other=False, skip=1),
    )
    with pytest.raises(TargetBusy) as busy:
        trial.through(proxy.dsn).promote()
    assert busy.value.transient
    assert busy.value.facts["sqlstate"] == "40001"
    trial.before = live_rows(trial.database.dsn)
    trial.holds(busy.value)
    found = trial.migration.promote().identical
    assert found.checkpoints + found.writes + (found.blobs or 0) == 2
    trial.migration.witness()
    trial.concluded(trial.migration.conclude())


RECORDS = """
INSERT INTO checkpoint_migration.promoted (live_schema, thread_id, checkpoint_ns, checkpoint_id,
                                           run_key, source, orphan, digest)
SELECT 'public', thread_id, checkpoint_ns, checkpoint_id, 'another', '/another', false, '\\x00'
  FROM public.checkpoints
"""


def test_a_row_that_another_run_records_meanwhile_is_recorded_anew(
    trial: Trial, proxy: Proxy
) -> None:
    """Two runs find one live row identical: the ledger's first rows are written as if there were none."""
    trial.migration.to_staging()
    write_one_of_ours(trial, "checkpoints", other=False)
    word = b"INSERT INTO checkpoint_migration.promoted"
    proxy.rule = Before(word, lambda: trial.database.execute(RECORDS))
    promotion = trial.through(proxy.dsn).promote()
    assert promotion.identical.checkpoints == 1
    recorded = trial.database.rows(
        "SELECT run_key, count(*) FROM checkpoint_migration.promoted WHERE NOT orphan GROUP BY 1"
    )
    assert recorded == [(trial.migration.run.settings.key, promotion.inserted.checkpoints + 1)]
    trial.before = live_rows(trial.database.dsn)
    trial.migration.witness()
    trial.concluded(trial.migration.conclude())


ALTERS = """
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN NEW.metadata := NEW.metadata || '{"tenant": "x"}'; RETURN NEW; END$$;
CREATE TRIGGER stamp BEFORE INSERT ON checkpoints FOR EACH ROW EXECUTE FUNCTION stamp();
"""


def test_a_trigger_that_came_after_promote_had_begun_changes_nothing(
    trial: Trial, proxy: Proxy
) -> None:
    """The transaction's snapshot does not show it, yet the rows that it changed are found and taken back."""
    trial.migration.to_staging()
    word = b'INSERT INTO "public"."checkpoint_blobs"'
    proxy.rule = Before(word, lambda: trial.database.execute(ALTERS))
    with pytest.raises(TargetBusy, match="something else changes these tables"):
        trial.through(proxy.dsn).promote()
    assert trial.live() == "before"
    trial.database.execute("DROP TRIGGER stamp ON checkpoints")
    trial.migration.promote()
    trial.migration.witness()
    trial.concluded(trial.migration.conclude())


@pytest.mark.parametrize("table", COLUMNS)
def test_what_the_application_writes_during_promote_survives(
    trial: Trial, proxy: Proxy, table: str
) -> None:
    """Threads that the application begins or goes on with meanwhile are whole, and so are ours."""
    trial.migration.to_staging()

    def work() -> None:
        with PostgresSaver.from_conn_string(trial.database.dsn) as saver:
            go_on(saver, "new", 2)
            go_on(saver, "anna", 1)

    proxy.rule = Before(f'INSERT INTO "public"."{table}"'.encode(), work)
    trial.through(proxy.dsn).promote()
    now = live_rows(trial.database.dsn)
    for name, ours in trial.expected.items():
        assert set(ours) <= set(now[name])
    with PostgresSaver.from_conn_string(trial.database.dsn) as saver:
        config: Any = {"configurable": {"thread_id": "new"}}
        assert len(list(saver.list(config))) == 6
        latest = saver.get_tuple(config)
        assert latest is not None
        assert len(latest.checkpoint["channel_values"]["said"]) == 4
    extra = len(now["checkpoints"]) - len(trial.expected["checkpoints"])
    assert extra == 6 + 3
    trial.migration.witness()
    report = trial.migration.conclude()
    assert report["verdict"] == "identical"
    assert live_rows(trial.database.dsn) == now


def drift_somehow(source: Path) -> dict[str, dict[str, int]]:
    """Add a turn, change one checkpoint and some writes, remove two checkpoints and a write."""
    with closing(sqlite3.connect(source, isolation_level=None)) as conn:
        before = conn.execute("SELECT count(*) FROM writes").fetchone()[0]
    grow(source, "bert")
    with closing(sqlite3.connect(source, isolation_level=None)) as conn:
        added = conn.execute("SELECT count(*) FROM writes").fetchone()[0] - before
        ids = [
            row[0]
            for row in conn.execute(
                "SELECT checkpoint_id FROM checkpoints WHERE thread_id = 'anna' ORDER BY 1"
            )
        ]
        conn.execute("UPDATE checkpoints SET metadata = '{}' WHERE checkpoint_id = ?", (ids[0],))
        conn.execute("DELETE FROM checkpoints WHERE checkpoint_id IN (?, ?)", ids[1:3])
        changed = conn.execute(
            "UPDATE writes SET value = x'00' WHERE checkpoint_id = ?", (ids[3],)
        ).rowcount
        conn.execute("DELETE FROM writes WHERE thread_id = 'orphan'")
    assert added
    assert changed
    return {
        "checkpoints": {"added": 3, "changed": 1, "removed": 2},
        "writes": {"added": added, "changed": changed, "removed": 1},
    }


def watch_again(trial: Trial) -> None:
    """The application changed its own folder: from here on nobody else may."""
    trial._folder = listing(trial.source.parent)


def test_a_source_that_drifted_is_refused_with_exact_figures(trial: Trial) -> None:
    """Under `on_drift: fail` nothing becomes live once the source is not what was frozen."""
    trial.migration.to_staging()
    figures = drift_somehow(trial.source)
    watch_again(trial)
    with trial.fails(SourceDrifted, transient=False):
        trial.migration.promote()
    report = trial.migration.conclude()
    assert trial.live() == "before"
    assert (report["verdict"], report["succeeded"]) == ("unproven", False)
    assert report["drift"] == figures
    assert report["error"]["type"] == "SourceDrifted"


def test_a_drift_that_is_only_reported_migrates_the_frozen_state(trial: Trial) -> None:
    """Under `on_drift: report` what was frozen becomes live, and the drift is counted exactly."""
    trial.migration.params["on_drift"] = "report"
    trial.migration.to_staging()
    figures = drift_somehow(trial.source)
    watch_again(trial)
    trial.migration.promote()
    trial.migration.witness()
    report = trial.migration.conclude()
    trial.concluded(report)
    assert report["drift"] == figures
    counts, frozen = report["counts"], report["counts"]["checkpoints"]["frozen"]
    assert counts["checkpoints"]["source"] == frozen + 3 - 2
    assert counts["checkpoints"]["live"] == frozen


def test_a_drift_is_reported_although_the_answer_to_promote_was_lost(
    trial: Trial, proxy: Proxy
) -> None:
    """What the first try found out about the source is in the report of the second."""
    trial.migration.params["on_drift"] = "report"
    trial.migration.to_staging()
    figures = drift_somehow(trial.source)
    watch_again(trial)
    proxy.rule = LoseAnswer(after=PROMOTING)
    with pytest.raises(MigrationError):
        trial.through(proxy.dsn).promote()
    assert trial.live() == "after"
    trial.migration.promote()
    trial.migration.witness()
    assert trial.migration.conclude()["drift"] == figures


def test_two_tries_of_one_batch_at_once_load_it_once(trial: Trial, proxy: Proxy) -> None:
    """A try whose task was given up and lives on does no harm, nor does it fail the next one for good."""
    exports, [first, *others] = plan(trial.migration)
    failed: list[MigrationError] = []

    def another() -> None:
        try:
            load_one(trial.migration, first)
        except MigrationError as error:
            failed.append(error)

    other = threading.Thread(target=another)

    def begin() -> None:
        other.start()
        wait_for_a_lock(trial.database)

    # the older try has copied its rows when the other one begins
    proxy.rule = Before(b"INSERT INTO checkpoint_migration.batches", begin)
    load_one(trial.through(proxy.dsn), first)
    other.join(30)
    assert len(receipts(trial.database)) == 1
    assert [error for error in failed if not error.transient] == []
    for load in (first, *others):
        load_one(trial.migration, load)
    trial.go_on(exports)


@pytest.mark.parametrize("lost", ["plan_batches.json", "check_schema.json"])
def test_promote_refuses_when_the_record_of_what_was_planned_is_gone(
    trial: Trial, lost: str
) -> None:
    """What promote cannot prove it does not make live."""
    exports = trial.migration.to_staging()
    record = trial.migration.folder / "steps" / lost
    record.rename(record.with_suffix(".away"))
    trial.database.execute("DELETE FROM checkpoint_migration.verified")
    with trial.fails(MigrationError):
        trial.migration.promote()
    assert trial.live() == "before"
    record.with_suffix(".away").rename(record)
    trial.go_on(exports)


def test_two_promotes_at_once_promote_once(trial: Trial, proxy: Proxy) -> None:
    """The second waits for the first, and then finds all of it done."""
    trial.migration.to_staging()
    found: list[Any] = []
    other = threading.Thread(target=lambda: found.append(trial.migration.promote()))

    def begin() -> None:
        other.start()
        wait_for_a_lock(trial.database)

    proxy.rule = Before(b'INSERT INTO "public"."checkpoints"', begin)
    first = trial.through(proxy.dsn).promote()
    other.join(30)
    assert not first.already_done
    assert [promotion.already_done for promotion in found] == [True]
    trial.migration.witness()
    trial.concluded(trial.migration.conclude())


def test_a_database_that_was_altered_between_check_and_promote_is_refused(
    trial: Trial, database: Database
) -> None:
    """What check_schema found is looked at once more before anything becomes live."""
    trial.migration.to_staging()
    database.execute("ALTER TABLE checkpoint_writes ADD COLUMN tenant text NOT NULL")
    with pytest.raises(MigrationError) as refused:
        trial.migration.promote()
    assert not refused.value.transient
    database.execute("ALTER TABLE checkpoint_writes DROP COLUMN tenant")
    trial.holds(refused.value)
    assert trial.live() == "before"
    trial.go_on()
