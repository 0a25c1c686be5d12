"""The pipeline's two task groups: export, a task for each shard, and import, one for each batch.

Where one instance of a mapped task fails, Airflow gives up what follows at once, while the others
still work. The report is to wait for these: it lets go of the target and cleans up. No trigger rule
waits without also running after a failure, and a teardown waits for all since its setup, but a setup
is run again with whatever is cleared: so `report` follows each of the three mapped tasks itself, and
where a group as a whole says so, the graph has one line for it.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import task_group

from .tasks import (
    export_threads,
    load_batch,
    plan_batches,
    plan_shards,
    promote,
    verify_staged,
)


@task_group(group_id="export")
def export_group(frozen: Any, report: Any) -> Any:
    """A task for each thread while threads are few, for each shard beyond; each writes one file."""
    exports = export_threads.expand(shard=plan_shards(frozen))
    exports >> report
    return exports


@task_group(group_id="import")
def import_group(exports: Any, report: Any) -> None:
    """Batches into staging, each tried again alone; staging proven; then promoted whole."""
    planned = plan_batches(exports)
    loaded = load_batch.expand(load=planned)
    verified = verify_staged.expand(export=exports)
    # promote waits for plan_batches too: where there is nothing to map, Airflow skips verify_staged
    # before plan_batches has run, and a skipped task holds nothing back.
    loaded >> verified
    [planned, verified] >> promote()
    [loaded, verified] >> report
