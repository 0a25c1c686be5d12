"""`verify: counts`, the one mode in which a run succeeds without a proof."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from include.checkpoint_migration import MigrationError
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
