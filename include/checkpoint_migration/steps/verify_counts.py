"""verify_counts, the witness: the counts agree from SQLite to live, and a sample reads back equal."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from .. import source
from ..errors import MigrationError, VerificationFailed
from ..findings import Change, Counts, Drift, Promotion, Verdict, WitnessResult
from ..interrupting import meanwhile
from ..load.batches import load_missing
from ..load.staging import holds_sentinel, prepare
from ..postgres import transaction
from ..promotion import (
    check_live,
    check_recorded,
    is_noted,
    items_removed_in_source,
    note_removed,
    note_removed_items,
    removed_in_source,
    was_item_left_out,
    was_left_out,
)
from ..run import ledger, records
from ..run.after_promote import after_promote
from ..run.receipts import CHECKPOINTS, ITEMS
from ..run.run import Run
from ..verify import decrypting

if TYPE_CHECKING:
    from ..readback.read_back import ReadBack

SHOWN = 100
RESULT = "witness"  # under this name the ledger keeps what the witness found


def verify_counts(run: Run) -> WitnessResult:
    """The witness: SQLite = frozen = exported = staged = live, for each table and thread, and a sample
    read back from live through both of LangGraph's savers.

    Raises `VerificationFailed` unless the verdict is `identical` (`unproven` under `verify: counts`).
    """
    with after_promote(run.settings), run.step(records.VerifyCounts) as step:
        record = step.record
        result = record.result = _look_again(run) if step.is_done else _witness(run)
        if not step.is_done:
            gone, threads = removed_in_source(run.connect, run.settings)
            record.gone_from_source, record.gone_threads = gone, list(threads)
            record.gone_items = items_removed_in_source(run.connect, run.settings)
        record.moved = None if result.live is None else result.live.checkpoints
        run.log(f"witness: {result.verdict}, {result.found:,} differences")
        wanted = Verdict.UNPROVEN if run.settings.verify == "counts" else Verdict.IDENTICAL
        if result.verdict not in (wanted, Verdict.IDENTICAL):
            raise _not_identical(run, result)
    return result


def _witness(run: Run) -> WitnessResult:
    settings, journal = run.settings, run.journal
    promotion = journal.record(records.Promote).promotion
    if promotion is None:
        raise run.records_gone()
    _restore_staging(run)
    with closing(source.open_frozen(run.folder.fetch_frozen())) as conn:
        tables = journal.record(records.CheckSchema).store_tables
        frozen = source.count(conn, settings.threads, tables)
    # PostgreSQL compares all of live with staging while a sample is read back here.
    with meanwhile(run.connect, lambda connect: check_live(connect, settings)) as checking:
        back = _read_back(run, promotion) if settings.verify == "full" else None
        check = checking.result()
    exported = journal.record(records.PlanBatches).exported or Counts(0, 0, 0)
    judged = journal.record(records.JudgeDrift)
    now = judged.source or frozen
    agree = (
        now == _drifted(frozen, judged.drift or Drift())
        and frozen == replace(exported, blobs=frozen.blobs)
        and exported == check.staged
        and check.live == check.wanted
        and check.wanted + promotion.removed + check.swept == check.staged
    )
    result = WitnessResult(
        Verdict.DIFFERENT,
        source=now,
        frozen=frozen,
        exported=exported,
        staged=check.staged,
        live=check.live,
        found=check.found,
        differences=check.differences,
        swept=check.swept.items,
    )
    if back is not None:
        result = replace(
            result,
            found=result.found + back.found,
            differences=(*result.differences, *back.differences)[:SHOWN],
            sampled=back.checkpoints,
            unread=back.unread,
        )
    if not agree or result.found or promotion.kept or promotion.other_histories:
        return result
    proven = Verdict.IDENTICAL if settings.verify == "full" else Verdict.UNPROVEN
    return replace(result, verdict=proven)


def _read_back(run: Run, promotion: Promotion) -> ReadBack:
    # Imported here: LangGraph takes a second to import, and no other step needs all of it.
    from ..readback.read_back import read_back

    settings = run.settings

    def was_removed(thread_id: str, checkpoint_ns: str, checkpoint_id: str) -> bool:
        with transaction(run.connect, "looking at what was left out") as conn:
            return was_left_out(conn, settings, (thread_id, checkpoint_ns, checkpoint_id))

    is_whole = not (promotion.removed.checkpoints or promotion.kept or promotion.other_histories)
    back = read_back(
        run.folder.fetch_frozen(),
        run.connect,
        settings.live_schema,
        settings.threads,
        seed=settings.key,
        sanitized=settings.on_blocker == "sanitize",
        decrypt=decrypting(run.aes_key),
        removed=None if is_whole else was_removed,
    )
    return _with_store(run, back)


def _with_store(run: Run, back: ReadBack) -> ReadBack:
    """The same with what both stores said of a sample of their items, where the run takes a store."""
    settings = run.settings
    if not run.journal.record(records.CheckSchema).store_tables:
        return back
    # Imported here: the stores bring vectors' libraries with them, numpy among them.
    from ..readback.store import read_store_back

    def removed(prefix: str, key: str) -> bool:
        with transaction(run.connect, "looking at what was left out") as conn:
            return was_item_left_out(conn, settings, prefix, key)

    items = read_store_back(
        run.folder.fetch_frozen(),
        run.connect,
        settings.live_schema,
        seed=settings.key,
        removed=removed,
    )
    run.log(f"read back {items.items:,} items of the store through both stores")
    differences = (*back.differences, *items.differences)
    return dataclasses.replace(back, found=back.found + items.found, differences=differences)


def _drifted(frozen: Counts, drift: Drift) -> Counts:
    """What the source must hold now if the frozen source held this and then drifted so."""
    c, w = drift.checkpoints, drift.writes
    items, vectors = drift.items or Change(), drift.vectors or Change()
    return Counts(
        frozen.checkpoints + c.added - c.removed,
        frozen.writes + w.added - w.removed,
        frozen.blobs,
        frozen.items + items.added - items.removed,
        frozen.vectors + vectors.added - vectors.removed,
    )


def _restore_staging(run: Run) -> None:
    """Bring staging back where the server lost it after promote: the witness compares with it.

    An earlier try may have come half-way: there are receipts for all batches only at the end.
    """
    settings, planned = run.settings, run.journal.record(records.PlanBatches)
    with transaction(run.connect, "looking at staging", read_only=True) as conn:
        noted = is_noted(conn, settings)
        loaded = CHECKPOINTS.total(conn, settings.key) + ITEMS.total(conn, settings.key)
        whole = holds_sentinel(conn, settings.staging_schema) and loaded == planned.exported
    if noted and whole:
        return
    prepare(run.connect, settings)
    for export in planned.exports or []:
        load_missing(run.connect, settings, run.folder, export)
    if noted:
        return
    with transaction(run.connect, "restoring staging") as conn:
        note_removed(conn, settings)
        note_removed_items(conn, settings)


def _look_again(run: Run) -> WitnessResult:
    """A run that is done has no staging any more: live is held against what the ledger recorded."""
    row = ledger.find_run(run.connect, run.settings.key)
    recorded = (row.result or {}) if row else {}
    before = msgspec.convert(recorded[RESULT], WitnessResult) if RESULT in recorded else None
    if run.settings.rehearsal:
        run.log("rehearsed already: its scratch schema is gone, and nothing is left to look at")
        return before or WitnessResult(Verdict.UNPROVEN)
    late = check_recorded(run.connect, run.settings)
    run.log(
        f"looked again: of {late.recorded:,} rows recorded, {late.unchanged:,} are live as they "
        f"were, {late.changed:,} changed, {late.missing:,} missing"
    )
    if before is None:
        return WitnessResult(Verdict.UNPROVEN, late=late)
    changed = late.changed + late.missing
    verdict = before.verdict if not changed else Verdict.DIFFERENT
    return replace(before, verdict=verdict, late=late, found=before.found + changed)


def _not_identical(run: Run, result: WitnessResult) -> MigrationError:
    promotion = run.journal.record(records.Promote).promotion
    kept = promotion.conflicting if promotion and run.settings.on_conflict == "keep" else 0
    why = f"{result.found:,} differences on the live tables"
    if kept and not result.found:
        why = f"{kept:,} conflicts were left as they are on live, as on_conflict: keep asks"
    live = "Rows of this run are live: this came up after promote."
    if run.settings.rehearsal:
        live = "This is a rehearsal: the live tables were only looked at."
    return VerificationFailed(
        f"the verdict is {result.verdict}: {why}.",
        safe=f"the source is untouched. {live}",
        next="report.json lists the differences and conflicts, and under sql the statements that show "
        "these rows; where they are live, undo_migration takes them out again.",
        found=result.found,
    )
