"""The steps from staging to live: drift judged, staging made whole, promoted, witnessed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import msgspec

from .. import preflight, source
from ..errors import (
    MigrationError,
    SourceDrifted,
    StagingLost,
    StorageRefused,
    TargetConflict,
    VerificationFailed,
)
from ..load import batches as loading
from ..load import staging
from ..model import Counts, Difference, Drift, Export, Promotion, Verdict
from ..postgres import connection
from ..promotion import live_check as witness
from ..promotion.left_out import note_left_out
from ..promotion.transaction import promote
from ..run import ledger
from ..run.run import Run
from .verify_staged import verify_shard_of

SHOWN = 100


def promote_staging(run: Run) -> Promotion:
    """Judge drift, make sure that all of staging is there and proven, then promote it whole.

    Raises `SourceDrifted` (under `on_drift: fail`), `TargetConflict` (under `on_conflict: fail`),
    `StagingLost`, and transient errors; the live tables are then as they were.
    """
    settings = run.settings
    with run.step("promote") as notes:
        if not notes.is_promoted:
            exports = run.journal.fact("plan_batches", "exports", list[Export])
            target = run.journal.fact("check_schema", "target", preflight.TargetInfo)
            if exports is None or target is None:
                raise _records_gone(run)
            _judge_drift(run)
            _heal(run, exports)
            preflight.recheck_target(run.connect, settings, target)
        try:
            promotion = promote(run.connect, settings)
        except TargetConflict as error:
            notes.facts["conflicts"] = error.facts.get("conflicts", [])
            raise
        notes.facts["promotion"] = promotion
        notes.facts["moved"] = promotion.inserted.checkpoints + promotion.identical.checkpoints
    run.log(
        "promoted already: nothing done"
        if promotion.again
        else f"promoted: {promotion.inserted.checkpoints:,} checkpoints new, "
        f"{promotion.identical.checkpoints:,} found identical, {promotion.replaced:,} rows replaced, "
        f"{promotion.kept:,} kept"
    )
    return promotion


def _records_gone(run: Run) -> MigrationError:
    return StorageRefused(
        f"the records of this run's earlier steps are not in {run.folder.path}.",
        safe="the source is untouched; live is as promote left it, before or after.",
        next="give all workers the same folder as export_uri; then clear check_schema and what follows.",
    )


def _judge_drift(run: Run) -> None:
    """A step of its own in the journal, so that a promote tried again after its COMMIT keeps it."""
    settings = run.settings
    with run.journal.step("drift") as facts:
        with closing(source.open_frozen(run.folder.frozen)) as frozen:
            drift, counts = source.drift(settings.source, frozen, settings.threads)
        facts["drift"] = drift
        facts["source"] = counts
    if drift.any and settings.on_drift == "fail":
        c, w = drift.checkpoints, drift.writes
        raise SourceDrifted(
            f"the source changed since it was frozen: checkpoints +{c.added:,} ~{c.changed:,} "
            f"-{c.removed:,}, writes +{w.added:,} ~{w.changed:,} -{w.removed:,}.",
            next="stop the application and run again, or run with on_drift: report and catch up later "
            "(docs/cut-over.md).",
        )


def _heal(run: Run, exports: Sequence[Export]) -> None:
    """Load and verify again what staging lost in a crash of the server since it was verified."""
    settings = run.settings
    staging.prepare(run.connect, settings)
    with connection(run.connect, "reading the ledger") as conn:
        verified = ledger.verified_shards(conn, settings.key)
    for export in exports:
        loading.load_missing(run.connect, settings, export)
        if verified.get(export.shard) != export.manifest_sha256:
            verdict = verify_shard_of(run, export)
            if verdict.found:
                raise StagingLost(
                    f"shard {export.shard:04} in staging is not what was verified.",
                    next="clear verify_staged for this shard, and look at what it lists.",
                )
            ledger.mark_verified(run.connect, settings.key, export.shard, export.manifest_sha256)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the witness found on live.

    `sampled` checkpoints were read back through both savers; `unread` ones of the sample could not
    be, because reading them would run code of the database (pickle).
    """

    verdict: Verdict
    source: Counts | None = None
    frozen: Counts | None = None
    exported: Counts | None = None
    staged: Counts | None = None
    live: Counts | None = None
    found: int = 0
    differences: tuple[Difference, ...] = ()
    sampled: int = 0
    unread: int = 0
    late: witness.LateCheck | None = None


def verify_counts(run: Run) -> Outcome:
    """The witness: SQLite = frozen = exported = staged = live, for each table and thread, and a sample
    read back from live through both of LangGraph's savers.

    Raises `VerificationFailed` unless the verdict is `identical` (`unproven` under `verify: counts`).
    """
    with run.step("verify_counts") as notes:
        outcome = _look_again(run) if notes.is_done else _witness(run)
        notes.facts["outcome"] = outcome
        if not notes.is_done:
            notes.facts["gone"], notes.facts["gone_threads"] = witness.removed_in_source(
                run.connect, run.settings
            )
        notes.facts["moved"] = None if outcome.live is None else outcome.live.checkpoints
        run.log(f"witness: {outcome.verdict}, {outcome.found:,} differences")
        wanted = Verdict.UNPROVEN if run.settings.verify == "counts" else Verdict.IDENTICAL
        if outcome.verdict not in (wanted, Verdict.IDENTICAL):
            raise _not_identical(outcome)
    return outcome


def _witness(run: Run) -> Outcome:
    settings, journal = run.settings, run.journal
    promotion = journal.fact("promote", "promotion", Promotion)
    if promotion is None:
        raise _records_gone(run)
    _restore_staging(run)
    with closing(source.open_frozen(run.folder.frozen)) as conn:
        frozen = source.count(conn, settings.threads)
    check = witness.check_live(run.connect, settings)
    exported = journal.fact("plan_batches", "exported", Counts) or Counts(0, 0, 0)
    drift = journal.fact("drift", "drift", Drift) or Drift()
    now = journal.fact("drift", "source", Counts) or frozen
    differences, found, sampled, unread = list(check.differences), check.found, 0, 0
    agree = (
        now == _drifted(frozen, drift)
        and (frozen.checkpoints, frozen.writes) == (exported.checkpoints, exported.writes)
        and exported == check.staged
        and check.live == check.wanted
        and check.wanted + promotion.removed == check.staged
    )
    if settings.verify == "full":
        # Imported here: LangGraph takes a second to import, and no other step needs all of it.
        from ..readback import read_back

        back = read_back(
            run.folder.frozen,
            run.connect,
            settings.live_schema,
            settings.threads,
            seed=settings.key,
            sanitized=settings.on_blocker == "sanitize",
            decrypt=run.opener,
            removed=lambda *key: _was_removed(run, promotion, key),
        )
        differences += back.differences
        found += back.found
        sampled, unread = back.checkpoints, back.unread
    verdict = Verdict.IDENTICAL if agree and not found and not promotion.kept else Verdict.DIFFERENT
    if verdict is Verdict.IDENTICAL and settings.verify == "counts":
        verdict = Verdict.UNPROVEN
    return Outcome(
        verdict,
        source=now,
        frozen=frozen,
        exported=exported,
        staged=check.staged,
        live=check.live,
        found=found,
        differences=tuple(differences[:SHOWN]),
        sampled=sampled,
        unread=unread,
    )


def _drifted(frozen: Counts, drift: Drift) -> Counts:
    """What the source must hold now if the frozen source held this and then drifted so."""
    c, w = drift.checkpoints, drift.writes
    return Counts(
        frozen.checkpoints + c.added - c.removed, frozen.writes + w.added - w.removed, frozen.blobs
    )


def _restore_staging(run: Run) -> None:
    """Bring staging back where the server lost it after promote: the witness compares with it."""
    settings = run.settings
    if staging.is_whole(run.connect, settings):
        return
    staging.prepare(run.connect, settings)
    for export in run.journal.fact("plan_batches", "exports", list[Export]) or []:
        loading.load_missing(run.connect, settings, export)
    with connection(run.connect, "restoring staging") as conn, conn.transaction():
        note_left_out(conn, settings)


def _was_removed(run: Run, promotion: Promotion, key: tuple[str, str, str]) -> bool:
    if not promotion.removed.checkpoints and not promotion.kept:
        return False
    return witness.is_left_out(run.connect, run.settings, key)


def _look_again(run: Run) -> Outcome:
    """A run that is done has no staging any more: live is held against what the ledger recorded."""
    row = ledger.find_run(run.connect, run.settings.key)
    recorded = (row.result or {}) if row else {}
    before = msgspec.convert(recorded["outcome"], Outcome) if "outcome" in recorded else None
    if run.settings.rehearsal:
        run.log("rehearsed already: its scratch schema is gone, and nothing is left to look at")
        return before or Outcome(Verdict.UNPROVEN)
    late = witness.check_recorded(run.connect, run.settings)
    run.log(
        f"looked again: of {late.recorded:,} checkpoints recorded, {late.unchanged:,} are live as they "
        f"were, {late.changed:,} changed, {late.missing:,} missing"
    )
    if before is None:
        return Outcome(Verdict.UNPROVEN, late=late)
    changed = late.changed + late.missing
    verdict = before.verdict if not changed else Verdict.DIFFERENT
    return replace(before, verdict=verdict, late=late, found=before.found + changed)


def _not_identical(outcome: Outcome) -> MigrationError:
    return VerificationFailed(
        f"the verdict is {outcome.verdict}: {outcome.found:,} differences on the live tables.",
        safe="the source is untouched. Rows of this run are live: this came up after promote.",
        next="report.json lists the differences, and under sql the statements that show these rows "
        "and take them out again.",
        found=outcome.found,
    )
