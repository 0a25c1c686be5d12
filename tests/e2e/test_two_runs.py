"""Two runs on the same tables: one works, the other is told; a dead one is taken over at once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from include.checkpoint_migration import owner_of_process
from include.checkpoint_migration.errors import AnotherRunIsAlive, MigrationError, RunSuperseded
from include.checkpoint_migration.run import lease, ledger, records
from tests.support.engine import Migration
from tests.support.faults import (
    Before,
    Child,
    LoseAnswer,
    Once,
    Proxy,
    live_rows,
    load_one,
    plan,
    staging_schemas,
    wait_for_a_lock,
    write_source,
)
from tests.support.postgres import Database

IMPATIENT = 0.2


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "app.sqlite")


def try_to_acquire(migration: Migration) -> ledger.RunRow:
    """As check_schema does, without waiting for long."""
    return lease.acquire(
        migration.connect, migration.run.settings, owner=migration.owner, patience=IMPATIENT
    )


def lapse(database: Database) -> None:
    """Let time pass: whoever has the lease has given no sign of life for long."""
    database.execute("UPDATE checkpoint_migration.leases SET until = now() - interval '1 second'")


def lease_is_held(database: Database) -> bool:
    query = "SELECT until > clock_timestamp() FROM checkpoint_migration.leases"
    [(held,)] = database.rows(query)
    return bool(held)


def states(database: Database) -> dict[str, str]:
    return dict(database.rows("SELECT run_id, state FROM checkpoint_migration.runs"))


@pytest.mark.parametrize("step", ["freeze", "export", "load", "verify", "promote"])
def test_a_second_run_is_told_that_the_first_one_lives(
    run: Callable[..., Migration], database: Database, step: str
) -> None:
    """Between any two tasks of a run that lives, another is refused and the first goes on unharmed."""
    first, second = run("first"), run("second")
    told: list[str] = []

    def between(name: str) -> None:
        if name == step:
            with pytest.raises(AnotherRunIsAlive) as refused:
                try_to_acquire(second)
            assert not refused.value.transient
            told.append(refused.value.facts["other"])

    report = first.all(between)
    assert told == [first.run.settings.key]
    assert report["verdict"] == "identical"
    assert second.all()["verdict"] == "identical"
    assert states(database) == {"first": "done", "second": "done"}


def test_a_second_run_is_told_so_while_the_first_ones_witness_works(
    run: Callable[..., Migration], database: Database
) -> None:
    """A promoted run still needs its staging: nobody takes it away while that run lives."""
    first, second = run("first"), run("second")

    def between(name: str) -> None:
        if name == "witness":
            with pytest.raises(AnotherRunIsAlive):
                try_to_acquire(second)

    assert first.all(between)["verdict"] == "identical"
    assert second.all()["verdict"] == "identical"


def test_runs_on_other_tables_do_not_disturb_each_other(
    run: Callable[..., Migration], database: Database
) -> None:
    """A lease is on the live tables of one schema."""
    database.execute("CREATE SCHEMA elsewhere")
    first, second = run("first"), run("second", target_schema="elsewhere")
    first.check()
    assert second.all()["verdict"] == "identical"
    assert first.all()["verdict"] == "identical"
    assert live_rows(database.dsn) == live_rows(database.dsn, "elsewhere")


def go_on_until_killed(migration: Migration) -> None:
    """What `dags test` does: one process that carries the whole run."""
    replace(migration, owner=owner_of_process()).all()


@pytest.mark.parametrize(
    "word",
    [b"CREATE UNLOGGED TABLE", b"COPY ", b'INSERT INTO "public"."checkpoints"'],
    ids=["planning", "copying", "promoting"],
)
@pytest.mark.parametrize("again", ["first", "second"], ids=["same run", "new run"])
def test_after_kill_9_the_same_command_just_works(
    run: Callable[..., Migration], database: Database, word: bytes, again: str
) -> None:
    """A run whose process was killed is known to be dead at once: the next one does not wait."""
    started: list[Child] = []
    with Proxy(database.dsn) as proxy:
        proxy.rule = Once(lambda _: started[0].kill(), word=word)
        started.append(Child(go_on_until_killed, replace(run("first"), dsn=proxy.dsn)))
        assert started[0].wait() == -signal.SIGKILL
    assert live_rows(database.dsn)["checkpoints"] == []
    began = time.monotonic()
    assert try_to_acquire(run(again)).state == "running"
    assert time.monotonic() - began < lease.PATIENCE / 3
    report = run(again).all()
    assert report["verdict"] == "identical"
    assert staging_schemas(database) == []
    wanted = {"first": "done"} if again == "first" else {"first": "superseded", "second": "done"}
    assert states(database) == wanted


def test_a_run_that_gives_no_sign_of_life_is_taken_over(
    run: Callable[..., Migration], database: Database
) -> None:
    """Its fencing number is passed, its staging goes, and nothing of it stays."""
    first, second = run("first"), run("second")
    first.to_staging()
    lapse(database)
    second.check()
    assert states(database) == {"first": "superseded", "second": "running"}
    assert staging_schemas(database) == []
    fences = database.rows("SELECT run_id, fence FROM checkpoint_migration.runs ORDER BY fence")
    assert fences == [("first", 1), ("second", 2)]
    assert second.all()["verdict"] == "identical"


def test_a_task_that_ends_after_the_report_keeps_nobody_waiting(
    run: Callable[..., Migration], database: Database
) -> None:
    """A run that was marked as failed while a task worked is over; clearing a task goes on with it."""
    first = run("first")
    _, loads = plan(first)
    with first.run.step(records.LoadBatch, 0):
        first.conclude()
    assert lease_is_held(database) is False
    with first.run.step(records.LoadBatch, 0):
        assert lease_is_held(database)
    assert lease_is_held(database)
    load_one(first, loads[0])
    first.conclude()
    assert run("second").all()["verdict"] == "identical"


def test_a_zombie_has_no_effect_in_any_step(
    run: Callable[..., Migration], database: Database
) -> None:
    """Whatever a run that was taken over still does, it commits nothing and disturbs nobody."""
    zombie, second = run("first"), run("second")
    exports, loads = plan(zombie)
    load_one(zombie, loads[0])
    lapse(database)
    second.to_staging()
    mine = live_rows(database.dsn, second.run.settings.staging_schema)
    for step in (
        lambda: load_one(zombie, loads[1]),
        lambda: zombie.load(exports),
        lambda: zombie.verify(exports),
        zombie.promote,
    ):
        with pytest.raises(MigrationError) as refused:
            step()
        assert not refused.value.transient
        assert live_rows(database.dsn)["checkpoints"] == []
    report = zombie.conclude()
    assert not report["succeeded"]
    assert report["verdict"] == "unproven"
    assert states(database) == {"first": "superseded", "second": "running"}
    assert live_rows(database.dsn, second.run.settings.staging_schema) == mine
    assert staging_schemas(database) == [second.run.settings.staging_schema]
    with pytest.raises(AnotherRunIsAlive):
        try_to_acquire(run("third"))
    second.promote()
    second.witness()
    assert second.conclude()["verdict"] == "identical"


def test_a_zombies_promote_after_a_takeover_is_refused_by_the_ledger(
    run: Callable[..., Migration], database: Database
) -> None:
    """With its staging still whole, it is the fencing alone that keeps a zombie from going live."""
    from include.checkpoint_migration.promotion.transaction import promote_staged

    zombie = run("first")
    zombie.to_staging()
    database.execute("UPDATE checkpoint_migration.runs SET state = 'superseded'")
    with pytest.raises(RunSuperseded):
        promote_staged(zombie.connect, zombie.run.settings)
    with pytest.raises(RunSuperseded):
        zombie.promote()
    assert live_rows(database.dsn)["checkpoints"] == []


def test_a_takeover_during_promote_waits_for_its_end(
    run: Callable[..., Migration], database: Database, tmp_path: Path
) -> None:
    """Whoever holds the ledger's row commits first: the newer run then finds its rows live."""
    first, second = run("first"), run("second")
    first.to_staging()
    newer = threading.Thread(target=second.check)

    def begin() -> None:
        lapse(database)
        newer.start()
        wait_for_a_lock(database)

    with Proxy(database.dsn) as proxy:
        proxy.rule = Before(b'INSERT INTO "public"."checkpoints"', begin)
        promotion = replace(first, dsn=proxy.dsn).promote()
    newer.join(30)
    assert not promotion.already_done
    report = second.all()
    assert report["verdict"] == "identical"
    counts = report["counts"]["checkpoints"]
    assert counts["live"] == promotion.inserted.checkpoints


def test_a_takeover_that_was_cut_short_still_clears_the_old_staging(
    run: Callable[..., Migration], database: Database
) -> None:
    """Nothing of a run that was taken over is left, whenever the one that took over was interrupted."""
    run("first").to_staging()
    lapse(database)
    second = run("second")
    with Proxy(database.dsn) as proxy:
        proxy.rule = LoseAnswer(after=b"INSERT INTO checkpoint_migration.leases")
        with pytest.raises(MigrationError) as cut:
            replace(second, dsn=proxy.dsn).check()
        assert cut.value.transient
    assert second.all()["verdict"] == "identical"
    assert staging_schemas(database) == []
