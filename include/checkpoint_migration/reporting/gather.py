"""From what a run's steps recorded to its report; works after any failure."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from msgspec import structs

from .. import source
from ..errors import MigrationError
from ..findings import Caution, Counts, Difference, Promotion, Verdict, WitnessResult
from ..model import SourceInfo
from ..run import ledger, records
from ..run.journal import Entry, Journal
from ..run.run import Run
from ..settings import ThreadFilter
from .build import (
    build_counts,
    build_drift,
    build_error,
    build_moment,
    build_phases,
    build_report,
    build_scope,
    build_source,
    build_store,
    build_threads,
    build_warnings,
    worded,
)
from .report_json import ErrorFacts, Report, Scope, Share, StoreFacts, TargetFacts, Threads
from .run_warnings import noted_warnings
from .sentence import Situation
from .timing import working_seconds

Entries = Sequence[Entry[Any]]
NO_PHASE = records.JudgeDrift  # a part of promote


def gather(run: Run) -> Report:
    """The report of a run, from what its journal holds."""
    settings, journal = run.settings, run.journal
    entries = _all_entries(journal)
    error = _last_error(entries)
    checked = journal.record(records.CheckSchema)
    promoted = journal.record(records.Promote)
    result = journal.record(records.VerifyCounts).result
    differences, found = _differences(result, journal)
    verdict = result.verdict if result else Verdict.DIFFERENT if found else Verdict.UNPROVEN
    return build_report(
        Situation(
            settings=settings,
            promoted=_is_promoted(run, promoted.promotion),
            created_tables=any(t and t.created_tables for t in (checked.target, checked.store)),
            staging_left=bool(journal.entries(records.LoadBatch)) and not settings.rehearsal,
            folder=run.folder.where,
            kept_bytes=run.folder.kept_bytes(),
        ),
        dag_id=settings.dag_id,
        run_id=settings.run_id,
        started=_moment(min((e.started for e in entries), default=None)),
        finished=datetime.now(UTC),
        succeeded=error is None and bool(journal.entries(records.VerifyCounts)),
        verdict=verdict,
        source=build_source(settings.source, checked.source),
        target=_target(run, checked),
        counts=_counts(journal, checked, result),
        scope=_scope(run),
        threads=_threads(run, verdict, differences),
        differences=differences,
        found=found,
        conflicts=promoted.promotion.conflicts if promoted.promotion else promoted.conflicts or (),
        conflicting=(
            promoted.promotion.conflicting if promoted.promotion else promoted.conflicting
        ),
        warnings=build_warnings(noted_warnings(journal)),
        blockers=journal.record(records.PlanBatches).blockers or (),
        drift=build_drift(journal.record(records.JudgeDrift).drift),
        error=error,
        phases=build_phases(_phases(journal)),
        store=_store(run, checked),
    )


def gather_again(run: Run, recorded: Report) -> Report:
    """The report of a run that was done before and whose tasks were cleared since."""
    situation = Situation(settings=run.settings, promoted=True)
    result = run.journal.record(records.VerifyCounts).result
    error = _last_error(_all_entries(run.journal))
    late = result.late if result else None
    if result is None or late is None:
        succeeded = recorded.succeeded and error is None
        return worded(replace(recorded, error=error, succeeded=succeeded), situation)
    looked = Caution(
        "looked_again",
        f"looked at again on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC: of {late.recorded:,} rows "
        f"recorded, {late.unchanged:,} are live as they were, {late.changed:,} changed and "
        f"{late.missing:,} are missing",
        late.changed + late.missing,
    )
    others = tuple(w for w in recorded.warnings if w.kind != looked.kind)
    looked_at = replace(
        recorded,
        finished=build_moment(datetime.now(UTC)),
        verdict=result.verdict,
        warnings=(*others, looked),
        error=error,
        succeeded=error is None,
    )
    return worded(looked_at, situation)


def _all_entries(journal: Journal) -> Entries:
    return list(chain.from_iterable(journal.entries(kind) for kind in records.ALL))


def _last_error(entries: Entries) -> ErrorFacts | None:
    failed = [entry for entry in entries if entry.error is not None]
    return build_error(max(failed, key=lambda e: e.finished).error) if failed else None


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _differences(
    result: WitnessResult | None, journal: Journal
) -> tuple[tuple[Difference, ...], int]:
    if result is not None and result.found:
        return result.differences, result.found
    entries = journal.entries(records.VerifyStaged)
    verdicts = [e.record.verdict for e in entries if e.record.verdict is not None]
    listed = chain.from_iterable(verdict.differences for verdict in verdicts)
    return tuple(listed), sum(verdict.found for verdict in verdicts)


def _is_promoted(run: Run, promotion: Promotion | None) -> bool | None:
    """Whether rows of the run are live; None where the ledger cannot be asked."""
    if promotion is not None:
        return True
    # promote keeps its own entry when it ends, and what it thinks of drift before it begins
    if not any(run.journal.entries(kind) for kind in (records.Promote, records.JudgeDrift)):
        return False
    try:
        return ledger.is_promoted(run.connect, run.settings.key)
    except MigrationError:
        return None


def _target(run: Run, checked: records.CheckSchema) -> TargetFacts:
    return TargetFacts(
        run.settings.conn_id,
        checked.target.database if checked.target else None,
        run.settings.live_schema,
        checked.target.server_version if checked.target else None,
    )


def _counts(journal: Journal, checked: records.CheckSchema, result: WitnessResult | None) -> Any:
    if result is not None and result.frozen is not None:
        return build_counts(
            source=result.source,
            frozen=result.frozen,
            exported=result.exported,
            staged=result.staged,
            live=result.live,
            store_tables=checked.store_tables,
        )
    frozen = journal.record(records.FreezeSource).frozen
    now = journal.record(records.JudgeDrift).source
    return build_counts(
        source=now or _counts_of(checked.source),
        frozen=_counts_of(frozen),
        exported=journal.record(records.PlanBatches).exported,
        staged=_staged(journal),
        store_tables=checked.store_tables,
    )


def _counts_of(info: SourceInfo | None) -> Counts | None:
    """What a look at the source counted, its store included."""
    if info is None or info.store is None:
        return info.counts if info else None
    return structs.replace(info.counts, items=info.store.items, vectors=info.store.vectors)


def _store(run: Run, checked: records.CheckSchema) -> StoreFacts | None:
    """The store that the run takes; None where it takes none, or has not frozen it."""
    if checked.store is None or not run.folder.has_frozen():
        return None
    vectors = "copied" if checked.store.vectors else "not_copied" if checked.store.why else "none"
    try:
        with closing(source.open_frozen(run.folder.fetch_frozen())) as frozen:
            return build_store(source.namespaces(frozen), vectors)
    except MigrationError:
        return None


def _staged(journal: Journal) -> Counts | None:
    """What the oracle counted in staging, once it has looked at every shard."""
    entries = journal.entries(records.VerifyStaged)
    verdicts = [e.record.verdict for e in entries if e.error is None and e.record.verdict]
    if not verdicts or len(verdicts) != journal.record(records.PlanShards).shards:
        return None
    return sum((verdict.counts for verdict in verdicts), Counts(0, 0, 0))


def _scope(run: Run) -> Scope:
    globs = run.settings.threads.globs or None
    if not run.folder.has_frozen():
        return Scope(globs=globs)
    try:
        with closing(source.open_frozen(run.folder.fetch_frozen())) as frozen:
            threads = source.thread_counts(frozen, ThreadFilter())
            return build_scope(threads, run.settings.threads, _share_of_store(run, frozen))
    except MigrationError as error:
        if error.transient:  # without it nobody can be told to switch: the report is tried again
            raise
        return Scope(globs=globs)


def _share_of_store(run: Run, frozen: sqlite3.Connection) -> Share | None:
    """What the run takes of the store, and what it leaves; None where there is none, or none asked for."""
    checked = run.journal.record(records.CheckSchema)
    if checked.source is None or checked.source.store is None:
        return None
    items = source.count_store(frozen, ("store",)).items
    return Share(items, 0) if checked.store is not None else Share(0, items)


def _threads(run: Run, verdict: Verdict, differences: Sequence[Difference]) -> Threads:
    if not run.folder.has_frozen():
        return Threads()
    differing = {difference.thread_id for difference in differences}

    def verdict_of(thread_id: str) -> Verdict:
        if thread_id in differing:
            return Verdict.DIFFERENT
        return Verdict.IDENTICAL if verdict is Verdict.DIFFERENT else verdict

    try:
        with closing(source.open_frozen(run.folder.fetch_frozen())) as frozen:
            return build_threads(source.thread_counts(frozen, run.settings.threads), verdict_of)
    except MigrationError:
        return Threads()


def _phases(journal: Journal) -> Iterable[tuple[str, float, int | None]]:
    for kind in records.ALL:
        parts = journal.entries(kind)
        if parts and kind is not NO_PHASE:
            moved = [e.record.moved for e in parts if e.record.moved is not None]
            seconds = working_seconds((e.started, e.finished) for e in parts)
            yield kind.step, seconds, sum(moved) if moved else None
