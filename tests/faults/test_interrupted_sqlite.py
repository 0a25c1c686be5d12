"""What a signal raises while SQLite works for a task is heard: no callback of ours swallows it."""

from __future__ import annotations

import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from include.checkpoint_migration.errors import MigrationError
from tests.support import thread_ts
from tests.support.engine import Migration
from tests.support.faults import Trial
from tests.support.interrupts import TimeIsUp
from tests.support.postgres import Database


@contextmanager
def time_is_up_in(function: str) -> Iterator[list[str]]:
    """The block is interrupted where this function of ours is first called; says whether it was."""
    met: list[str] = []

    def look(frame: object, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_name == function and not met:  # type: ignore[attr-defined]
            met.append(function)
            raise TimeIsUp

    sys.setprofile(look)
    try:
        yield met
    finally:
        sys.setprofile(None)


def test_a_long_count_beside_the_two_tables_loses_no_interruption(trial: Trial) -> None:
    """It is SQLite's alone for a while: what a signal raised meanwhile comes up after it."""
    with closing(sqlite3.connect(trial.source, isolation_level=None)) as conn:
        conn.execute("CREATE TABLE audit (id INTEGER PRIMARY KEY, said TEXT)")
        conn.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400000)"
            " INSERT INTO audit SELECT i, 'x' || i FROM n"
        )
    trial = Trial(trial.database, trial.source, trial.exports, trial.expected, run_id="counting")
    trial.migration.check()
    lasted = []
    for _ in range(2):  # the first one is colder
        began = time.monotonic()
        trial.migration.freeze()
        lasted.append(time.monotonic() - began)
    whole = min(lasted)

    def alarm(*_: object) -> None:
        raise TimeIsUp

    before = signal.signal(signal.SIGALRM, alarm)
    heard = 0
    try:
        for part in range(1, 10):
            signal.setitimer(signal.ITIMER_REAL, whole * part / 10)
            try:
                trial.migration.freeze()
                assert signal.getitimer(signal.ITIMER_REAL)[0] > 0, "an interruption was lost"
            except TimeIsUp:
                heard += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert heard > 3
    trial.last_try()


@pytest.fixture
def of_timestamps(database: Database, tmp_path: Path) -> Migration:
    """A run of a source whose checkpoint ids are worked out of its timestamps, within SQLite."""
    (tmp_path / "application").mkdir()
    began = datetime(2024, 6, 10, 12, tzinfo=UTC)
    times = [(began + timedelta(seconds=n, microseconds=1)).isoformat() for n in range(40)]
    rows = [("anna", now, last) for now, last in zip(times, [None, *times], strict=False)]
    source = thread_ts.by_hand(tmp_path / "application" / "app.sqlite", *rows)
    return Migration(database.dsn, source, tmp_path / "exports", max_export_tasks=1)


def stopped(work: Callable[[], object], function: str) -> Exception:
    with time_is_up_in(function) as met, pytest.raises((MigrationError, sqlite3.Error)) as ended:
        work()
    assert met
    return ended.value


def test_an_interruption_within_sqlite_is_no_fault_of_the_source(of_timestamps: Migration) -> None:
    """SQLite makes another error of it: another try is to follow, and no row counts as unreadable."""
    run = of_timestamps
    run.check()
    run.freeze()
    exports = run.export()
    run.load(exports)
    error = stopped(lambda: run.verify(exports), "expected_id")
    assert isinstance(error, MigrationError)
    assert error.transient
    run.verify(exports)
    run.promote()
    assert isinstance(stopped(run.witness, "id_of_time"), sqlite3.Error)
    result = run.witness()
    assert (result.verdict, result.unread) == ("identical", 0)
    assert run.conclude()["verdict"] == "identical"
