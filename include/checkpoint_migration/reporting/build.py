"""From what the rooms of the engine hand on to the parts of a report. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from msgspec import structs

from ..errors import described
from ..findings import Blocker, Caution, Change, Counts, Difference, Drift, Verdict
from ..model import SourceInfo, ThreadStat
from ..settings import ThreadFilter
from ..texts import printable
from .next_steps import next_steps
from .omissions import omitted
from .report_json import (
    BlobStages,
    ChangeFigures,
    DriftFigures,
    ErrorFacts,
    NamespaceLine,
    Phase,
    Report,
    RowCounts,
    Scope,
    Share,
    SourceFacts,
    Stages,
    StoreFacts,
    TargetFacts,
    ThreadLine,
    Threads,
)
from .sentence import Situation, sentence

Finding = TypeVar("Finding", Difference, Blocker)

LISTED = 1000
EXAMPLES = 10


def build_source(uri: str | None, info: SourceInfo | None = None) -> SourceFacts:
    """`uri` alone when the source could not be looked at."""
    return SourceFacts(uri) if info is None else SourceFacts(info.uri, info.format, info.bytes)


def build_counts(
    *,
    source: Counts | None = None,
    frozen: Counts | None = None,
    exported: Counts | None = None,
    staged: Counts | None = None,
    live: Counts | None = None,
    store_tables: tuple[str, ...] = (),
) -> RowCounts:
    """A stage that was not reached is None; `store_tables` are those of the store's that are taken."""
    stages = (source, frozen, exported, staged, live)
    blobs = [None if c is None else c.blobs for c in (exported, staged, live)]
    return RowCounts(
        Stages(*(None if c is None else c.checkpoints for c in stages)),
        Stages(*(None if c is None else c.writes for c in stages)),
        BlobStages(*blobs),
        Stages(*(None if c is None else c.items for c in stages)) if store_tables else None,
        Stages(*(None if c is None else c.vectors for c in stages)) if store_tables[1:] else None,
    )


def build_threads(
    stats: Iterable[ThreadStat] | None,
    verdict_of: Callable[[str], Verdict],
    *,
    cap: int = LISTED,
) -> Threads:
    """List at most `cap` threads, those that differ first; `stats` is read once and never held."""
    if stats is None:
        return Threads()
    total = 0
    kept: dict[Verdict, list[ThreadLine]] = {
        verdict: [] for verdict in (Verdict.DIFFERENT, Verdict.UNPROVEN, Verdict.IDENTICAL)
    }
    for stat in stats:
        total += 1
        name = printable(stat.thread_id)
        verdict = verdict_of(name)
        if len(kept[verdict]) < cap:
            kept[verdict].append(ThreadLine(name, verdict, stat.checkpoints, stat.writes))
    listed = tuple(line for lines in kept.values() for line in lines)[:cap]
    return Threads(total, listed, total - len(listed))


def build_scope(
    stats: Iterable[ThreadStat], thread_filter: ThreadFilter, store: Share | None = None
) -> Scope:
    """Count what a filter takes of all threads, and what it leaves; `stats` is read once."""
    threads, checkpoints = [0, 0], [0, 0]
    for stat in stats:
        left_out = not thread_filter.takes(stat.thread_id)
        threads[left_out] += 1
        checkpoints[left_out] += stat.checkpoints
    return Scope(Share(*threads), Share(*checkpoints), thread_filter.globs or None, store)


def build_store(namespaces: Iterable[tuple[Any, int]], vectors: str) -> StoreFacts:
    """List at most 1,000 namespaces; they are read once and never held."""
    total = 0
    listed: list[NamespaceLine] = []
    for prefix, items in namespaces:
        total += 1
        if len(listed) < LISTED:
            name = printable(prefix) if isinstance(prefix, str | bytes) else str(prefix)
            listed.append(NamespaceLine(name, items))
    return StoreFacts(total, tuple(listed), total - len(listed), vectors)


def build_warnings(warnings: Iterable[Caution]) -> tuple[Caution, ...]:
    """Merge warnings of one kind and message: counts add up, the first ten examples stay."""
    merged: dict[tuple[str, str], Caution] = {}
    for warning in warnings:
        key = (warning.kind, warning.message)
        known = merged.get(key, structs.replace(warning, count=0, threads=()))
        threads = tuple(dict.fromkeys(known.threads + warning.threads))[:EXAMPLES]
        merged[key] = structs.replace(known, count=known.count + warning.count, threads=threads)
    return tuple(merged.values())


def build_drift(drift: Drift | None) -> DriftFigures:
    """None when drift was never judged."""
    if drift is None:
        return DriftFigures()
    return DriftFigures(
        _change(drift.checkpoints),
        _change(drift.writes),
        None if drift.items is None else _change(drift.items),
        None if drift.vectors is None else _change(drift.vectors),
    )


def _change(change: Change) -> ChangeFigures:
    return ChangeFigures(change.added, change.changed, change.removed)


def build_error(error: BaseException | Mapping[str, Any] | None) -> ErrorFacts | None:
    """Accept an exception, or what `errors.described` made of one."""
    if error is None:
        return None
    facts = error if isinstance(error, Mapping) else described(error)
    told = {key: str(facts[key]) for key in ("type", "what", "safe", "next")}
    return ErrorFacts(**told, transient=bool(facts["transient"]))


def build_phases(phases: Iterable[tuple[str, float, int | None]]) -> tuple[Phase, ...]:
    """Phases are (name, seconds, checkpoints moved, or None where the phase moves none)."""
    return tuple(
        Phase(
            name,
            round(seconds, 3),
            round(moved / seconds, 1) if moved is not None and seconds > 0 else None,
        )
        for name, seconds, moved in phases
    )


def build_report(
    situation: Situation,
    *,
    dag_id: str,
    run_id: str,
    started: datetime | None,
    finished: datetime | None,
    succeeded: bool,
    verdict: Verdict,
    source: SourceFacts | None = None,
    target: TargetFacts | None = None,
    counts: RowCounts | None = None,
    scope: Scope | None = None,
    threads: Threads | None = None,
    differences: Iterable[Difference] = (),
    found: int | None = None,
    conflicts: Iterable[Difference] = (),
    conflicting: int | None = None,
    warnings: Iterable[Caution] = (),
    blockers: Iterable[Blocker] = (),
    drift: DriftFigures | None = None,
    error: ErrorFacts | None = None,
    phases: Iterable[Phase] = (),
    store: StoreFacts | None = None,
) -> Report:
    """Return the whole report, its sentence, next steps and SQL written from the facts given.

    `found` and `conflicting` count all differences and conflicts where only the first are given.
    Lists are cut at 1,000; a warning of kind `differences_omitted`, `conflicts_omitted` or
    `blockers_omitted` then counts the rest. What is not given was not reached.
    """
    differences, more_differences = _cut("differences", differences, found)
    conflicts, more_conflicts = _cut("conflicts", conflicts, conflicting)
    blockers, more_blockers = _cut("blockers", blockers)
    report = Report(
        run_id=run_id,
        dag_id=dag_id,
        started=build_moment(started),
        finished=build_moment(finished),
        succeeded=succeeded,
        source=source or SourceFacts(),
        target=target or TargetFacts(),
        verdict=verdict,
        counts=counts or RowCounts(),
        scope=scope or Scope(),
        threads=threads or Threads(),
        differences=differences,
        conflicts=conflicts,
        warnings=(*warnings, *more_differences, *more_conflicts, *more_blockers),
        blockers=blockers,
        drift=drift or DriftFigures(),
        error=error,
        phases=tuple(phases),
        store=store,
    )
    return worded(report, situation)


def worded(report: Report, situation: Situation) -> Report:
    """Return the report with its sentence, next steps and SQL written anew from its facts."""
    # Imported here: it needs the driver of PostgreSQL, which whoever shows a page may not have.
    from .sql import statements

    return replace(
        report,
        sentence=sentence(report, situation),
        next_steps=tuple(next_steps(report, situation)),
        sql=tuple(statements(report, situation)),
    )


def _cut(
    kind: str, findings: Iterable[Finding], total: int | None = None
) -> tuple[tuple[Finding, ...], tuple[Caution, ...]]:
    """The first 1,000, and a warning that counts the rest if there is one."""
    listed: list[Finding] = []
    seen = 0
    for finding in findings:
        seen += 1
        if seen <= LISTED:
            listed.append(finding)
    rest = max(seen, total or 0) - len(listed)
    return tuple(listed), (omitted(kind, rest),) if rest else ()


def build_moment(moment: datetime | None) -> str | None:
    """A moment as the report has it: ISO 8601 in UTC, to the millisecond."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
