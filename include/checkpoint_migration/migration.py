"""The steps of a migration, in the order of the pipeline: one function for each task of the DAG."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
from Crypto.Cipher import AES

from . import export as exporting
from . import ledger, loading, preflight, source, staging, witness
from .errors import (
    Blocked,
    MigrationError,
    SourceDrifted,
    StagingLost,
    TargetConflict,
    VerificationFailed,
    quoted,
)
from .journal import Journal
from .model import (
    Blocker,
    Counts,
    Difference,
    Drift,
    Export,
    Load,
    Manifest,
    Promotion,
    Receipt,
    Shard,
    ShardVerdict,
    Verdict,
    Warning_,
)
from .postgres import Connect, connection
from .progress import Progress
from .promote import note_left_out, promote
from .readback import read_back
from .settings import Settings
from .storage import RunFolder, atomic_file, open_regular
from .verify import verify_shard

SHOWN = 100


@dataclass(frozen=True, slots=True)
class Notes:
    """A step's facts for the report, and the run's state in the ledger when the step began."""

    facts: dict[str, Any]
    state: str

    @property
    def is_done(self) -> bool:
        """The run ended well before: its tasks were cleared, and there is nothing to do."""
        return self.state == "done"

    @property
    def is_promoted(self) -> bool:
        return self.state in ("promoted", "done")


@dataclass(frozen=True, slots=True)
class Run:
    """A run: what it was asked, how it reaches the target, where it writes, to whom it talks.

    `owner` names the process that carries the whole run, where there is one (`ledger.acquire`).
    `aes_key` is kept out of the settings, and so out of every file and log.
    """

    settings: Settings
    connect: Connect
    log: Callable[[str], None]
    owner: str | None = None
    aes_key: bytes | None = field(default=None, repr=False)

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.settings.export_uri, self.settings.folder_name)

    @property
    def journal(self) -> Journal:
        return Journal(self.folder)

    @property
    def opener(self) -> Callable[[str, bytes], bytes] | None:
        """Opens an encrypted value for the oracle and the read-back; None without a key."""
        if self.aes_key is None:
            return None
        key = self.aes_key

        def opened(_kind: str, sealed: bytes) -> bytes:
            cipher = AES.new(key, AES.MODE_EAX, nonce=sealed[:16])
            return cipher.decrypt_and_verify(sealed[32:], sealed[16:32])

        return opened

    def progress(self, total: int, verb: str) -> Progress:
        return Progress(total, "checkpoints", self.log, verb=verb)

    @contextmanager
    def step(self, name: str, part: int | None = None) -> Iterator[Notes]:
        """A step that is recorded, and that keeps the run alive in the ledger while it works."""
        with (
            self.journal.step(name, part) as facts,
            ledger.alive(self.connect, self.settings) as row,
        ):
            yield Notes(facts, row.state if row else "running")


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
        target = preflight.check_target(run.connect, settings, conn_id=settings.conn_id)
        facts["target"] = target
        row = ledger.acquire(run.connect, settings, owner=run.owner)
        facts["again"] = row.state != "running"
    run.log(
        f"source {quoted(info.uri, 200)}: {info.format}, {info.counts.checkpoints:,} checkpoints and "
        f"{info.counts.writes:,} writes in {info.threads:,} threads, {info.bytes:,} bytes"
    )
    run.log(
        f"target {target.database!r} (PostgreSQL {target.server_version}), schema {target.schema!r}"
        + (", tables made" if target.created_tables else "")
    )
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
        with atomic_file(_plan_path(run)) as file:
            file.write(msgspec.json.encode(shards))
        notes.facts["shards"] = len(shards)
    run.log(f"{len(shards):,} shards")
    return [
        {"index": s.index, "label": s.label, "checkpoints": s.checkpoints, "writes": s.writes}
        for s in shards
    ]


def _plan_path(run: Run) -> Path:
    return run.folder.path / "plan.json"


def _plan(run: Run) -> list[Shard]:
    with open_regular(_plan_path(run)) as file:
        return msgspec.json.decode(file.read(), type=list[Shard])


def export_threads(run: Run, index: int) -> Export:
    """Export one shard; see `export.export_shard`."""
    with run.step("export", index) as notes:
        shard = _plan(run)[index]
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
        verdict = _verify(run, export)
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


def _verify(run: Run, export: Export) -> ShardVerdict:
    settings = run.settings
    shard = _plan(run)[export.shard]
    if settings.verify == "counts":
        return ShardVerdict(export.shard, export.counts, 0)
    progress = run.progress(shard.checkpoints, "verified")
    with (
        closing(source.open_frozen(run.folder.frozen)) as frozen,
        connection(run.connect, "comparing staging with the frozen source") as conn,
    ):
        verdict = verify_shard(
            frozen,
            conn,
            settings.staging_schema,
            shard,
            settings.threads,
            decrypt=run.opener,
            originals=ledger.originals_of(conn, settings.key),
            progress=progress.advance,
        )
    progress.done()
    return verdict


def promote_staging(run: Run) -> Promotion:
    """Judge drift, make sure that all of staging is there and proven, then promote it whole.

    Raises `SourceDrifted` (under `on_drift: fail`), `TargetConflict` (under `on_conflict: fail`),
    `StagingLost`, and transient errors; the live tables are then as they were.
    """
    settings = run.settings
    with run.step("promote") as notes:
        exports = run.journal.fact("plan_batches", "exports", list[Export]) or []
        if not notes.is_promoted:
            _judge_drift(run, notes.facts)
            _heal(run, exports)
            target = run.journal.fact("check_schema", "target", preflight.TargetInfo)
            if target is not None:
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


def _judge_drift(run: Run, facts: dict[str, Any]) -> None:
    settings = run.settings
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
            verdict = _verify(run, export)
            if verdict.found:
                raise StagingLost(
                    f"shard {export.shard:04} in staging is not what was verified.",
                    next="clear verify_staged for this shard, and look at what it lists.",
                )
            ledger.mark_verified(run.connect, settings.key, export.shard, export.manifest_sha256)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the witness found on live; `sampled` checkpoints were read back through both savers."""

    verdict: Verdict
    source: Counts | None = None
    frozen: Counts | None = None
    exported: Counts | None = None
    staged: Counts | None = None
    live: Counts | None = None
    found: int = 0
    differences: tuple[Difference, ...] = ()
    sampled: int = 0
    late: witness.LateCheck | None = None


def verify_counts(run: Run) -> Outcome:
    """The witness: SQLite = frozen = exported = staged = live, for each table and thread, and a sample
    read back from live through both of LangGraph's savers.

    Raises `VerificationFailed` unless the verdict is `identical` (`unproven` under `verify: counts`).
    """
    with run.step("verify_counts") as notes:
        outcome = _look_again(run) if notes.is_done else _witness(run)
        notes.facts["outcome"] = outcome
        if outcome.late is None:
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
        return Outcome(Verdict.UNPROVEN)
    _restore_staging(run)
    with closing(source.open_frozen(run.folder.frozen)) as conn:
        frozen = source.count(conn, settings.threads)
    check = witness.check_live(run.connect, settings)
    exported = journal.fact("plan_batches", "exported", Counts) or Counts(0, 0, 0)
    drift = journal.fact("promote", "drift", Drift) or Drift()
    now = journal.fact("promote", "source", Counts) or frozen
    differences, found, sampled = list(check.differences), check.found, 0
    agree = (
        now == _drifted(frozen, drift)
        and (frozen.checkpoints, frozen.writes) == (exported.checkpoints, exported.writes)
        and exported == check.staged
        and check.live == check.wanted
        and check.wanted + promotion.removed == check.staged
    )
    if settings.verify == "full":
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
        found += len(back.differences)
        sampled = back.checkpoints
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
    late = witness.check_recorded(run.connect, run.settings)
    recorded = (row.result or {}) if row else {}
    before = msgspec.convert(recorded["outcome"], Outcome) if "outcome" in recorded else None
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


__all__ = [
    "Outcome",
    "Run",
    "check_schema",
    "export_threads",
    "freeze_source",
    "load_batch",
    "plan_batches",
    "plan_shards",
    "promote_staging",
    "verify_counts",
    "verify_staged",
]
