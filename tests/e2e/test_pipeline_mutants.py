"""What a defect anywhere on the way would do to rows and files, and that the pipeline stops it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from include.checkpoint_migration import Export, MigrationError
from include.checkpoint_migration import exportfile as files
from include.checkpoint_migration.export.writer import writing
from include.checkpoint_migration.model import TargetCheckpoint, TargetWrite
from tests.support.engine import Migration, rows
from tests.support.postgres import Database

FIXTURE = Path(__file__).parent.parent / "fixtures" / "checkpoint-sqlite-3.1.2.sqlite"
THREADS = ["simple", "inplace", "forked", "delta", "interrupted", "subgraph"]
LATEST = (
    "(thread_id, checkpoint_id) IN (SELECT thread_id, max(checkpoint_id) FROM {s}.checkpoints"
    " WHERE thread_id = 'simple' GROUP BY 1)"
)


@pytest.fixture
def migration(run_on: Callable[..., Migration], tmp_path: Path) -> Migration:
    source = tmp_path / "source.sqlite"
    shutil.copy(FIXTURE, source)
    source.chmod(0o644)
    return run_on(source, {"threads": THREADS}, max_export_tasks=1, max_load_tasks=1)


# Each with its effect on the number of rows: "=" where every count stays what it was.
ROW_MUTANTS = {
    "a checkpoint is gone": ("-", "DELETE FROM {s}.checkpoints WHERE " + LATEST),
    "a write is gone": (
        "-",
        "DELETE FROM {s}.checkpoint_writes WHERE ctid = (SELECT min(ctid) FROM {s}.checkpoint_writes)",
    ),
    "a blob is gone": (
        "-",
        "DELETE FROM {s}.checkpoint_blobs WHERE thread_id = 'simple' AND channel = 'log'",
    ),
    "a blob nobody refers to": (
        "+",
        (
            "INSERT INTO {s}.checkpoint_blobs SELECT thread_id, checkpoint_ns, channel, version || '.1', type,"
            " blob FROM {s}.checkpoint_blobs WHERE thread_id = 'simple' AND channel = 'log' LIMIT 1"
        ),
    ),
    "a parent is lost": (
        "=",
        "UPDATE {s}.checkpoints SET parent_checkpoint_id = NULL WHERE " + LATEST,
    ),
    "its own parent": (
        "=",
        "UPDATE {s}.checkpoints SET parent_checkpoint_id = checkpoint_id WHERE " + LATEST,
    ),
    "metadata of another step": (
        "=",
        "UPDATE {s}.checkpoints SET metadata = jsonb_set(metadata, '{{step}}', '99') WHERE "
        + LATEST,
    ),
    "a blob of other bytes": (
        "=",
        (
            "UPDATE {s}.checkpoint_blobs SET blob = blob || '\\x00' WHERE thread_id = 'simple'"
            " AND channel = 'log'"
        ),
    ),
    "a blob of another type": (
        "=",
        "UPDATE {s}.checkpoint_blobs SET type = 'json' WHERE thread_id = 'simple' AND channel = 'log'",
    ),
    "a write of another type": (
        "=",
        "UPDATE {s}.checkpoint_writes SET type = 'bytes' WHERE thread_id = 'interrupted'",
    ),
    "writes without their task path": (
        "=",
        "UPDATE {s}.checkpoint_writes SET task_path = 'elsewhere' WHERE thread_id = 'interrupted'",
    ),
    "writes in another order": (
        "=",
        "UPDATE {s}.checkpoint_writes SET idx = idx + 1000 WHERE thread_id = 'simple'",
    ),
    "a version without its blob": (
        "=",
        "UPDATE {s}.checkpoints SET checkpoint = jsonb_set(checkpoint, '{{channel_versions,log}}', '\"1\"')"
        " WHERE " + LATEST,
    ),
    "an older version is claimed": (
        "=",
        "UPDATE {s}.checkpoints SET checkpoint = jsonb_set(checkpoint, '{{channel_versions,log}}', ("
        "SELECT c.checkpoint -> 'channel_versions' -> 'log' FROM {s}.checkpoints c WHERE c.thread_id = 'simple'"
        " AND c.checkpoint -> 'channel_versions' ? 'log' ORDER BY checkpoint_id LIMIT 1)) WHERE "
        + LATEST,
    ),
    "an inline value": (
        "=",
        "UPDATE {s}.checkpoints SET checkpoint = jsonb_set(checkpoint, '{{channel_values,log}}', '1') WHERE "
        + LATEST,
    ),
    "collided contents share one": (
        "=",
        (
            "UPDATE {s}.checkpoint_blobs b SET blob = o.blob FROM {s}.checkpoint_blobs o WHERE b.thread_id ="
            " 'inplace' AND o.thread_id = 'inplace' AND b.channel = o.channel AND b.version <> o.version"
            " AND b.blob <> o.blob"
        ),
    ),
    "an interrupt is lost from versions_seen": (
        "=",
        "UPDATE {s}.checkpoints SET checkpoint = jsonb_set(checkpoint, '{{versions_seen}}', '{{}}') WHERE "
        + LATEST,
    ),
}


def test_most_row_mutants_keep_every_count() -> None:
    """At least two thirds of the mutants change no count, so that counting alone would miss them."""
    silent = sum(effect == "=" for effect, _ in ROW_MUTANTS.values())
    assert silent * 3 >= len(ROW_MUTANTS) * 2


@pytest.mark.parametrize("name", ROW_MUTANTS)
def test_a_mutant_in_staging_never_goes_live(
    migration: Migration, database: Database, name: str
) -> None:
    """A row that is wrong in staging fails `verify_staged`, and the live tables stay empty."""
    effect, statement = ROW_MUTANTS[name]
    migration.check()
    migration.freeze()
    exports = migration.export()
    migration.load(exports)
    _mutate(database, statement, migration.run.settings.staging_schema, effect)
    with pytest.raises(MigrationError) as failure:
        migration.verify(exports)
    assert type(failure.value).__name__ == "VerificationFailed"
    report = migration.conclude()
    assert report["verdict"] == "different"
    assert report["differences"]
    assert not any(rows(database.dsn).values())


@pytest.mark.parametrize("name", ROW_MUTANTS)
def test_a_mutant_on_live_fails_the_witness(
    migration: Migration, database: Database, name: str
) -> None:
    """A live row that is not what was proven makes the verdict `different`, equal counts or not."""
    effect, statement = ROW_MUTANTS[name]
    if effect == "+":
        statement = ROW_MUTANTS["a blob of other bytes"][1]  # a row more is the application's own
    migration.to_staging()
    migration.promote()
    _mutate(database, statement, "public", effect)
    with pytest.raises(MigrationError, match="the verdict is different"):
        migration.witness()
    report = migration.conclude()
    assert report["verdict"] == "different"
    assert not report["succeeded"]
    assert report["sql"]


def _mutate(database: Database, statement: str, schema: str, effect: str) -> None:
    before = {name: len(found) for name, found in rows(database.dsn, schema).items()}
    with database.connect() as conn:
        changed = conn.execute(statement.format(s=f'"{schema}"').encode()).rowcount
    after = {name: len(found) for name, found in rows(database.dsn, schema).items()}
    assert changed > 0, "the mutant changed nothing"
    assert (before == after) == (effect == "=") or effect == "+"


Rows = list[TargetCheckpoint]


def _without_first_parent(found: Rows) -> Rows:
    at = next(i for i, row in enumerate(found) if row.parent_checkpoint_id)
    return [
        row._replace(parent_checkpoint_id=None) if i == at else row for i, row in enumerate(found)
    ]


def _two_blobs_swapped(found: Rows) -> Rows:
    at = next(i for i, row in enumerate(found) if len(row.blobs) > 1)
    one, other, *rest = found[at].blobs
    swapped = [one._replace(blob=other.blob), other._replace(blob=one.blob), *rest]
    return [row._replace(blobs=swapped) if i == at else row for i, row in enumerate(found)]


def _writes_renumbered(found: Rows) -> Rows:
    def renumbered(writes: list[TargetWrite]) -> list[TargetWrite]:
        return [write._replace(idx=write.idx + 7) for write in writes]

    return [row._replace(writes=renumbered(row.writes)) for row in found]


def _metadata_emptied(found: Rows) -> Rows:
    return [row._replace(metadata=b"{}") if row.metadata else row for row in found]


def _last_row_dropped(found: Rows) -> Rows:
    return found[:-1]


def _true_for_true_inline(found: Rows) -> Rows:
    def changed(row: TargetCheckpoint) -> TargetCheckpoint:
        envelope = msgspec.json.decode(row.checkpoint or b"{}")
        envelope["channel_values"]["log"] = True
        return row._replace(checkpoint=msgspec.json.encode(envelope))

    return [changed(row) if row.checkpoint else row for row in found]


FILE_MUTANTS: list[Callable[[Rows], Rows]] = [
    _without_first_parent,
    _two_blobs_swapped,
    _writes_renumbered,
    _metadata_emptied,
    _last_row_dropped,
    _true_for_true_inline,
]


@pytest.mark.parametrize("mutant", FILE_MUTANTS, ids=lambda mutant: mutant.__name__.strip("_"))
def test_a_wrong_export_with_a_right_manifest_is_found_in_staging(
    migration: Migration, database: Database, mutant: Callable[[Rows], Rows]
) -> None:
    """A defect of the conversion, whose file and digests agree, is found by the oracle."""
    migration.check()
    migration.freeze()
    exports = [_rewritten(export, mutant) for export in migration.export()]
    migration.load(exports)
    with pytest.raises(MigrationError) as failure:
        migration.verify(exports)
    assert type(failure.value).__name__ == "VerificationFailed"
    assert not any(rows(database.dsn).values())


def _rewritten(export: Export, mutant: Callable[[Rows], Rows]) -> Export:
    """The export with mutated rows, its manifest and digests made anew, as a defect would make them."""
    path = Path(export.path)
    manifest_path = path.with_name(path.name.replace(".jsonl.zst", ".manifest.json"))
    manifest = files.read_manifest(manifest_path, export.manifest_sha256)

    def all_rows() -> Iterator[TargetCheckpoint]:
        for number, batch in enumerate(manifest.batches):
            yield from files.read_batch(path, number, batch)

    found = list(all_rows())
    try:
        found = mutant(found)
    except StopIteration:
        pass  # this thread has nothing for the mutant to change
    with writing(path, 1000) as writer:
        for row in found:
            writer.add(row)
        counts = writer.finish()
    changed = replace(manifest, counts=counts, length=writer.length, batches=tuple(writer.batches))
    digest = files.write_manifest(manifest_path, changed)
    return replace(export, manifest_sha256=digest, counts=counts, batches=len(changed.batches))
