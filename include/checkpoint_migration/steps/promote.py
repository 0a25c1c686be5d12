"""promote: judge drift, make sure that all of staging is there and proven, then make it live whole."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from .. import source
from ..errors import SourceDrifted, StagingLost, TargetConflict
from ..findings import Change, Drift, Promotion
from ..load.batches import load_missing
from ..load.staging import prepare
from ..model import Export
from ..postgres import transaction
from ..preflight import recheck_store, recheck_target
from ..promotion import Judgement, as_on_live, judge_real_tables, promote_staged
from ..run import ledger, records
from ..run.after_promote import after_promote
from ..run.run import Run
from ..tables import are_there
from .verify_staged import prove_shard


def promote(run: Run) -> Promotion:
    """Judge drift, make sure that all of staging is there and proven, then promote it whole.

    Raises `SourceDrifted` (under `on_drift: fail`), `TargetConflict` (under `on_conflict: fail`),
    `StagingLost`, and transient errors; the live tables are then as they were.
    """
    settings = run.settings
    # Not known where an earlier try came so far: its COMMIT may be at work yet.
    is_promoted = None if run.journal.entries(records.JudgeDrift) else False
    with (
        after_promote(settings, lambda: is_promoted is not False),
        run.step(records.Promote) as step,
    ):
        is_promoted = step.is_promoted or ledger.is_promoted(run.connect, settings.key)
        if not is_promoted:
            exports = run.journal.record(records.PlanBatches).exports
            checked = run.journal.record(records.CheckSchema)
            target = checked.target
            if exports is None or target is None:
                raise run.records_gone()
            _judge_drift(run)
            _prove_what_was_lost(run, exports)
            recheck_target(run.connect, settings, target)
            if checked.store is not None:
                recheck_store(run.connect, settings, checked.store)
        try:
            judgement = None
            if settings.rehearsal and not step.is_done:
                judgement = _judge_real_tables(run)
            promotion = promote_staged(run.connect, settings)
            is_promoted = True
            if judgement is not None:
                promotion = as_on_live(promotion, settings, judgement)
        except TargetConflict as error:
            step.record.conflicts = list(error.facts["conflicts"])
            step.record.conflicting = error.facts["total"]
            raise
        step.record.promotion = promotion
        step.record.moved = promotion.inserted.checkpoints + promotion.identical.checkpoints
    run.log(
        "promoted already: nothing done"
        if promotion.already_done
        else f"promoted: {promotion.inserted.checkpoints:,} checkpoints new, "
        f"{promotion.identical.checkpoints:,} found identical, {promotion.replaced:,} rows replaced, "
        f"{promotion.kept:,} kept"
    )
    new, found = promotion.inserted, promotion.identical
    if (new.items or found.items) and not promotion.already_done:
        run.log(f"promoted of the store: {new.items:,} items new, {found.items:,} found identical")
    return promotion


def _judge_real_tables(run: Run) -> Judgement | None:
    """A rehearsal: look at the real tables as the real run would; only then into the scratch schema."""
    with transaction(run.connect, "looking for the real tables", read_only=True) as conn:
        there = are_there(conn, run.settings.target_schema)
    return judge_real_tables(run.connect, run.settings) if there else None


def _judge_drift(run: Run) -> None:
    settings = run.settings
    with run.journal.step(records.JudgeDrift) as record:
        tables = run.journal.record(records.CheckSchema).store_tables
        with closing(source.open_frozen(run.folder.fetch_frozen())) as frozen:
            if _is_object_as_frozen(run):
                drift, counts = _no_drift(tables), source.count(frozen, settings.threads, tables)
            else:
                with source.at_hand(settings.source, run.objects, run.folder.path) as (path, _):
                    drift, counts = source.drift(
                        path, frozen, settings.threads, store_tables=tables
                    )
                source.forget_fetched(run.folder.path)
        record.drift, record.source = drift, counts
    if drift.any and settings.on_drift == "fail":
        c, w = drift.checkpoints, drift.writes
        raise SourceDrifted(
            f"the source changed since it was frozen: checkpoints +{c.added:,} ~{c.changed:,} "
            f"-{c.removed:,}, writes +{w.added:,} ~{w.changed:,} -{w.removed:,}{_of_the_store(drift)}.",
            next="stop the application and run again, or run with on_drift: report and catch up later "
            "(docs/cut-over.md).",
        )


def _is_object_as_frozen(run: Run) -> bool:
    """Whether a source in an object store is still the object that was frozen."""
    seen = run.journal.record(records.FreezeSource).seen
    if seen is None or run.objects is None:
        return False
    return source.look_at_object(run.objects, run.settings.source) == seen


def _no_drift(tables: Sequence[str]) -> Drift:
    none = dict.fromkeys(tables, Change())
    return Drift(items=none.get("store"), vectors=none.get("store_vectors"))


def _of_the_store(drift: Drift) -> str:
    kinds = (("items of the store", drift.items), ("vectors", drift.vectors))
    return "".join(
        f", {noun} +{change.added:,} ~{change.changed:,} -{change.removed:,}"
        for noun, change in kinds
        if change is not None and change.total
    )


def _prove_what_was_lost(run: Run, exports: Sequence[Export]) -> None:
    """Load and verify again what staging lost in a crash of the server since it was verified."""
    settings = run.settings
    prepare(run.connect, settings)
    with transaction(run.connect, "reading the ledger", read_only=True) as conn:
        verified = ledger.verified_shards(conn, settings.key)
    for export in exports:
        load_missing(run.connect, settings, run.folder, export)
        if verified.get(export.shard) != export.manifest_sha256:
            if prove_shard(run, export).found:
                raise StagingLost(
                    f"shard {export.shard:04} in staging is not what was verified.",
                    next="clear verify_staged for this shard, and look at what it lists.",
                )
            ledger.mark_verified(run.connect, settings.key, export.shard, export.manifest_sha256)
