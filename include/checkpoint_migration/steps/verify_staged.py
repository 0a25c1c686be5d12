"""verify_staged: prove a shard in staging equal to the frozen source, before anything is live."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg

from .. import source, store_tables
from ..errors import VerificationFailed
from ..finding_places import place_of
from ..findings import Counts, Difference, ShardVerdict
from ..load.batches import load_missing
from ..load.staging import prepare
from ..model import Export, Shard
from ..postgres import transaction
from ..run import ledger, records
from ..run.run import Run
from ..verify import count_shard, decrypting, verify_shard, verify_store

Conn = psycopg.Connection[Any]


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


def prove_shard(run: Run, export: Export) -> ShardVerdict:
    """What the oracle says of a shard; promote asks too where a crash of the server lost the proof."""
    shard = run.read_plan()[export.shard]
    if run.settings.verify == "counts":
        return _count(run, export, shard)
    rows, noun = (
        (shard.checkpoints, "checkpoints") if shard.items is None else (shard.items, "items")
    )
    progress = run.progress(rows, "verified", noun)
    with (
        closing(source.open_frozen(run.folder.fetch_frozen())) as frozen,
        transaction(
            run.connect,
            "comparing staging with the frozen source",
            repeatable_read=True,
            read_only=True,
        ) as conn,
    ):
        prove = _prove_store if shard.is_store else _prove_threads
        verdict = prove(run, shard, frozen, conn, progress.advance)
    progress.done()
    return verdict


def _prove_threads(
    run: Run, shard: Shard, frozen: sqlite3.Connection, conn: Conn, advance: Callable[[int], None]
) -> ShardVerdict:
    settings = run.settings
    return verify_shard(
        frozen,
        conn,
        settings.staging_schema,
        shard,
        settings.threads,
        decrypt=decrypting(run.aes_key),
        originals=ledger.originals_of(conn, settings.key),
        allow_pickle=settings.allow_pickle,
        progress=advance,
    )


def _prove_store(
    run: Run, shard: Shard, frozen: sqlite3.Connection, conn: Conn, advance: Callable[[int], None]
) -> ShardVerdict:
    settings = run.settings
    return verify_store(
        frozen,
        conn,
        settings.staging_schema,
        run.journal.record(records.CheckSchema).store_tables,
        shard.index,
        advance,
        sanitized=settings.on_blocker == "sanitize",
    )


def _count(run: Run, export: Export, shard: Shard) -> ShardVerdict:
    schema = run.settings.staging_schema
    with transaction(run.connect, "counting rows in staging", read_only=True) as conn:
        counts = (
            store_tables.count(conn, schema) if shard.is_store else count_shard(conn, schema, shard)
        )
    if counts == export.counts:
        return ShardVerdict(export.shard, counts, 0)
    figures = _items if shard.is_store else _rows
    why = f"staging holds {figures(counts)}, the export file {figures(export.counts)}"
    name = store_tables.STORE if shard.is_store else "checkpoints"
    return ShardVerdict(export.shard, counts, 1, (Difference("", "", "", name, "", why),))


def _rows(counts: Counts) -> str:
    return (
        f"{counts.checkpoints:,} checkpoints, {counts.writes:,} writes and {counts.blobs:,} blobs"
    )


def _items(counts: Counts) -> str:
    return f"{counts.items:,} items and {counts.vectors:,} vectors"
