"""What is said of live after a COMMIT whose task did not end well: never that nothing happened."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from include import checkpoint_migration as engine
from include.checkpoint_migration.errors import MigrationError, StorageRefused
from tests.support.engine import Migration, rows
from tests.support.faults import LoseAnswer, Proxy
from tests.support.postgres import Database
from tests.support.undoing import UNDOING, Undo, dump

AS_IT_WAS = "exactly as they were"


@pytest.fixture
def staged(database: Database, source: Path, tmp_path: Path) -> Migration:
    """A run that is ready for promote."""
    migration = Migration(database.dsn, source, tmp_path / "exports", {"batch_size": 5})
    migration.to_staging()
    return migration


def test_a_promote_that_died_after_its_commit_is_told_as_live(
    database: Database, staged: Migration
) -> None:
    """Killed before it could keep what it did: the ledger is asked, and an undo is named."""
    staged.promote()
    (staged.folder / "steps" / "promote.json").unlink()
    report = staged.conclude()
    assert rows(database.dsn)["checkpoints"]
    assert AS_IT_WAS not in report["sentence"]
    assert "live" in report["sentence"]


def test_a_promote_that_cannot_keep_its_record_does_not_deny_its_commit(
    database: Database, staged: Migration
) -> None:
    """Its transaction is committed, and the folder does not take the note of it."""
    (staged.folder / "steps" / "promote.json").mkdir()
    with pytest.raises(StorageRefused) as refused:
        staged.promote()
    assert rows(database.dsn)["checkpoints"]
    assert "as promote left it" in refused.value.safe


def test_a_witness_that_cannot_read_does_not_say_that_live_is_untouched(
    database: Database, staged: Migration
) -> None:
    """Whatever is in its way comes after promote."""
    staged.promote()
    (staged.folder / "source.sqlite").unlink()
    with pytest.raises(MigrationError) as failed:
        staged.witness()
    assert rows(database.dsn)["checkpoints"]
    assert "as promote left it" in failed.value.safe


def test_an_undo_that_may_be_done_is_not_denied_by_the_tries_after_it(
    database: Database, source: Path, tmp_path: Path, proxy: Proxy
) -> None:
    """The answer to its COMMIT was lost, and the server stays away: whether it is done is not known."""
    migration = Migration(database.dsn, source, tmp_path / "exports", {"batch_size": 5})
    migration.all()
    undo = Undo.of(migration)
    proxy.rule = LoseAnswer(after=UNDOING)
    with pytest.raises(engine.TargetUnreachable):
        replace(undo, dsn=proxy.dsn).all()
    away = replace(undo, dsn="postgresql://nobody@127.0.0.1:1/none?connect_timeout=2")
    with pytest.raises(engine.TargetUnreachable):
        away.all()
    assert not dump(database.dsn)["checkpoints"]
    assert "is not known" in undo.report["sentence"]
    assert undo.all()["outcome"] == "nothing"


def test_an_undo_that_cannot_write_its_report_does_not_deny_its_commit(
    database: Database, source: Path, tmp_path: Path
) -> None:
    """It is committed before `undo.json` is written."""
    migration = Migration(database.dsn, source, tmp_path / "exports", {"batch_size": 5})
    migration.all()
    undo = Undo.of(migration)
    (undo.folder / "undo.json").mkdir(parents=True, mode=0o700)
    undo.folder.chmod(0o700)
    with pytest.raises(StorageRefused) as refused:
        undo.all()
    assert not dump(database.dsn)["checkpoints"]
    assert "before or as after the undo" in refused.value.safe


def test_a_report_that_no_folder_takes_does_not_say_that_live_is_untouched(
    database: Database, staged: Migration
) -> None:
    """Its rows are live, whether or not anybody could write that down."""
    staged.promote()
    staged.witness()
    for name in ("report.json", "report.html"):
        (staged.folder / name).mkdir()
    with pytest.raises(StorageRefused) as refused:
        staged.conclude()
    assert rows(database.dsn)["checkpoints"]
    assert "as promote left it" in refused.value.safe
