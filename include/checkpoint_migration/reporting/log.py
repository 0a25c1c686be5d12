"""The report as lines of a task's log. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..figures import format_count, format_rate, format_seconds
from ..findings import Blocker, Difference
from ..texts import quoted
from .report_json import Report
from .sentence import counts_line, drift_of, inner, real_warnings, total_of, where

FIRST = 10


def log_lines(report: Report) -> list[str]:
    """Return the report as a compact table: no line holds a line break, a value or a raw id."""
    return list(_lines(report))


def final_lines(report: Report, path: Path) -> list[str]:
    """Return the two plain lines that close a run's log; programs look for them."""
    return [f"verdict: {report.verdict}", f"report: {path}"]


def _lines(report: Report) -> Iterator[str]:
    yield report.sentence
    yield ""
    yield from _table(_count_rows(report))
    yield f"Counts {counts_line(report)}."
    for kind in ("differences", "blockers", "conflicts"):
        places = map(_place, getattr(report, kind))
        yield from _section(kind.capitalize(), total_of(report, kind), places)
    warnings = [
        f"{format_count(w.count)}: {inner(w.message)} ({w.kind})" for w in real_warnings(report)
    ]
    yield from _section("Warnings", len(warnings), warnings)
    if report.drift.checkpoints.added is not None:
        yield f"Drift: {drift_of(report) or 'none'}."
    if report.phases:
        yield ""
        yield from _table(_phase_rows(report))
    if report.error is not None:
        yield ""
        yield f"{report.error.type}: {inner(report.error.what)}."
        yield f"  What is safe:  {inner(report.error.safe)}."
    yield ""
    for number, step in enumerate(report.next_steps, 1):
        yield f"{number}. {inner(step)}."


def _count_rows(report: Report) -> Iterator[Sequence[str]]:
    counts = report.counts
    yield ("", "SQLite", "frozen", "exported", "staged", "live")
    for name, stages in (("checkpoints", counts.checkpoints), ("pending writes", counts.writes)):
        figures = (stages.source, stages.frozen, stages.exported, stages.staged, stages.live)
        yield (name, *map(figure, figures))
    blobs = counts.blobs
    yield ("blobs", "", "", *map(figure, (blobs.exported, blobs.staged, blobs.live)))


def figure(count: int | None) -> str:
    """A count, or a dash for one that was not reached."""
    return "—" if count is None else format_count(count)


def _phase_rows(report: Report) -> Iterator[Sequence[str]]:
    yield ("phase", "time", "checkpoints")
    for phase in report.phases:
        rate = phase.checkpoints_per_second
        yield (phase.name, format_seconds(phase.seconds), "" if rate is None else format_rate(rate))


def _table(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    listed = list(rows)
    widths = [max(len(cell) for cell in column) for column in zip(*listed, strict=True)]
    for first, *rest in listed:
        cells = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        yield "  ".join((first.ljust(widths[0]), *cells)).rstrip()


def _section(title: str, total: int, lines: Iterable[str]) -> Iterator[str]:
    if total:
        yield f"{title}: {format_count(total)}" + (f", the first {FIRST}" if total > FIRST else "")
        for line, _ in zip(lines, range(FIRST), strict=False):
            yield f"  {line}"


def _place(place: Difference | Blocker) -> str:
    parts = [f"thread {quoted(place.thread_id)}"]
    if place.checkpoint_ns:
        parts.append(f"namespace {quoted(place.checkpoint_ns)}")
    if place.checkpoint_id:
        parts.append(f"checkpoint {quoted(place.checkpoint_id)}")
    return f"{', '.join(parts)}, {where(place)}: {inner(place.why)}"
