"""What a report says of rehearsals: the forecast of the real run, and the last one beside it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..figures import format_about, format_bytes, format_count, format_seconds
from ..folding import folded
from ..rehearsal import Rehearsals
from .log import figure
from .prediction import Prediction, predict
from .report_json import Report
from .sentence import moved, plural
from .trend import moment_of, trend_of

GROWN = (1.0, 2.0)
FIGURES = ("time", "export folder", "server, at the fullest", "stays on the server")


def predictions(rehearsals: Rehearsals) -> list[Prediction]:
    """The real run as this rehearsal foretells it, with its data and with twice as much."""
    if rehearsals.this is None:
        return []
    return [p for growth in GROWN if (p := predict(rehearsals.this, growth)) is not None]


def forecast_rows(rehearsals: Rehearsals) -> list[tuple[str, tuple[str, ...]]]:
    """What the real run will take: each figure for the data as it is, and as it may grow to be."""
    columns = [_figures(predicted) for predicted in predictions(rehearsals)]
    return list(zip(FIGURES, zip(*columns, strict=True), strict=True)) if columns else []


def beside_rows(report: Report, rehearsals: Rehearsals) -> list[tuple[str, str, str]]:
    """This run's verdict, rows and duration, each beside the last rehearsal's; none without one."""
    last = rehearsals.last
    if rehearsals.this is not None or last is None:
        return []
    counts = report.counts
    seconds = "—" if report.seconds is None else format_seconds(report.seconds)
    return [
        ("verdict", report.verdict.value, last.verdict.value),
        ("threads", figure(report.threads.total), figure(last.threads)),
        ("checkpoints", figure(moved(counts.checkpoints)), figure(last.checkpoints)),
        ("pending writes", figure(moved(counts.writes)), figure(last.writes)),
        ("duration", seconds, format_seconds(last.seconds)),
    ]


def conflicts_told(rehearsals: Rehearsals) -> str:
    """What the live tables would say to the real run if it came now; "" where nobody asked them."""
    this = rehearsals.this
    if this is None:
        return ""
    if this.conflicts:
        return f"The real run would meet {plural(this.conflicts, 'conflict')} with live rows now."
    if this.succeeded:
        return "The real run would meet no conflict with live rows now."
    return "It did not come so far as to look for conflicts with live rows."


def told_on_page(report: Report, rehearsals: Rehearsals) -> dict[str, Any]:
    """What `rehearsals.html` draws."""
    return {
        "forecast": forecast_rows(rehearsals),
        "forecast_headings": [_name(predicted) for predicted in predictions(rehearsals)],
        "conflicts_told": conflicts_told(rehearsals),
        "beside": beside_rows(report, rehearsals),
        "beside_when": moment_of(rehearsals.last) if rehearsals.last else "",
        "trend": trend_of(rehearsals.trend) if rehearsals.this else None,
    }


def told_of_rehearsals(rehearsals: Rehearsals) -> list[str]:
    """The same as lines of a log."""
    return [line for text in _told(rehearsals) for line in folded(text)]


def _told(rehearsals: Rehearsals) -> Iterator[str]:
    for predicted in predictions(rehearsals):
        time, folder, server, stays = _figures(predicted)
        yield (
            f"The real run, with {_name(predicted)}: about {time}; {folder} in the export folder; {server} on the "
            f"server at the fullest, {stays} of it to stay."
        )
    if told := conflicts_told(rehearsals):
        yield told
    if rehearsals.this is not None and rehearsals.past:
        yield f"Rehearsals of this move so far: {format_count(len(rehearsals.trend))}."
    last = rehearsals.last
    if rehearsals.this is None and last is not None:
        yield (
            f"The last rehearsal, {moment_of(last)}: {last.verdict.value}, "
            f"{figure(last.checkpoints)} checkpoints in {format_seconds(last.seconds)}."
        )


def _name(predicted: Prediction) -> str:
    return "the data as it is" if predicted.growth == 1 else "twice the data"


def _figures(predicted: Prediction) -> tuple[str, ...]:
    sizes = (predicted.folder_bytes, predicted.server_bytes, predicted.stays_bytes)
    return (format_about(predicted.seconds), *map(format_bytes, sizes))
