"""The report of a run that goes on, or that ended without one: from what is known of it elsewhere. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from ..findings import Counts, Verdict
from .build import build_counts, build_moment, build_phases
from .page_facts import NOT_TOLD, Origin, PageFacts, Progress, Span
from .report_json import Report, SourceFacts, TargetFacts
from .summary import Summary
from .timing import working_seconds

STAY = "Leave the application on SQLite until a run ends `identical`."


@dataclass(frozen=True, slots=True, kw_only=True)
class SoFar:
    """What is known of a run from outside: its tasks, and the counts that they handed on.

    `progress` is None when the run is over. `failed` names its tasks that failed, the first one first.
    """

    dag_id: str
    run_id: str
    rehearsal: bool
    progress: Progress | None
    started: float | None = None
    finished: float | None = None
    failed: tuple[str, ...] = ()
    source: str | None = None
    conn_id: str | None = None
    schema: str | None = None
    server_version: str | None = None
    format: str | None = None
    counted: Counts | None = None
    frozen: Counts | None = None
    exported: Counts | None = None
    inserted: Counts | None = None
    already_live: Counts | None = None
    spans: tuple[Span, ...] = ()
    origin: Origin = NOT_TOLD


def summary_so_far(known: SoFar) -> Summary:
    """A summary whose verdict is `unproven`, with a sentence that says how far the run is."""
    report = Report(
        run_id=known.run_id,
        dag_id=known.dag_id,
        started=_moment(known.started),
        finished=_moment(known.finished),
        succeeded=False,
        source=SourceFacts(known.source, known.format),
        target=TargetFacts(known.conn_id, None, known.schema, known.server_version),
        verdict=Verdict.UNPROVEN,
        sentence=_sentence(known),
        next_steps=tuple(_next_steps(known)),
        counts=build_counts(source=known.counted, frozen=known.frozen, exported=known.exported),
        phases=build_phases(_phases(known.spans)),
    )
    facts = PageFacts(
        rehearsal=known.rehearsal,
        inserted=known.inserted,
        already_live=known.already_live,
        origin=known.origin,
        spans=known.spans,
        progress=known.progress,
    )
    return Summary(report, facts)


def _sentence(known: SoFar) -> str:
    what = "rehearsal" if known.rehearsal else "migration"
    if known.progress is None:
        after = f": `{known.failed[0]}` failed" if known.failed else ""
        return f"The {what} ended{after}, and its report did not reach Airflow."
    if known.failed:
        return f"The {what} has failed in `{known.failed[0]}`; its report comes as soon as it is written."
    if known.inserted is not None:
        return f"The {what} goes on: its rows are in place, and are now looked at again."
    return f"The {what} goes on; until it promotes, the live tables are exactly as they were."


def _next_steps(known: SoFar) -> list[str]:
    if known.progress is not None:
        return [f"Wait for the verdict: this page follows the run. {STAY}"]
    task = known.failed[0] if known.failed else "report"
    return [f"Read the log of task `{task}`, then clear it or trigger the DAG again.", STAY]


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else build_moment(datetime.fromtimestamp(seconds, UTC))


def _phases(spans: tuple[Span, ...]) -> list[tuple[str, float, None]]:
    ended = [span for span in spans if span.finished is not None]
    names = dict.fromkeys(span.phase for span in ended)
    return [
        (
            name,
            working_seconds((s.started, s.finished or s.started) for s in ended if s.phase == name),
            None,
        )
        for name in names
    ]
