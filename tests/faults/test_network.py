"""Connections that drop, are reset, hang, or lose the answer to a COMMIT."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from include.checkpoint_migration.errors import MigrationError, TargetUnreachable
from tests.support.faults import (
    PROMOTING,
    TO_SERVER,
    Link,
    LoseAnswer,
    Once,
    Proxy,
    Trial,
    hang,
    load_one,
    plan,
    receipts,
    staged_rows,
)

MOMENTS = {
    "opening the ledger": b"CREATE SCHEMA IF NOT EXISTS",
    "making staging": b"CREATE UNLOGGED TABLE",
    "copying": b"COPY ",
    "comparing": b"DECLARE",
    "recording": b"INSERT INTO checkpoint_migration.verified",
    "promoting": b'INSERT INTO "public"."checkpoints"',
    "analyzing live": b'ANALYZE "public"."checkpoints"',
    "witnessing": b"SET TRANSACTION READ ONLY",
}


@pytest.mark.parametrize("end", [Link.drop, Link.cut], ids=["dropped", "reset"])
@pytest.mark.parametrize("word", MOMENTS.values(), ids=MOMENTS)
def test_a_connection_that_ends_is_transient(
    trial: Trial, proxy: Proxy, word: bytes, end: Callable[[Link], None]
) -> None:
    """Wherever a connection ends, the error says that another try may help, and it does."""
    proxy.rule = Once(end, word=word)
    with trial.fails(TargetUnreachable, transient=True):
        trial.through(proxy.dsn).all()
    assert proxy.rule.done.is_set()
    trial.last_try()


COMMITS = {
    "the ledger": b"CREATE SCHEMA IF NOT EXISTS",
    "staging": b"CREATE UNLOGGED TABLE",
    "a batch": b"COPY ",
    "a proof": b"INSERT INTO checkpoint_migration.verified",
    "promote": PROMOTING,
}


@pytest.mark.parametrize("word", COMMITS.values(), ids=COMMITS)
def test_a_commit_whose_answer_is_lost_is_never_done_twice(
    trial: Trial, proxy: Proxy, word: bytes
) -> None:
    """Only the ledger knows that a COMMIT came through; the next try asks it. Till then nobody is told
    that it was rolled back.
    """
    proxy.rule = LoseAnswer(after=word)
    with pytest.raises(TargetUnreachable) as lost:
        trial.through(proxy.dsn).all()
    assert lost.value.transient
    assert "committed or rolled back as a whole" in lost.value.safe
    trial.holds(lost.value)
    assert proxy.rule.done.is_set()
    assert trial.live() == ("after" if word == PROMOTING else "before")
    trial.last_try()


def test_a_batch_whose_commit_was_not_answered_is_in_staging_once(
    trial: Trial, proxy: Proxy
) -> None:
    """The next try finds the receipt and copies nothing."""
    exports, [first, *others] = plan(trial.migration)
    proxy.rule = LoseAnswer(after=b"COPY ")
    with trial.fails(TargetUnreachable, transient=True):
        load_one(trial.through(proxy.dsn), first)
    staged = staged_rows(trial.database, trial.migration)
    assert staged > 0
    assert [receipt.already_done for receipt in load_one(trial.migration, first)] == [True]
    assert staged_rows(trial.database, trial.migration) == staged
    assert len(receipts(trial.database)) == 1
    for load in others:
        load_one(trial.migration, load)
    trial.go_on(exports)


def test_a_server_that_refuses_connections_is_transient(trial: Trial, proxy: Proxy) -> None:
    """Nobody listening is no reason to give up for good."""
    with proxy:
        pass
    with trial.fails(TargetUnreachable, transient=True):
        trial.through(proxy.dsn).all()
    trial.last_try()


def test_a_hung_connection_holds_nothing_for_ever(trial: Trial, proxy: Proxy) -> None:
    """The server ends a transaction that its client forgot, and a connection that ends is transient.

    The engine itself has no deadline on this side: keep-alives of the orchestration's connections
    and the task's execution timeout end what a network swallowed.
    """
    trial.migration.to_staging()
    proxy.rule = Once(hang, word=b'INSERT INTO "public"."checkpoints"', sent=False)
    found: list[MigrationError] = []

    def work() -> None:
        try:
            trial.through(proxy.dsn).promote()
        except MigrationError as error:
            found.append(error)

    task = threading.Thread(target=work, daemon=True)
    task.start()
    assert proxy.rule.done.wait(30)
    task.join(1.0)
    assert task.is_alive(), "a deadline has come in: say so in the docstring, and check its error"
    [hung] = [link for link in proxy.links if link.hung]
    assert b'"idle_in_transaction_session_timeout" = 600000' in hung.seen[TO_SERVER]
    trial.holds()
    assert trial.live() == "before"
    hung.cut()
    task.join(20)
    [error] = found
    assert isinstance(error, TargetUnreachable)
    trial.holds(error)
    trial.go_on()
