"""The lease: whoever is told that another run lives learns which one, and little is spent on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.checkpoint_migration.errors import AnotherRunIsAlive
from include.checkpoint_migration.run import lease
from tests.support.engine import Migration
from tests.support.faults import write_source
from tests.support.postgres import Database


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "app.sqlite")


@pytest.mark.parametrize(
    "run_id",
    ["manual__2026-11-26T10:00:00+00:00", 'it\'s <b>bold</b>\nand "quoted"', "r" * 250],
    ids=["as Airflow's", "hostile", "long"],
)
def test_the_other_run_is_named_as_airflow_has_it(
    run: Callable[..., Migration], database: Database, run_id: str
) -> None:
    """DAG and run are what somebody finds in the UI; a key of eight digits is nowhere there."""
    first, second = run(run_id), run("second")
    first.check()
    with pytest.raises(AnotherRunIsAlive) as refused:
        lease.acquire(second.connect, second.run.settings, patience=0.1)
    error = refused.value
    assert (error.facts["dag_id"], error.facts["run_id"]) == ("migrate_checkpoints", run_id)
    assert "'migrate_checkpoints'" in error.what
    assert error.facts["other"] == first.run.settings.key
    assert error.facts["other"] in error.what
    assert "\n" not in error.what
    assert run_id in error.what if run_id.startswith("manual") else len(error.what) < 400


def counting(migration: Migration, made: list[psycopg.Connection[Any]]) -> None:
    real = migration.connect

    def connect() -> psycopg.Connection[Any]:
        made.append(real())
        return made[-1]

    migration.connect = connect  # type: ignore[method-assign]


def test_check_schema_spends_few_connections(run: Callable[..., Migration]) -> None:
    """One connection serves all that it asks and makes, and it is closed in the end."""
    first = run("first")
    made: list[psycopg.Connection[Any]] = []
    counting(first, made)
    first.check()
    assert len(made) == 1
    made.clear()
    first.check()
    assert len(made) == 1
    assert all(conn.closed for conn in made)


def test_signs_of_life_go_on_where_a_connection_does_not_rest_long(
    run: Callable[..., Migration], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that the server ended between two signs is replaced at once, none is left out."""
    monkeypatch.setattr(lease, "BEAT", 0.2)
    database.execute(f'ALTER DATABASE "{database.name}" SET idle_session_timeout = 20')
    migration = run("first")
    migration.check()
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        conn.execute("SET idle_session_timeout = 0")
        beats = "SELECT beats FROM checkpoint_migration.leases"
        with lease.alive(migration.connect, migration.run.settings):
            [before] = conn.execute(beats).fetchone() or ()
            time.sleep(1.5)
            [after] = conn.execute(beats).fetchone() or ()
    assert after - before >= 5
