"""What load_batch says of batches that an earlier try loaded, and of those that it loads itself."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from include import checkpoint_migration as engine
from include.checkpoint_migration.run import records
from tests.support.engine import Migration
from tests.support.postgres import Database


def last_lines(migration: Migration) -> list[str]:
    return [line for line in migration.log if line.startswith("loaded ")]


def test_a_batch_with_a_receipt_is_not_said_to_be_loaded(
    small_sample: Path, database: Database, tmp_path: Path
) -> None:
    """A try that finds receipts tells what it loaded and what it found apart, and has no other's rate."""
    migration = Migration(
        database.dsn,
        small_sample,
        tmp_path / "exports",
        {"batch_size": 10},
        max_export_tasks=1,
        max_load_tasks=1,
    )
    migration.check()
    migration.freeze()
    [load] = engine.plan_batches(migration.run, migration.export())
    [batches] = load.batches
    total = 80
    first = engine.Load(load.index, load.label, (replace(batches, count=3),))
    engine.load_batch(migration.run, first)
    assert last_lines(migration)[-1].startswith("loaded 30 checkpoints in ")

    engine.load_batch(migration.run, load)
    assert last_lines(migration)[-1].startswith(f"loaded {total - 30} checkpoints in ")
    assert last_lines(migration)[-1].endswith(" · 30 found loaded before")
    [entry] = migration.run.journal.entries(records.LoadBatch)
    assert entry.record.moved == total - 30

    engine.load_batch(migration.run, load)
    assert last_lines(migration)[-1].startswith("loaded 0 checkpoints in ")
    assert last_lines(migration)[-1].endswith(f" · {total} found loaded before")
    [entry] = migration.run.journal.entries(records.LoadBatch)
    assert entry.record.moved is None
