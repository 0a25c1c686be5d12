"""The report as lines of a task's log. Pure."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple
from itertools import chain
from pathlib import Path

from ..figures import format_count, format_rate, format_seconds
from ..finding_places import is_of_store, place_of
from ..findings import Blocker, Difference, Verdict
from ..folding import folded
from ..texts import quoted
from .kinds import kinds
from .report_json import ErrorFacts, Report
from .sentence import (
    counts_line,
    drift_of,
    ended,
    inner,
    real_warnings,
    total_of,
    where,
)

FIRST = 10


Line = tuple[int, str]  # a level of `logging`, and the text


def log_lines(report: Report) -> list[str]:
    """Return the report as a compact table: no line holds a line break, a value or a raw id."""
    return [text for _, text in leveled_lines(report)]


def leveled_lines(report: Report) -> list[Line]:
    """Return the same lines, each with its level: errors are errors, warnings are warnings."""
    return list(_lines(report))


def final_lines(verdict: str, path: Path | str) -> list[str]:
    """Return the two plain lines that close a run's log; programs look for them."""
    return [f"verdict: {verdict}", f"report: {path}"]


def _lines(report: Report) -> Iterator[Line]:
    fault = logging.INFO if report.succeeded else logging.ERROR
    yield from _at(fault, folded(report.sentence))
    yield from _at(logging.INFO, ["", *_table(_count_rows(report))])
    unequal = logging.ERROR if report.verdict is Verdict.DIFFERENT else logging.INFO
    yield from _at(unequal, folded(f"Counts {counts_line(report)}."))
    grave = logging.WARNING if report.succeeded else logging.ERROR
    for kind in ("differences", "blockers", "conflicts"):
        places = map(_place, getattr(report, kind))
        yield from _at(grave, _section(kind.capitalize(), total_of(report, kind), places))
    warnings = [
        (f"{format_count(w.count)}: ", f"{inner(w.message)} ({w.kind})")
        for w in real_warnings(report)
    ]
    yield from _at(logging.WARNING, _section("Warnings", len(warnings), warnings))
    if report.drift.checkpoints.added is not None:
        drift = drift_of(report)
        level = logging.WARNING if drift else logging.INFO
        yield from _at(level, folded(f"Drift: {drift or 'none'}."))
    if report.phases:
        yield from _at(logging.INFO, ["", *_table(_phase_rows(report))])
    if report.error is not None:
        yield from _at(logging.ERROR, ["", *_error(report.error)])
    steps = (folded(ended(s), f"{n}. ") for n, s in enumerate(report.next_steps, 1))
    yield from _at(logging.INFO, ["", *chain.from_iterable(steps)])


def _at(level: int, lines: Iterable[str]) -> Iterator[Line]:
    return ((level, line) for line in lines)


def _error(error: ErrorFacts) -> Iterator[str]:
    yield from folded(f"{error.type}: {inner(error.what)}.")
    yield from folded(f"{inner(error.safe)}.", "  What is safe:  ")


def _count_rows(report: Report) -> Iterator[Sequence[str]]:
    yield ("", "SQLite", "frozen", "exported", "staged", "live")
    for kind in kinds(report):
        figures = list(map(figure, astuple(kind.stages)))
        yield (kind.name, *([""] * (5 - len(figures))), *figures)


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


def _section(title: str, total: int, entries: Iterable[tuple[str, str]]) -> Iterator[str]:
    """A heading, and below it the first entries, each with what comes before its text."""
    if total:
        yield f"{title}: {format_count(total)}" + (f", the first {FIRST}" if total > FIRST else "")
        for (label, text), _ in zip(entries, range(FIRST), strict=False):
            yield from folded(text, f"  {label}", inside=4)


def _place(place: Difference | Blocker) -> tuple[str, str]:
    if is_of_store(place):
        return "", f"{place_of(place)}, {where(place)}: {inner(place.why)}"
    parts = [f"thread {quoted(place.thread_id)}"]
    if place.checkpoint_ns:
        parts.append(f"namespace {quoted(place.checkpoint_ns)}")
    if place.checkpoint_id:
        parts.append(f"checkpoint {quoted(place.checkpoint_id)}")
    return "", f"{', '.join(parts)}, {where(place)}: {inner(place.why)}"
