"""The server is restarted at the worst moments: the run recovers, and nothing is promoted short."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from include.checkpoint_migration.errors import StagingLost, TargetUnreachable, VerificationFailed
from include.checkpoint_migration.promotion.transaction import promote_staged
from scripts import postgres_server
from tests.support import postgres as pg
from tests.support.faults import (
    PROMOTING,
    LoseAnswer,
    Once,
    Proxy,
    Rows,
    Trial,
    die_at_exchange,
    killed,
    load_one,
    plan,
    receipts,
    staged_rows,
)

FAST, CRASH = "fast", "immediate"


@pytest.fixture(scope="session")
def own_server() -> Iterator[postgres_server.Server]:
    with pg.own_server() as server:
        yield server


@pytest.fixture
def database(own_server: postgres_server.Server) -> Iterator[pg.Database]:
    """A database on a server that these tests may restart."""
    with pg.TestServer(own_server.uri()).database() as database:
        yield database


@pytest.fixture
def trial(database: pg.Database, source: Path, tmp_path: Path, expected: Rows) -> Trial:
    return Trial(database, source, tmp_path / "exports", expected)


def restart(server: postgres_server.Server, mode: str) -> None:
    """`fast` ends every session in good order; `immediate` is a crash that unlogged tables lose."""
    postgres_server.restart(server.folder, mode=mode, settings=pg.SETTINGS)


def interrupted(rule: Once | LoseAnswer, work: Callable[[], Any]) -> None:
    """Do work that the rule interrupts; go on when the server is there again."""
    try:
        work()
    finally:
        assert rule.finished.wait(60)


@pytest.mark.parametrize(
    "mode",
    [
        FAST,
        CRASH,
    ],
)
def test_a_restart_in_copy_is_transient_and_the_next_try_loads(
    trial: Trial, proxy: Proxy, own_server: postgres_server.Server, mode: str
) -> None:
    """A batch whose server goes away is tried again, and what else staging lost comes back."""
    exports, [first, second, *others] = plan(trial.migration)
    load_one(trial.migration, first)
    proxy.rule = Once(lambda _: restart(own_server, mode), after=b"COPY ", bytes_=700)
    with trial.fails(TargetUnreachable, transient=True):
        interrupted(proxy.rule, lambda: load_one(trial.through(proxy.dsn), second))
    for load in (second, *others):
        load_one(trial.migration, load)
    trial.go_on(exports)


def test_a_run_recovers_from_a_crash_in_copy_when_batches_are_planned_again(
    trial: Trial, proxy: Proxy, own_server: postgres_server.Server
) -> None:
    """Cleared from plan_batches on, as the error says, the run loads all of it again."""
    exports, [first, second, *_] = plan(trial.migration)
    load_one(trial.migration, first)
    proxy.rule = Once(lambda _: restart(own_server, CRASH), after=b"COPY ", bytes_=700)
    with trial.fails(TargetUnreachable, transient=True):
        interrupted(proxy.rule, lambda: load_one(trial.through(proxy.dsn), second))
    trial.go_on(exports, load=True)


@pytest.mark.parametrize("mode", [FAST, CRASH])
def test_staging_that_a_restart_lost_is_loaded_again_before_promote(
    trial: Trial, own_server: postgres_server.Server, mode: str
) -> None:
    """Receipts outlive a crash and unlogged rows do not: it is noticed, and all is loaded again."""
    trial.migration.to_staging()
    restart(own_server, mode)
    assert len(receipts(trial.database)) == 3
    lost = staged_rows(trial.database, trial.migration) == 0
    assert lost is (mode == CRASH)
    trial.holds()
    trial.go_on()


def test_lost_staging_is_never_promoted_short(
    trial: Trial, own_server: postgres_server.Server
) -> None:
    """The promoting transaction itself compares staging with the receipts."""
    trial.migration.to_staging()
    restart(own_server, CRASH)
    with trial.fails(StagingLost):
        promote_staged(trial.migration.connect, trial.migration.run.settings)
    assert trial.live() == "before"
    trial.go_on()


def test_staging_that_lost_rows_of_one_table_is_never_promoted_short(trial: Trial) -> None:
    """Rows that somebody took out of staging are missed, whichever table they were in."""
    trial.migration.to_staging()
    schema = trial.migration.run.settings.staging_schema
    for name in ("checkpoint_blobs", "checkpoint_writes", "checkpoints"):
        with trial.database.connect(autocommit=False) as conn:
            conn.execute(
                f"CREATE TABLE {schema}.kept AS SELECT * FROM {schema}.{name} LIMIT 1".encode()
            )
            taken = f"DELETE FROM {schema}.{name} WHERE ctid IN (SELECT ctid FROM {schema}.{name} LIMIT 1)"
            conn.execute(taken.encode())
            conn.commit()
            with trial.fails(StagingLost):
                trial.migration.promote()
            conn.execute(f"INSERT INTO {schema}.{name} SELECT * FROM {schema}.kept".encode())
            conn.execute(f"DROP TABLE {schema}.kept".encode())
    trial.go_on()


@pytest.mark.parametrize("mode", [FAST, CRASH])
@pytest.mark.parametrize("table", ["checkpoint_blobs", "checkpoint_writes"])
def test_a_restart_in_promote_leaves_live_as_it_was(
    trial: Trial, proxy: Proxy, own_server: postgres_server.Server, mode: str, table: str
) -> None:
    """A promote whose server goes away is transient; the next try makes all of it live."""
    trial.migration.to_staging()
    word = f'INSERT INTO "public"."{table}"'.encode()
    proxy.rule = Once(lambda _: restart(own_server, mode), word=word)
    with trial.fails(TargetUnreachable, transient=True):
        interrupted(proxy.rule, trial.through(proxy.dsn).promote)
    assert trial.live() == "before"
    trial.go_on()


@pytest.mark.parametrize("mode", [FAST, CRASH])
def test_a_restart_right_after_the_promoting_commit_leaves_it_done(
    trial: Trial, proxy: Proxy, own_server: postgres_server.Server, mode: str
) -> None:
    """What was committed and not answered is live; the next try finds it and does nothing."""
    trial.migration.to_staging()
    proxy.rule = LoseAnswer(after=PROMOTING, act=lambda _: restart(own_server, mode))
    with trial.fails(TargetUnreachable, transient=True):
        interrupted(proxy.rule, trial.through(proxy.dsn).promote)
    assert trial.live() == "after"
    assert trial.migration.promote().already_done


@pytest.mark.parametrize(
    "mode",
    [
        FAST,
        CRASH,
    ],
)
def test_a_restart_after_promote_does_not_keep_the_witness_from_its_verdict(
    trial: Trial, own_server: postgres_server.Server, mode: str
) -> None:
    """The witness compares live with staging, and brings staging back where a crash emptied it."""
    trial.migration.to_staging()
    trial.migration.promote()
    restart(own_server, mode)
    trial.migration.witness()
    report = trial.migration.conclude()
    trial.concluded(report)


def witness_killed_at_exchange(trial: Trial, number: int) -> None:
    die_at_exchange(number, sent=True)
    trial.migration.witness()


@pytest.mark.parametrize("number", [12, 36, 42, 48, 54])
def test_a_witness_killed_while_it_brings_staging_back_is_taken_up_again(
    trial: Trial, own_server: postgres_server.Server, number: int
) -> None:
    """Half of staging is never taken for all of it: the next try brings back the rest."""
    trial.migration.to_staging()
    trial.migration.promote()
    restart(own_server, CRASH)
    assert killed(witness_killed_at_exchange, trial, number)
    trial.migration.witness()
    trial.concluded(trial.migration.conclude())


def test_what_promote_kept_is_known_after_a_crash(
    trial: Trial, own_server: postgres_server.Server
) -> None:
    """What `on_conflict: keep` left out is told the same, whatever staging went through since."""
    trial.migration.all()
    trial.database.execute(
        """UPDATE checkpoints SET metadata = metadata || '{"x": 1}' WHERE thread_id = 'anna'"""
        " AND checkpoint_id = (SELECT min(checkpoint_id) FROM checkpoints WHERE thread_id = 'anna')"
    )
    told = []
    for crash in (False, True):
        params = {**trial.migration.params, "on_conflict": "keep"}
        migration = replace(trial.migration, params=params, run_id=f"keep-{crash}")
        migration.to_staging()
        assert migration.promote().kept == 1
        if crash:
            restart(own_server, CRASH)
        with pytest.raises(VerificationFailed):
            migration.witness()
        report = migration.conclude()
        told.append((report["counts"], report["sentence"], report["differences"]))
    assert told[0] == told[1]


def test_a_run_that_is_done_needs_no_staging(
    trial: Trial, own_server: postgres_server.Server
) -> None:
    """A crash after the end changes nothing: live tables are logged, and so is the ledger."""
    trial.last_try()
    restart(own_server, CRASH)
    assert trial.live() == "after"
    assert trial.migration.all()["verdict"] == "identical"
