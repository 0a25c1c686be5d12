"""A task that is told to stop, or killed, while the server works for it: the server stops as well."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.faults import Child, Trial, grow, plan, run_step
from tests.support.interrupts import SOON, WAITING, time_is_up_once, wait_until
from tests.support.postgres import Database

AS_THEY_WERE = "exactly as they were"
WAITS = f"{WAITING} AND wait_event = 'transactionid'"


@contextmanager
def a_key_is_being_written(trial: Trial) -> Iterator[None]:
    """The application has inserted a row of ours and not committed yet: promote waits for it."""
    staging = trial.migration.run.settings.staging_schema
    with trial.database.connect(autocommit=False) as application:
        application.execute(
            "INSERT INTO public.checkpoint_blobs"
            " (thread_id, checkpoint_ns, channel, version, type, blob)"
            f" SELECT thread_id, checkpoint_ns, channel, version, type, blob"
            f" FROM {staging}.checkpoint_blobs LIMIT 1".encode()
        )
        yield
        application.rollback()


def test_a_promote_whose_time_is_up_stops_at_the_server_too(trial: Trial) -> None:
    """Its statement is cancelled: it neither works on nor holds a lock, and the next try promotes."""
    trial.migration.to_staging()
    with a_key_is_being_written(trial):
        with time_is_up_once(trial.database, "transactionid"):
            trial.migration.promote()
        wait_until(trial.database, WAITS, there=False)
    trial.holds()
    assert trial.live() == "before"
    trial.go_on()


def test_a_killed_promote_stops_at_the_server_too(trial: Trial) -> None:
    """Nobody could tell the server, which notices within seconds that nobody waits for its answer."""
    trial.migration.to_staging()
    with a_key_is_being_written(trial):
        child = Child(run_step, trial.migration, "promote")
        wait_until(trial.database, WAITS, there=True)
        child.kill()
        assert child.wait() == -signal.SIGKILL
        wait_until(trial.database, WAITS, there=False)
    trial.holds()
    assert trial.live() == "before"
    trial.go_on()


@contextmanager
def slow_commits(database: Database, seconds: int) -> Iterator[None]:
    """A team's constraint, looked at when a transaction is committed, takes its time."""
    database.execute(
        "CREATE FUNCTION public.rest() RETURNS trigger LANGUAGE plpgsql AS"
        f" 'BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END'"
    )
    database.execute(
        "CREATE CONSTRAINT TRIGGER rest AFTER INSERT ON public.checkpoints DEFERRABLE INITIALLY"
        " DEFERRED FOR EACH ROW WHEN (NEW.parent_checkpoint_id IS NULL AND NEW.thread_id = 'anna')"
        " EXECUTE FUNCTION public.rest()"
    )
    yield
    database.execute("DROP FUNCTION public.rest() CASCADE")


def killed_in_commit(trial: Trial) -> None:
    child = Child(run_step, trial.migration, "promote")
    committing = f"{WAITING} AND wait_event = 'PgSleep' AND query = 'COMMIT'"
    wait_until(trial.database, committing, there=True)
    child.kill()
    child.wait()


def test_a_promote_whose_time_is_up_in_its_commit_is_told_as_it_ends(trial: Trial) -> None:
    """The COMMIT is cancelled, and the report says what came of it."""
    trial.migration.check()
    with slow_commits(trial.database, 60):
        trial.migration.to_staging()
        with time_is_up_once(trial.database, "PgSleep"):
            trial.migration.promote()
        report = trial.migration.conclude()
        assert trial.live() == "before"
        assert AS_THEY_WERE in report["sentence"]


def test_a_promote_killed_in_its_commit_is_told_as_it_ends(trial: Trial) -> None:
    """The COMMIT goes on by itself: the report waits for it, and does not deny it."""
    trial.migration.check()
    with slow_commits(trial.database, 3):
        trial.migration.to_staging()
        killed_in_commit(trial)
        report = trial.migration.conclude()
        assert trial.live() == "after"
        assert AS_THEY_WERE not in report["sentence"]


def test_a_promote_killed_in_its_commit_is_not_denied_by_the_next_try(trial: Trial) -> None:
    """Before it says a word of live, it waits until the COMMIT of the last one has ended."""
    trial.migration.check()
    with slow_commits(trial.database, 3):
        trial.migration.to_staging()
        killed_in_commit(trial)
        grow(trial.source, "anna")  # another try of promote would refuse that, were it the first
        assert trial.migration.promote().already_done
        assert trial.live() == "after"


def test_a_verification_whose_time_is_up_does_not_wait_for_its_rows(trial: Trial) -> None:
    """They are read in a thread of their own, whose statement is cancelled."""
    migration = trial.migration
    exports, _ = plan(migration)
    migration.load(exports)
    with trial.database.connect(autocommit=False) as holder:
        staging = migration.run.settings.staging_schema
        holder.execute(f"LOCK TABLE {staging}.checkpoint_writes".encode())
        began = time.monotonic()
        with time_is_up_once(trial.database, "relation"):
            migration.verify(exports)
        assert time.monotonic() - began < SOON
        holder.rollback()
    trial.go_on(exports)


def test_a_witness_whose_time_is_up_does_not_wait_for_the_look_at_live(trial: Trial) -> None:
    """What the server compares beside the read-back is cancelled, and compared by the next try."""
    trial.migration.to_staging()
    trial.migration.promote()
    staging = trial.migration.run.settings.staging_schema
    with trial.database.connect(autocommit=False) as holder:
        holder.execute(f"LOCK TABLE {staging}.checkpoint_writes".encode())
        began = time.monotonic()
        with time_is_up_once(trial.database, "relation"):
            trial.migration.witness()
        assert time.monotonic() - began < SOON
        holder.rollback()
    trial.go_on()
