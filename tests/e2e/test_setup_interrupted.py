"""check_schema stopped while PostgresSaver.setup() brings older tables up to date: the next try ends it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from langgraph.checkpoint.postgres import PostgresSaver
from psycopg.rows import dict_row

from include.checkpoint_migration.errors import TargetBusy
from tests.support.engine import Migration
from tests.support.faults import Child, run_step, write_source
from tests.support.interrupts import SOON, time_is_up_once, wait_until
from tests.support.postgres import Database

MAKING = "SELECT 1 FROM pg_stat_activity WHERE query ILIKE '%%CONCURRENTLY%%'"
MAKING += " AND pid <> pg_backend_pid() AND state = 'active' AND datname = current_database()"


@pytest.fixture
def migration(database: Database, tmp_path: Path) -> Migration:
    """A run into tables that have none of the indexes yet."""
    first = next(i for i, m in enumerate(PostgresSaver.MIGRATIONS) if "CONCURRENTLY" in m)

    class Older(PostgresSaver):
        MIGRATIONS = PostgresSaver.MIGRATIONS[:first]

    with psycopg.connect(database.dsn, autocommit=True, row_factory=dict_row) as conn:
        Older(conn).setup()
    (tmp_path / "application").mkdir()
    source = write_source(tmp_path / "application" / "app.sqlite")
    return Migration(database.dsn, source, tmp_path / "exports")


@contextmanager
def an_application_in_a_transaction(database: Database) -> Iterator[psycopg.Connection]:
    """It has written, and making an index beside it waits for its end."""
    with database.connect(autocommit=False) as conn:
        conn.execute(
            "INSERT INTO public.checkpoints (thread_id, checkpoint_ns, checkpoint_id, checkpoint,"
            " metadata) VALUES ('its own', '', '1', '{}', '{}')"
        )
        yield conn
        conn.rollback()


def half_made(database: Database) -> list[tuple[str]]:
    return database.rows("SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid")


@pytest.mark.parametrize("how", ["interrupted", "killed"])
def test_a_stopped_setup_ends_at_the_server_and_is_gone_on_with(
    database: Database, migration: Migration, how: str
) -> None:
    """Nothing goes on behind the next try's back, and an index that is half made is made anew."""
    with an_application_in_a_transaction(database):
        if how == "interrupted":
            with time_is_up_once(database, "virtualxid"):
                migration.check()
        else:
            child = Child(run_step, migration, "check")
            wait_until(database, MAKING, there=True)
            child.kill()
            assert child.wait() == -signal.SIGKILL
        wait_until(database, MAKING, there=False)
    assert half_made(database) != []
    assert migration.all()["verdict"] == "identical"
    assert half_made(database) == []
    assert database.rows("SELECT count(*) FROM pg_indexes WHERE indexname ~ 'thread_id_idx'") == [
        (3,)
    ]


def test_two_setups_do_not_meet(database: Database, migration: Migration) -> None:
    """The second one is told at once, and is no second session that waits for the application."""
    with an_application_in_a_transaction(database):
        child = Child(run_step, migration, "check")
        wait_until(database, MAKING, there=True)
        began = time.monotonic()
        with pytest.raises(TargetBusy, match="somebody else is making") as busy:
            migration.check()
        assert busy.value.transient
        assert time.monotonic() - began < SOON
        child.kill()
        child.wait()
        wait_until(database, MAKING, there=False)
    assert migration.all()["verdict"] == "identical"
    assert half_made(database) == []


def test_an_application_that_does_not_end_its_transaction_is_waited_for_with_a_bound(
    database: Database, migration: Migration
) -> None:
    """Transient, and what it says of the target is true: what was made so far stays."""
    with an_application_in_a_transaction(database), pytest.raises(TargetBusy) as busy:
        migration.check()
    assert "What setup() has done so far stays" in busy.value.safe
    assert migration.all()["verdict"] == "identical"
    assert half_made(database) == []
