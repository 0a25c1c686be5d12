"""A pooler in transaction mode, its few server connections shared with others who are busy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver

from include.checkpoint_migration.errors import TargetNotReady
from tests.support.faults import Trial, go_on, grow, live_rows
from tests.support.pooler import busy, pooler
from tests.support.postgres import Database
from tests.support.stores import sqlite_store, write_many
from tests.support.undoing import Undo

ROUNDS = 3


@pytest.fixture
def pooled(database: Database) -> Iterator[str]:
    with pooler(database) as dsn:
        yield dsn


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_a_whole_migration_passes_a_busy_pooler(trial: Trial, pooled: str, round_: int) -> None:
    """Nothing of a transaction is left to the session: whatever others leave there does no harm."""
    with busy(pooled) as done:
        report = trial.through(pooled).all()
        assert all(done), done
    assert report["verdict"] == "identical"
    trial.concluded(report)


def test_a_pool_of_one_is_enough(trial: Trial, database: Database) -> None:
    """Promote has the one server connection, and does without the look that it would take a second for."""
    with sqlite_store(trial.source) as store:
        write_many(store, 5)
    with pooler(database, default_pool_size=1, query_wait_timeout=1) as dsn:
        assert trial.through(dsn).all()["verdict"] == "identical"


def test_a_pool_of_one_is_enough_where_live_was_pruned(trial: Trial, database: Database) -> None:
    """Whether a row was removed on purpose is asked while no transaction of the read-back is open."""
    grow(trial.source, "anna", 3)
    with pooler(database, default_pool_size=1, query_wait_timeout=1) as dsn:
        assert trial.through(dsn).all()["verdict"] == "identical"
        with PostgresSaver.from_conn_string(database.dsn) as saver:
            saver.prune(["anna"], strategy="keep_latest")
        report = replace(trial.another("again"), dsn=dsn).all()
    assert report["verdict"] == "identical"
    assert [w["kind"] for w in report["warnings"]].count("removed_on_target") == 1


def test_an_undo_passes_a_busy_pooler(trial: Trial, pooled: str, database: Database) -> None:
    """Its notes are temporary tables of one transaction: nothing of them is left to a session."""
    trial.migration.all()
    with busy(pooled) as done:
        report = Undo(pooled, trial.exports, trial.run_id).all()
        assert all(done), done
    assert report["outcome"] == "undone"
    assert not any(live_rows(database.dsn).values())


def test_everything_that_asks_the_target_passes_a_busy_pooler(
    trial: Trial, pooled: str, database: Database
) -> None:
    """A second run over live rows, with long keys to try and metadata to restore, does so as well."""
    with SqliteSaver.from_conn_string(str(trial.source)) as saver:
        for name in ("anna", "l" * 2_000):
            go_on(saver, name)
        metadata = b'{"source": "loop", "step": 1, "said": "a\\u0000b"}'
        saver.conn.execute(
            "UPDATE checkpoints SET metadata = ? WHERE thread_id = 'bert'", (metadata,)
        )
        saver.conn.commit()
    for number in range(2):
        migration = trial.another(
            f"run {number}", on_blocker="sanitize", threads=["anna", "bert", "l*"]
        )
        with busy(pooled) as done:
            assert replace(migration, dsn=pooled).all()["verdict"] == "identical"
            assert all(done), done


def test_a_migration_makes_its_tables_through_a_pooler_and_brings_young_ones_up_to_date(
    trial: Trial, pooled: str, database: Database
) -> None:
    """What one transaction can hold is done in one, in the right schema whatever others have set."""
    database.execute("CREATE SCHEMA chat")
    for version in (None, 8):
        if version:
            database.execute("ALTER TABLE chat.checkpoint_writes DROP COLUMN task_path")
            database.execute("DELETE FROM chat.checkpoint_migrations WHERE v > %s", version)
        migration = replace(trial.another(f"at {version}", target_schema="chat"), dsn=pooled)
        with busy(pooled):
            migration.check()
    assert database.rows("SELECT max(v) FROM chat.checkpoint_migrations") == [(9,)]
    assert database.rows(
        "SELECT DISTINCT schemaname FROM pg_tables WHERE tablename ~ '^checkpoint'"
    ) == [("chat",)]


def test_tables_that_need_a_session_of_their_own_are_refused_behind_a_pooler(
    trial: Trial, pooled: str, database: Database
) -> None:
    """An index that is built beside the application needs one: said before anything is altered."""
    trial.migration.check()
    database.execute("DELETE FROM public.checkpoint_migrations WHERE v > 5")
    with busy(pooled), pytest.raises(TargetNotReady, match="pooler"):
        trial.through(pooled).check()
    assert database.rows("SELECT max(v) FROM public.checkpoint_migrations") == [(5,)]
