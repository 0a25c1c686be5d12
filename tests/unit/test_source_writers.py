"""Applications that write all the time are neither disturbed nor misread."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from include.checkpoint_migration.errors import SourceBusy
from include.checkpoint_migration.settings import ThreadFilter
from include.checkpoint_migration.source import (
    count,
    drift,
    freeze,
    inspect_source,
    open_frozen,
    plan,
)
from tests.support.application import Application
from tests.support.sqlite_sources import IS_ROOT, OWNER, WORKER, as_user, even, names, open_folder

EVERYTHING = ThreadFilter()


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder(OWNER) as path:
        yield path


@pytest.fixture
def run() -> Iterator[Path]:
    with open_folder(mode=0o777) as path:
        yield path


def owner() -> int | None:
    return OWNER if IS_ROOT else None


def drift_of(source: str, frozen: Path) -> object:
    with closing(open_frozen(frozen)) as conn:
        return drift(source, conn), count(conn, EVERYTHING)


@pytest.mark.parametrize("journal_mode", ["wal", "delete", "truncate", "persist"])
def test_500_rows_a_second_are_frozen_and_drift_is_exact(
    folder: Path, run: Path, journal_mode: str
) -> None:
    """Under 500 rows a second each look is one moment's state, and the writer meets no error."""
    source = folder / "app.sqlite"
    with Application(source, journal_mode, owner()) as app:
        app.insert(200)
        app.write(500)
        time.sleep(0.3)
        info = as_user(WORKER, inspect_source, str(source))
        frozen = as_user(WORKER, freeze, str(source), run / "source.sqlite")
        time.sleep(0.2)
        (changed, now), kept = as_user(WORKER, drift_of, str(source), run / "source.sqlite")
        seen = names(folder)
        report = app.stop()
        assert report["errors"] == []
        (later, total), _ = as_user(WORKER, drift_of, str(source), run / "source.sqlite")

    for state in (info.counts, frozen.counts, now, total):
        assert state.checkpoints == state.writes  # they are committed together
    assert 200 < info.counts.checkpoints <= frozen.counts.checkpoints < now.checkpoints
    assert kept == frozen.counts
    for found, then in ((changed, now), (later, total)):
        assert found.checkpoints.added == then.checkpoints - kept.checkpoints
        assert found.writes.added == then.writes - kept.writes
        assert found.checkpoints.changed == found.checkpoints.removed == 0
    assert total.checkpoints == 200 + report["rows"] // 2
    assert WORKER not in seen.values()


def test_connection_for_each_request_never_meets_our_sidecars(folder: Path, run: Path) -> None:
    """While -wal and -shm come and go a worker of another uid makes neither, and reads on."""
    source = folder / "app.sqlite"
    with Application(source, "wal", owner()) as app:
        app.insert(20)
        app.churn()
        last, end = 0, time.monotonic() + 2.5
        rounds = 0
        while time.monotonic() < end:
            info = as_user(WORKER, inspect_source, str(source))
            assert last <= info.counts.checkpoints == info.counts.writes
            assert WORKER not in names(folder).values() or not IS_ROOT
            last, rounds = info.counts.checkpoints, rounds + 1
        frozen = as_user(WORKER, freeze, str(source), run / "source.sqlite")
        report = app.stop()
    assert report["errors"] == []
    assert rounds > 3
    assert last <= frozen.counts.checkpoints <= 20 + report["rows"] // 2


def test_lock_is_waited_for_and_then_named(folder: Path) -> None:
    """A database held exclusively is busy after the timeout, and is read as soon as it is free."""
    source = folder / "app.sqlite"
    with Application(source, "delete") as app:
        app.insert(2)
        app.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        error = as_user(WORKER, inspect_source, str(source), timeout=0.3)
        assert isinstance(error, SourceBusy)
        assert error.transient
        assert 0.3 <= time.monotonic() - began < 5
        app.execute("COMMIT")
        assert as_user(WORKER, inspect_source, str(source)).counts.checkpoints == 2


def test_lock_of_this_very_process_is_respected(tmp_path: Path) -> None:
    """A connection of the same process that holds the database counts as any other holder."""
    source = tmp_path / "app.sqlite"
    with Application(source, "delete") as app:
        app.close()
    with closing(sqlite3.connect(source, isolation_level=None)) as conn:
        conn.execute("BEGIN EXCLUSIVE")
        with pytest.raises(SourceBusy):
            inspect_source(str(source), timeout=0.2)
        conn.execute("COMMIT")
    assert inspect_source(str(source)).threads == 0


def test_exclusive_wal_holder_is_busy(folder: Path) -> None:
    """An application in locking_mode=EXCLUSIVE leaves nobody a way in: the source is busy."""
    source = folder / "app.sqlite"
    with Application(source, "wal") as app:
        app.execute("PRAGMA locking_mode=EXCLUSIVE")
        app.insert(2)
        assert isinstance(as_user(WORKER, inspect_source, str(source), timeout=0.3), SourceBusy)


def test_reader_of_the_frozen_copy_never_waits(folder: Path, run: Path) -> None:
    """What is frozen can be planned while the source is locked."""
    source = folder / "app.sqlite"
    with Application(source, "delete") as app:
        app.insert(3)
        as_user(WORKER, freeze, str(source), run / "source.sqlite")
        app.execute("BEGIN EXCLUSIVE")
        with closing(open_frozen(run / "source.sqlite")) as conn:
            assert [s.checkpoints for s in plan(conn, EVERYTHING, even(64))] == [3]
