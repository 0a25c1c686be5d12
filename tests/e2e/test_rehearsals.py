"""Rehearsals on a real server: live stays as it was, a record stays behind, and records make a trend."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.checkpoint_migration.errors import TargetConflict, TargetNotReady
from tests.support import sqlite_sources as sources
from tests.support.dumps import dump_without_ledger
from tests.support.engine import Migration
from tests.support.postgres import Database

RECORDS = "SELECT record FROM checkpoint_migration.rehearsals ORDER BY started"
TABLES = """
SELECT relname::text FROM pg_class
 WHERE relkind = 'r' AND relnamespace = 'checkpoint_migration'::regnamespace
"""
DIFFER = "UPDATE checkpoints SET metadata = '{\"another\": true}'"


@pytest.fixture
def rehearse(run_on: Callable[..., Migration], small_sample: Path) -> Callable[..., Migration]:
    """A rehearsal of the sample that is yet to run."""

    def rehearse(**options: Any) -> Migration:
        return run_on(small_sample, dag_id="rehearse_checkpoints", rehearsal=True, **options)

    return rehearse


def page_of(migration: Migration) -> str:
    return (migration.folder / "report.html").read_text()


def records_of(database: Database) -> list[dict[str, Any]]:
    return [record for (record,) in database.rows(RECORDS)]


def rows_of_ledger(database: Database) -> dict[str, int]:
    return {
        table: database.rows(f"SELECT count(*) FROM checkpoint_migration.{table}")[0][0]
        for (table,) in database.rows(TABLES)
    }


def test_a_rehearsal_over_live_rows_leaves_them_and_its_record_alone(
    rehearse: Callable[..., Migration],
    run_on: Callable[..., Migration],
    database: Database,
    small_sample: Path,
) -> None:
    """A dump before and after is the same, byte for byte; of the ledger two rows are new."""
    run_on(small_sample).all()
    sources.saved(small_sample, "new since then")
    dump, before = dump_without_ledger(database.dsn), rows_of_ledger(database)
    assert "COPY public.checkpoints" in dump
    assert rehearse().all()["verdict"] == "identical"
    assert dump_without_ledger(database.dsn) == dump
    new = {k: count - before.get(k, 0) for k, count in rows_of_ledger(database).items()}
    assert {table: count for table, count in new.items() if count} == {"rehearsals": 1, "runs": 1}


def test_three_rehearsals_make_the_trend(
    rehearse: Callable[..., Migration], database: Database, small_sample: Path
) -> None:
    """Three real rehearsals of a database that grows: three records, three bars, rows that rise."""
    for day in range(3):
        sources.saved(small_sample, f"thread of day {day}")
        rehearsal = rehearse()
        report = rehearsal.all()
        assert report["verdict"] == "identical"
    found = records_of(database)
    assert [record["verdict"] for record in found] == ["identical"] * 3
    counts = [record["checkpoints"] for record in found]
    assert counts == sorted(set(counts))
    assert counts[-1] == report["counts"]["checkpoints"]["live"]
    assert all(record["live_bytes"] > 0 and record["staged_bytes"] > 0 for record in found)
    assert all(record["folder_bytes"] > record["source_bytes"] for record in found)
    page = page_of(rehearsal)
    assert page.count("</title></rect>") == 3
    assert len(re.findall(r"<title>[\d: -]+, identical, \d+ checkpoints in ", page)) == 3
    assert "Rehearsals of this move so far: 3." in rehearsal.log
    assert "twice the data" in page


def test_a_red_rehearsal_is_in_the_trend_with_the_conflicts_of_live(
    rehearse: Callable[..., Migration],
    run_on: Callable[..., Migration],
    database: Database,
    small_sample: Path,
) -> None:
    """What live would refuse now is counted; nothing is foretold, and the next one remembers it."""
    rehearse().all()
    run_on(small_sample).all()
    database.execute(DIFFER)
    dump = dump_without_ledger(database.dsn)
    red = rehearse()
    with pytest.raises(TargetConflict):
        red.all()
    assert dump_without_ledger(database.dsn) == dump
    found = records_of(database)[-1]
    assert (found["verdict"], found["error"]) == ("unproven", "TargetConflict")
    conflicts = len(red.report["conflicts"])
    assert found["conflicts"] == conflicts > 0
    page = page_of(red)
    assert f"The real run would meet {conflicts} conflicts with live rows now." in page
    assert "twice the data" not in page
    assert page.count('<rect class="unproven"') == 1


def test_a_real_run_has_the_last_rehearsal_of_its_move_beside_it(
    rehearse: Callable[..., Migration],
    run_on: Callable[..., Migration],
    small_sample: Path,
    tmp_path: Path,
) -> None:
    """Rows, verdict and duration of the rehearsal stand in its report; those of another move do not."""
    other = tmp_path / "another.sqlite"
    sources.empty(other).close()
    sources.saved(other, "another application's")
    rehearse().all()
    run_on(other, dag_id="rehearse_checkpoints", rehearsal=True).all()
    real = run_on(small_sample)
    report = real.all()
    checkpoints = report["counts"]["checkpoints"]["live"]
    (told,) = [line for line in real.log if line.startswith("The last rehearsal, ")]
    assert f": identical, {checkpoints} checkpoints in " in told
    section = page_of(real).split("Beside the last rehearsal")[1].split("</section>")[0]
    figures = re.findall(r'<td class="n">([^<]+)</td>', section)
    assert figures[:2] == ["identical", "identical"]
    assert figures.count(str(checkpoints)) == 2


def test_a_rehearsal_that_is_reported_again_keeps_its_record(
    rehearse: Callable[..., Migration], database: Database
) -> None:
    """Clearing the report of one that is done measures nothing anew: its schemas are gone."""
    rehearsal = rehearse()
    rehearsal.all()
    (before,) = records_of(database)
    foretold = page_of(rehearsal).split("The real run<small>")[1].split("</section>")[0]
    rehearsal.conclude()
    assert records_of(database) == [before]
    assert foretold in page_of(rehearsal)


def test_a_rehearsal_refused_before_the_first_ledger_is_reported_without_a_record(
    rehearse: Callable[..., Migration], database: Database
) -> None:
    """Where there is no ledger yet nothing is made for the record's sake."""
    refused = rehearse(params={"target_schema": "not there"})
    with pytest.raises(TargetNotReady):
        refused.all()
    assert database.rows("SELECT FROM pg_namespace WHERE nspname LIKE 'checkpoint%%'") == []
    assert not refused.report["succeeded"]


def test_a_ledger_of_an_older_release_learns_to_remember(
    rehearse: Callable[..., Migration], database: Database
) -> None:
    """A ledger without the table gets it with the next run."""
    rehearse().all()
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        conn.execute("DROP TABLE checkpoint_migration.rehearsals")
    rehearse().all()
    assert len(records_of(database)) == 1
