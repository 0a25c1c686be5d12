"""verify_staged: prove a shard in staging equal to the frozen source, before anything is live."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

from .. import source, store_tables
from ..errors import VerificationFailed
from ..findings import Counts, Difference, ShardVerdict
from ..load.batches import load_missing
from ..load.staging import prepare
from ..model import Export, Shard
from ..postgres import transaction
from ..reporting.kinds import place_of
from ..run import ledger, records
from ..run.run import Run
from ..verify import count_shard, decrypting, verify_shard, verify_store


def verify_staged(run: Run, export: Export) -> ShardVerdict:
    """Prove a shard in staging equal to the frozen source, row by row; load again what is not there.

    Raises `VerificationFailed` at any difference. Under `verify: counts` only counts are compared.
    """
    settings = run.settings
    with run.step(records.VerifyStaged, export.shard) as step:
        if step.is_done:
            return ShardVerdict(export.shard, export.counts, 0)
        prepare(run.connect, settings)
        if missing := load_missing(run.connect, settings, run.folder, export):
            run.log(f"{missing:,} batches were not in staging: loaded again")
        verdict = step.record.verdict = prove_shard(run, export)
        step.record.moved = verdict.counts.checkpoints or None
        if verdict.found:
            raise VerificationFailed(
                f"{verdict.found:,} differences between staging and the frozen source in shard "
                f"{export.shard:04}; the first in {place_of(verdict.differences[0])}: "
                f"{verdict.differences[0].why}.",
                next="this is a defect of the conversion, or staging was changed by somebody: report.json "
                "lists the differences. Please report it; nothing is live.",
                found=verdict.found,
            )
        ledger.mark_verified(run.connect, settings.key, export.shard, export.manifest_sha256)
    return verdict


def _count(run: Run, export: Export, shard: Shard) -> ShardVerdict:
    with transaction(run.connect, "counting rows in staging", read_only=True) as conn:
        counts = count_shard(conn, run.settings.staging_schema, shard)
    if counts == export.counts:
        return ShardVerdict(export.shard, counts, 0)
    why = f"staging holds {_figures(counts)}, the export file {_figures(export.counts)}"
    return ShardVerdict(export.shard, counts, 1, (Difference("", "", "", "checkpoints", "", why),))


def _prove_store(run: Run, export: Export, shard: Shard) -> ShardVerdict:
    settings = run.settings
    tables = run.journal.record(records.CheckSchema).store_tables
    progress = run.progress(shard.items or 0, "verified", "items")
    with (
        closing(source.open_frozen(run.folder.fetch_frozen())) as frozen,
        transaction(
            run.connect,
            "comparing staging with the frozen source",
            repeatable_read=True,
            read_only=True,
        ) as conn,
    ):
        if settings.verify == "counts":
            counts = store_tables.count(conn, settings.staging_schema)
            verdict = ShardVerdict(export.shard, counts, int(counts != export.counts))
        else:
            verdict = verify_store(
                frozen,
                conn,
                settings.staging_schema,
                tables,
                shard.index,
                progress.advance,
                sanitized=settings.on_blocker == "sanitize",
            )
    if verdict.found and not verdict.differences:
        why = (
            f"staging holds {verdict.counts.items:,} items, the export file {export.counts.items:,}"
        )
        verdict = replace(verdict, differences=(Difference("", "", "", "store", "", why),))
    progress.done()
    return verdict


def _figures(counts: Counts) -> str:
    return (
        f"{counts.checkpoints:,} checkpoints, {counts.writes:,} writes and {counts.blobs:,} blobs"
    )


def prove_shard(run: Run, export: Export) -> ShardVerdict:
    """What the oracle says of a shard; promote asks too where a crash of the server lost the proof."""
    settings = run.settings
    shard = run.read_plan()[export.shard]
    if shard.is_store:
        return _prove_store(run, export, shard)
    if settings.verify == "counts":
        return _count(run, export, shard)
    progress = run.progress(shard.checkpoints, "verified")
    with (
        closing(source.open_frozen(run.folder.fetch_frozen())) as frozen,
        transaction(
            run.connect,
            "comparing staging with the frozen source",
            repeatable_read=True,
            read_only=True,
        ) as conn,
    ):
        verdict = verify_shard(
            frozen,
            conn,
            settings.staging_schema,
            shard,
            settings.threads,
            decrypt=decrypting(run.aes_key),
            originals=ledger.originals_of(conn, settings.key),
            allow_pickle=settings.allow_pickle,
            progress=progress.advance,
        )
    progress.done()
    return verdict
