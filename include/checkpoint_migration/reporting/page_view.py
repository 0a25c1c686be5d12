"""A report's facts as the rows, shares and moments that the page shows. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple
from datetime import UTC, datetime
from statistics import median
from typing import NamedTuple

from ..figures import format_bytes, format_count, format_rate, format_seconds
from ..findings import Blocker, Counts, Difference
from .kinds import kinds
from .log import figure
from .page_facts import PageFacts, Span
from .report_json import Report
from .sentence import moved, total_of, where
from .summary import merged

KINDS = ("differences", "conflicts", "blockers")
BARS = 60  # of a plot: narrower ones would not be seen


class Bar(NamedTuple):
    """A piece of a plot, in percent of its length."""

    start: float
    length: float
    failed: bool = False


class Plot(NamedTuple):
    """Upright bars, each with its height in percent; what they say in a sentence."""

    bars: list[Bar]
    told: str


def when(report: Report) -> str:
    """From when to when, in UTC."""
    moments = [
        datetime.fromisoformat(moment).strftime("%Y-%m-%d %H:%M:%S")
        for moment in (report.started, report.finished)
        if moment is not None
    ]
    if len(moments) == 2 and moments[0][:10] == moments[1][:10]:
        moments[1] = moments[1][11:]
    return " to ".join(moments) + " UTC" if moments else ""


def looked_at(report: Report) -> set[str]:
    """The kinds of findings that the run got far enough to look for: of others nothing is said."""
    reached = report.counts.checkpoints
    stages = {
        "blockers": reached.exported,
        "differences": reached.staged,
        "conflicts": reached.live,
    }
    return {kind for kind, count in stages.items() if count is not None}


def count_rows(report: Report) -> Iterator[tuple[str, list[tuple[str, bool]]]]:
    """Each stage with its figures, and whether each is another than what was to be moved."""
    columns = [kind.stages for kind in kinds(report)]
    right = [*map(moved, columns)]
    for stage in ("source", "frozen", "exported", "staged", "live"):
        found = [getattr(stages, stage, None) for stages in columns]
        cells = [
            (figure(f), f is not None and f != r) if hasattr(stages, stage) else ("", False)
            for f, r, stages in zip(found, right, columns, strict=True)
        ]
        yield "SQLite" if stage == "source" else stage, cells


def findings(report: Report) -> Iterator[tuple[str, int, list[tuple[str, ...]]]]:
    """A title, how many in all, and the rows listed, for each kind of finding that there is."""
    for kind in KINDS:
        if listed := getattr(report, kind):
            yield kind.capitalize(), total_of(report, kind), [_finding(place) for place in listed]


def _finding(place: Difference | Blocker) -> tuple[str, ...]:
    return (place.thread_id, place.checkpoint_ns, place.checkpoint_id, where(place), place.why)


def drift_rows(report: Report) -> Iterator[tuple[str, list[str]]]:
    for kind in kinds(report):
        if kind.drift is not None:
            yield kind.name, [*map(figure, astuple(kind.drift))]


def live_rows(facts: PageFacts) -> Iterator[tuple[str, list[str]]]:
    """What promote found: rows that are new on live, and rows that were there already."""
    told = (
        ("new in PostgreSQL", facts.inserted),
        ("live before, and equal", facts.already_live),
        ("kept away: removed in PostgreSQL", facts.removed),
    )
    for name, counts in told:
        if counts is not None and (counts != Counts(0, 0, 0) or counts is facts.inserted):
            yield name, [figure(counts.checkpoints), figure(counts.writes), figure(counts.blobs)]


def phases(report: Report) -> Iterator[tuple[str, str, str, float]]:
    """Each phase with its seconds, its rate, and its bar's length in percent of the longest."""
    longest = max((phase.seconds for phase in report.phases), default=0) or 1
    for phase in report.phases:
        rate = phase.checkpoints_per_second
        spelled = "" if rate is None else format_rate(rate)
        yield phase.name, format_seconds(phase.seconds), spelled, _percent(phase.seconds, longest)


def timeline(facts: PageFacts) -> Iterator[tuple[str, list[Bar], str, str]]:
    """Each phase with its tasks in real time, when it began, and how long it took from first to last."""
    ended = [s.finished or s.started for s in facts.spans]
    if not ended:
        return
    began = min(span.started for span in facts.spans)
    whole = max(ended) - began or 1.0
    groups: dict[str, list[Span]] = {}
    for span in facts.spans:
        groups.setdefault(span.phase, []).append(span)
    for phase, spans in groups.items():
        first = min(span.started for span in spans)
        last = max(span.finished or max(ended) for span in spans)
        bars = [_bar(span, began, whole, max(ended)) for span in spans]
        clock = datetime.fromtimestamp(first, UTC).strftime("%H:%M:%S")
        tasks = f"{format_count(len(spans))} tasks, " if len(spans) > 1 else ""
        yield phase, bars, clock, tasks + format_seconds(max(0.0, last - first))


def _bar(span: Span, began: float, whole: float, now: float) -> Bar:
    seconds = max(0.0, (span.finished or now) - span.started)
    return Bar(
        _percent(span.started - began, whole), max(0.3, _percent(seconds, whole)), span.failed
    )


def throughput(facts: PageFacts) -> Plot | None:
    """Checkpoints a second of each task that loaded batches; neighbours share a bar."""
    batches = merged(facts.batches, BARS)
    if len(batches) < 2:
        return None
    rates = [b.checkpoints / max(b.seconds, 0.001) for b in batches]
    told = (
        f"{format_count(len(facts.batches))} loads of batches in the order in which they began: "
        f"{format_rate(median(rates))} in the middle, {format_rate(min(rates))} at the slowest, "
        f"{format_rate(max(rates))} at the fastest"
    )
    return Plot([Bar(0, _percent(rate, max(rates) or 1)) for rate in rates], told)


def sizes(facts: PageFacts) -> list[tuple[str, str, float]]:
    """Each form of the data with its size, and its bar's length in percent of the largest."""
    known = [(size.name, size.bytes) for size in facts.sizes if size.bytes is not None]
    largest = max((count for _, count in known), default=0) or 1
    return [(name, format_bytes(count), _percent(count, largest)) for name, count in known]


def _percent(part: float, whole: float) -> float:
    return round(100 * part / whole, 2)
