"""A task's transactions share a connection, and do not depend on its lasting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.checkpoint_migration.errors import MigrationError
from include.checkpoint_migration.postgres import transaction
from include.checkpoint_migration.resting import resting_connections
from tests.support.engine import Migration
from tests.support.postgres import Database

PID = "SELECT pg_backend_pid()"


@pytest.fixture
def made(database: Database) -> list[psycopg.Connection[Any]]:
    return []


@pytest.fixture
def connect(
    database: Database, made: list[psycopg.Connection[Any]]
) -> Callable[[], psycopg.Connection[Any]]:
    def connect() -> psycopg.Connection[Any]:
        made.append(psycopg.connect(database.dsn))
        return made[-1]

    return connect


def test_transactions_one_after_another_share_a_connection(connect: Any, made: Any) -> None:
    """What rests serves the next; nothing of a transaction is left to it, and all are closed."""
    with resting_connections():
        with transaction(connect, "asking") as conn:
            conn.execute("SET LOCAL work_mem = '1MB'")
        with transaction(connect, "asking again", read_only=True) as conn:
            assert conn.execute("SHOW work_mem").fetchone() != ("1MB",)
            assert conn.execute("SHOW transaction_read_only").fetchone() == ("on",)
        with transaction(connect, "writing") as conn:
            assert conn.execute("SHOW transaction_read_only").fetchone() == ("off",)
    assert len(made) == 1
    assert made[0].closed


def test_transactions_within_another_have_connections_of_their_own(connect: Any, made: Any) -> None:
    """A connection in use is no connection at rest."""
    with (
        resting_connections(),
        transaction(connect, "outside") as outer,
        transaction(connect, "inside") as inner,
    ):
        assert outer.execute(PID).fetchone() != inner.execute(PID).fetchone()
    assert len(made) == 2
    assert all(conn.closed for conn in made)


def test_a_transaction_that_failed_gives_its_connection_back_clean(connect: Any, made: Any) -> None:
    """An error of the server ends the transaction, and the next one knows nothing of it."""
    with resting_connections():
        refused = pytest.raises(MigrationError, match="refused a statement")
        with refused, transaction(connect, "failing") as conn:
            conn.execute("SELECT 1 / 0")
        with transaction(connect, "asking") as conn:
            assert conn.execute("SELECT 1").fetchone() == (1,)
    assert all(conn.closed for conn in made)


def test_a_connection_that_ended_while_it_rested_is_replaced(
    connect: Any, made: Any, database: Database
) -> None:
    """A server or pooler may end what rests: the next transaction makes another."""
    with resting_connections():
        with transaction(connect, "asking") as conn:
            (pid,) = conn.execute(PID).fetchone() or (0,)
        database.execute("SELECT pg_terminate_backend(%s, 5000)", pid)
        with transaction(connect, "asking again") as conn:
            assert conn.execute("SELECT 1").fetchone() == (1,)
    assert len(made) == 2


def test_a_migration_makes_few_connections(
    database: Database, small_sample: Path, tmp_path: Path
) -> None:
    """A task has one for its work; the proof and the read-back need one more."""
    migration = Migration(database.dsn, small_sample, tmp_path / "exports", max_export_tasks=1)
    made: list[Any] = []
    real = migration.connect
    migration.connect = lambda: made.append(1) or real()  # type: ignore[method-assign,func-returns-value]
    assert migration.all()["verdict"] == "identical"

    assert len(made) <= 14
