"""`verify: counts`, the one mode in which a run succeeds without a proof."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from include.checkpoint_migration import MigrationError
from include.checkpoint_migration.errors import VerificationFailed
from tests.support.engine import Migration

FIXTURE = Path(__file__).parent.parent / "fixtures" / "checkpoint-sqlite-3.1.2.sqlite"


@pytest.fixture
def migration(run_on: Callable[..., Migration], tmp_path: Path) -> Migration:
    source = tmp_path / "source.sqlite"
    shutil.copy(FIXTURE, source)
    source.chmod(0o644)
    return run_on(source, {"threads": ["simple"], "verify": "counts"})


def test_it_succeeds_and_says_that_nothing_is_proven(migration: Migration) -> None:
    """The run is green, its verdict `unproven`."""
    report = migration.all()
    assert report["succeeded"]
    assert report["verdict"] == "unproven"
    assert report["counts"]["checkpoints"]["live"] == 8


def test_it_is_not_green_where_the_record_of_promote_is_gone(migration: Migration) -> None:
    """A witness that does not know what was promoted fails instead of counting nothing."""
    migration.to_staging()
    migration.promote()
    (migration.folder / "steps" / "promote.json").unlink()
    with pytest.raises(MigrationError, match="records of this run's earlier steps"):
        migration.witness()
    assert not migration.conclude()["succeeded"]


def test_what_staging_holds_is_counted_and_not_claimed(migration: Migration) -> None:
    """A row that vanished from staging shows, although nothing but counts is compared."""
    migration.check()
    migration.freeze()
    exports = migration.export()
    migration.load(exports)
    with migration.connect() as conn:
        staging = migration.run.settings.staging_schema
        conn.execute(f"DELETE FROM {staging}.checkpoint_writes WHERE idx = 0".encode())
    with pytest.raises(VerificationFailed, match="staging holds 8 checkpoints"):
        migration.verify(exports)
    report = migration.conclude()
    assert (report["verdict"], report["succeeded"]) == ("different", False)
    staged, exported = (report["counts"]["writes"][stage] for stage in ("staged", "exported"))
    assert staged is None
    assert exported > 0


def test_counts_of_staging_are_reported_before_promote(migration: Migration) -> None:
    """They are those that the server counted, shard by shard."""
    migration.to_staging()
    counts = migration.conclude()["counts"]
    assert counts["checkpoints"]["staged"] == counts["checkpoints"]["exported"] == 8
    assert counts["blobs"]["staged"] == counts["blobs"]["exported"] > 0
