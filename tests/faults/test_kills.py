"""A run killed at any point ends, tried again, as one that was never killed."""

from __future__ import annotations

import signal

import pytest

from tests.support.faults import (
    PROMOTING,
    TO_SERVER,
    Child,
    LoseAnswer,
    Once,
    Proxy,
    Trial,
    killed,
    load_one,
    plan,
    promote_killed_at_exchange,
    receipts,
    run_step,
    staged_rows,
    step_killed_at_byte,
)

TEMPORARY = ".tmp-"


def test_an_export_killed_at_any_byte_leaves_temporary_files_only(trial: Trial) -> None:
    """A killed export leaves nothing under a final name, and the next try is clean."""
    migration = trial.migration
    migration.check()
    migration.freeze()
    [export] = migration.export()
    folder = migration.folder
    final = {"0000.jsonl.zst", "0000.manifest.json"}
    length, claimed = sorted(((folder / name).stat().st_size for name in final), reverse=True)
    swept = 0
    for limit in (*range(0, length, length // 16), claimed - 1, length - 1):
        for name in final:
            (folder / name).unlink(missing_ok=True)
        assert killed(step_killed_at_byte, migration, "export_one", (), limit)
        swept += 1
        assert not final & {path.name for path in folder.iterdir()}, limit
        [left] = [path for path in folder.iterdir() if path.name.startswith(TEMPORARY)]
        assert left.stat().st_size == limit
        assert left.stat().st_mode & 0o077 == 0
        trial.holds()
        migration.run.folder.sweep()
    assert swept >= 18
    report = trial.last_try()
    assert report["counts"]["checkpoints"]["exported"] == export.counts.checkpoints


def test_a_batch_killed_in_copy_leaves_neither_rows_nor_a_receipt(
    trial: Trial, proxy: Proxy
) -> None:
    """Wherever in its stream a batch is killed, it is not there; tried again, it is there once."""
    exports, [first, *others] = plan(trial.migration)
    load_one(trial.through(proxy.dsn), first)
    [stream] = [bytes(k.seen[TO_SERVER]) for k in proxy.links if b"COPY " in k.seen[TO_SERVER]]
    size = stream.index(b"COMMIT\0") - stream.index(b"COPY ")
    with trial.database.connect() as conn:
        for name in ("checkpoints", "checkpoint_blobs", "checkpoint_writes"):
            conn.execute(f"TRUNCATE {trial.migration.run.settings.staging_schema}.{name}".encode())
        conn.execute("TRUNCATE checkpoint_migration.batches")
    swept = 0
    for point in range(1, size, size // 20):
        started: list[Child] = []
        proxy.rule = Once(lambda _: started[0].kill(), after=b"COPY ", bytes_=point)  # noqa: B023
        started.append(Child(load_one, trial.through(proxy.dsn), first))
        assert started[0].wait() == -signal.SIGKILL
        assert receipts(trial.database) == []
        assert staged_rows(trial.database, trial.migration) == 0
        trial.holds()
        swept += 1
    assert swept >= 20
    assert [receipt.already_done for receipt in load_one(trial.migration, first)] == [False]
    assert len(receipts(trial.database)) == 1
    for load in others:
        load_one(trial.migration, load)
    trial.go_on(exports)


def test_a_batch_killed_after_its_commit_is_not_loaded_again(trial: Trial, proxy: Proxy) -> None:
    """The receipt that was committed with the rows speaks for a task that did not live to say so."""
    exports, [first, *others] = plan(trial.migration)
    started: list[Child] = []
    proxy.rule = LoseAnswer(after=b"COPY ", act=lambda _: started[0].kill())
    started.append(Child(load_one, trial.through(proxy.dsn), first))
    assert started[0].wait() == -signal.SIGKILL
    assert len(receipts(trial.database)) == 1
    staged = staged_rows(trial.database, trial.migration)
    assert staged > 0
    assert [receipt.already_done for receipt in load_one(trial.migration, first)] == [True]
    assert staged_rows(trial.database, trial.migration) == staged
    trial.holds()
    for load in others:
        load_one(trial.migration, load)
    trial.go_on(exports)


@pytest.mark.parametrize("sent", [False, True], ids=["before", "sent"])
def test_promote_killed_at_any_statement_is_all_or_nothing(trial: Trial, sent: bool) -> None:
    """Killed before any statement, or with it on its way, promote left live as before or as after."""
    exports = trial.migration.to_staging()
    states, number = [], 1
    while killed(promote_killed_at_exchange, trial.migration, number, sent):
        states.append(trial.live())
        if number % 10 == 0:
            trial.holds()
        number += 1
    assert states.count("before") >= 30
    assert states == sorted(states, reverse=True), "live went back"
    assert trial.live() == "after"
    assert trial.migration.promote().already_done
    trial.go_on(exports)


def test_promote_killed_after_its_commit_is_not_done_again(trial: Trial, proxy: Proxy) -> None:
    """Killed between COMMIT and success, the next try finds all of it live and does nothing."""
    trial.migration.to_staging()
    started: list[Child] = []
    proxy.rule = LoseAnswer(after=PROMOTING, act=lambda _: started[0].kill())
    started.append(Child(run_step, trial.through(proxy.dsn), "promote"))
    assert started[0].wait() == -signal.SIGKILL
    trial.holds()
    assert trial.live() == "after"
    again = trial.migration.promote()
    assert again.already_done
    assert again.inserted.checkpoints == len(trial.expected["checkpoints"])
    trial.go_on()
