"""plan_shards: deal out the threads to the export tasks."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from .. import source
from ..run import records
from ..run.run import Run


def plan_shards(run: Run) -> list[dict[str, Any]]:
    """Bin the threads into shards, and keep the plan in the run's folder; returns what names each."""
    with run.step(records.PlanShards) as step:
        if step.is_done:
            return []
        with closing(source.open_frozen(run.folder.fetch_frozen())) as frozen:
            shards = [*source.plan(frozen, run.settings.threads, run.settings.sizes)]
            tables = run.journal.record(records.CheckSchema).store_tables
            shards += source.plan_store(frozen, tables, index=len(shards))
        run.keep_plan(shards)
        step.record.shards = len(shards)
    run.log(f"{len(shards):,} shards")
    return [
        {"index": s.index, "label": s.label, "checkpoints": s.checkpoints, "writes": s.writes}
        for s in shards
    ]
