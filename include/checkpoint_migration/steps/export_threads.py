"""export_threads: write one shard's threads into an export file with its manifest."""

from __future__ import annotations

from ..export.shard import export_shard
from ..findings import Counts
from ..model import Export
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
        progress = run.progress(shard.checkpoints, "exported")
        export = export_shard(
            run.connect, run.settings, run.folder, shard, progress.advance, run.aes_key
        )
        step.record.moved = export.counts.checkpoints
        progress.done()
    if export.blockers:
        run.log(
            f"{export.blockers:,} rows have no place in PostgreSQL: plan_batches will list them"
        )
    return export
