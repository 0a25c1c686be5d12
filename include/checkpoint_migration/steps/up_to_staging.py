"""The steps of a migration up to staging, in the order of the pipeline: a function for each task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any

import msgspec

from .. import preflight, source
from ..errors import Blocked, VerificationFailed, quoted
from ..export import shard as exporting
from ..load import batches as loading
from ..load import staging
from ..model import Blocker, Counts, Export, Load, Manifest, Receipt, ShardVerdict, Warning_
from ..preflight.estimate import check_disk, estimate
from ..run import lease, ledger
from ..run.run import Run
from ..storage import atomic_file
from .verify_staged import plan_path, read_plan, verify_shard_of


def check_schema(run: Run) -> dict[str, Any]:
    """Refuse, before any work, a source or a target that cannot be migrated; make this run the owner.

    The source is only looked at. On the target missing tables may be made, where the settings
    allow it, and the ledger is opened. Safe to repeat. Returns counts and names, no values.
    Raises whatever `source.inspect_source`, `preflight.check_target` and `ledger.acquire` raise.
    """
    settings = run.settings
    run.folder.create()
    run.folder.sweep()
    with run.journal.step("check_schema") as facts:
        info = source.inspect_source(settings.source, settings.threads)
        facts["source"] = info
        needs = estimate(info)
        if not run.folder.frozen.exists():
            check_disk(run.folder.path, needs.folder_bytes)
        target = preflight.check_target(run.connect, settings, conn_id=settings.conn_id)
        facts["target"] = target
        row = lease.acquire(run.connect, settings, owner=run.owner)
        facts["again"] = row.state != "running"
    run.log(
        f"source {quoted(info.uri, 200)}: {info.format}, {info.counts.checkpoints:,} checkpoints and "
        f"{info.counts.writes:,} writes in {info.threads:,} threads, {info.bytes:,} bytes"
    )
    run.log(
        f"target {target.database!r} (PostgreSQL {target.server_version}), schema {target.schema!r}"
        + (", tables made" if target.created_tables else "")
    )
    run.log(f"estimate: {needs.sentence()}")
    return {
        "format": info.format,
        "threads": info.threads,
        "counts": asdict(info.counts),
        "server_version": target.server_version,
    }


def freeze_source(run: Run) -> dict[str, Any]:
    """Make the frozen source: one consistent copy that every later step reads.

    Repeatable: a copy that is there is kept, because exports may have been made from it.
    """
    with run.step("freeze_source") as notes:
        if notes.is_done:
            return {"again": True}
        info = source.freeze(run.settings.source, run.folder.frozen, run.settings.threads)
        notes.facts["frozen"] = info
    run.log(f"frozen: {info.bytes:,} bytes")
    return {"path": str(run.folder.frozen), "counts": asdict(info.counts)}


def plan_shards(run: Run) -> list[dict[str, Any]]:
    """Bin the threads into shards, and keep the plan in the run's folder; returns what names each."""
    with run.step("plan_shards") as notes:
        if notes.is_done:
            return []
        with closing(source.open_frozen(run.folder.frozen)) as frozen:
            shards = source.plan(frozen, run.settings.threads, run.settings.max_export_tasks)
        with atomic_file(plan_path(run)) as file:
            file.write(msgspec.json.encode(shards))
        notes.facts["shards"] = len(shards)
    run.log(f"{len(shards):,} shards")
    return [
        {"index": s.index, "label": s.label, "checkpoints": s.checkpoints, "writes": s.writes}
        for s in shards
    ]


def export_threads(run: Run, index: int) -> Export:
    """Export one shard; see `export.export_shard`."""
    with run.step("export", index) as notes:
        if notes.is_done:
            return Export(index, str(run.folder.export(index)), "", Counts(0, 0, 0), 0, 0)
        shard = read_plan(run)[index]
        progress = run.progress(shard.checkpoints, "exported")
        export = exporting.export_shard(
            run.connect, run.settings, run.folder, shard, progress.advance, run.aes_key
        )
        notes.facts["export"] = export
        notes.facts["moved"] = export.counts.checkpoints
        progress.done()
    if export.blockers:
        run.log(
            f"{export.blockers:,} rows have no place in PostgreSQL: plan_batches will list them"
        )
    return export


def plan_batches(run: Run, exports: Sequence[Export]) -> list[Load]:
    """Refuse with all blockers at once if there are any; else make staging and deal out the batches."""
    settings = run.settings
    with run.step("plan_batches") as notes:
        if notes.is_done:
            return []
        manifests = [loading.manifest_of(export) for export in exports]
        blockers = [blocker for manifest in manifests for blocker in manifest.blockers]
        notes.facts["exports"] = list(exports)
        notes.facts["exported"] = exporting.totals(list(exports))
        notes.facts["blockers"] = blockers
        notes.facts["warnings"] = list(_warnings(manifests))
        if blockers:
            raise _blocked(blockers)
        staging.prepare(run.connect, settings)
        loads = loading.plan_loads(exports, settings.max_load_tasks)
    run.log(f"{sum(e.batches for e in exports):,} batches in {len(loads):,} tasks")
    return loads


def _warnings(manifests: Sequence[Manifest]) -> Iterator[Warning_]:
    yield from (warning for manifest in manifests for warning in manifest.warnings)
    classes: Counter[str] = Counter()
    for manifest in manifests:
        classes.update(manifest.classes)
    for name in preflight.blocked_by_strict_msgpack(classes):
        yield Warning_(
            "strict_msgpack",
            f"values of {quoted(name)}: an application under LANGGRAPH_STRICT_MSGPACK reads them only "
            "if it allows this class",
            classes[name],
        )


def _blocked(blockers: Sequence[Blocker]) -> Blocked:
    first = blockers[0]
    return Blocked(
        f"{len(blockers):,} values have no lossless place in PostgreSQL; the first is `{first.column}` in "
        f"thread {quoted(first.thread_id)}, checkpoint {quoted(first.checkpoint_id)}: {first.why}.",
        next="report.json lists them all under blockers. Exclude their threads with the param "
        "threads (['!thread']), or mend the rows in the application, and run again.",
        blockers=len(blockers),
    )


def load_batch(run: Run, load: Load) -> list[Receipt]:
    """Load a task's batches into staging, each in a transaction of its own, each once."""
    with run.step("load", load.index) as notes:
        if notes.is_done:
            return []
        staging.prepare(run.connect, run.settings)
        total = sum(batches.count for batches in load.batches) * run.settings.batch_size
        progress = run.progress(total, "loaded")
        receipts = [
            receipt
            for batches in load.batches
            for receipt in loading.load_range(run.connect, run.settings, batches, progress.advance)
        ]
        notes.facts["moved"] = progress.total = loading.loaded(receipts).checkpoints
        progress.done()
    again = sum(receipt.again for receipt in receipts)
    if again:
        run.log(f"{again:,} of {len(receipts):,} batches had their receipt: not loaded again")
    return receipts


def verify_staged(run: Run, export: Export) -> ShardVerdict:
    """Prove a shard in staging equal to the frozen source, row by row; load again what is not there.

    Raises `VerificationFailed` at any difference. Under `verify: counts` only counts are compared.
    """
    settings = run.settings
    with run.step("verify_staged", export.shard) as notes:
        if notes.is_done:
            return ShardVerdict(export.shard, export.counts, 0)
        staging.prepare(run.connect, settings)
        if missing := loading.load_missing(run.connect, settings, export):
            run.log(f"{missing:,} batches were not in staging: loaded again")
        verdict = verify_shard_of(run, export)
        notes.facts["moved"] = verdict.counts.checkpoints
        notes.facts["verdict"] = verdict
        if verdict.found:
            raise VerificationFailed(
                f"{verdict.found:,} differences between staging and the frozen source in shard "
                f"{export.shard:04}; the first in thread {quoted(verdict.differences[0].thread_id)}: "
                f"{verdict.differences[0].why}.",
                next="this is a defect of the conversion, or staging was changed by somebody: report.json "
                "lists the differences. Please report it; nothing is live.",
                found=verdict.found,
            )
        ledger.mark_verified(run.connect, settings.key, export.shard, export.manifest_sha256)
    return verdict
