"""export_threads: write one shard's threads into an export file with its manifest."""

from __future__ import annotations

from ..export.shard import export_shard
from ..export.store import export_store
from ..findings import Counts
from ..model import Export, Shard
from ..run import records
from ..run.run import Run


def export_threads(run: Run, index: int) -> Export:
    """Export one shard; see `export.shard.export_shard`. Blockers are collected, and it succeeds."""
    with run.step(records.ExportThreads, index) as step:
        if step.is_done:
            return Export(
                index, run.folder.address(run.folder.export(index)), "", Counts(0, 0, 0), 0, 0
            )
        shard = run.read_plan()[index]
        if shard.is_store:
            export = _export_store(run, shard)
            _tell_blockers(run, export)
            return export
        progress = run.progress(shard.checkpoints, "exported")
        export = export_shard(
            run.connect, run.settings, run.folder, shard, progress.advance, run.aes_key
        )
        step.record.moved = export.counts.checkpoints
        progress.done()
    _tell_blockers(run, export)
    return export


def _tell_blockers(run: Run, export: Export) -> None:
    if export.blockers:
        run.log(
            f"{export.blockers:,} rows have no place in PostgreSQL: plan_batches will list them"
        )


def _export_store(run: Run, shard: Shard) -> Export:
    checked = run.journal.record(records.CheckSchema)
    dimensions = checked.source.store.dimensions if checked.source and checked.source.store else ()
    progress = run.progress(shard.items or 0, "exported", "items")
    export = export_store(
        run.connect,
        run.settings,
        run.folder,
        shard,
        checked.store_tables,
        dimensions[0] if dimensions else 0,
        progress.advance,
    )
    progress.done()
    return export
