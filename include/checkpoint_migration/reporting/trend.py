"""Past rehearsals as what a plot draws: a bar for each one's time, a line for its checkpoints. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ..figures import format_count, format_seconds
from ..findings import Verdict
from ..rehearsal import Rehearsal
from .log import figure

FEWEST = 2  # one is no trend
LISTED = 8
WIDEST = 6.0  # percent of the plot for a bar


@dataclass(frozen=True, slots=True)
class Bar:
    """A rehearsal: where its bar stands and how high, in percent, and what it says."""

    left: float
    width: float
    height: float
    verdict: Verdict
    told: str


@dataclass(frozen=True, slots=True)
class Trend:
    """The plot; `line` are the points of an SVG polyline, in percent from the upper left."""

    bars: tuple[Bar, ...]
    line: str
    longest: str
    most: str
    first: str
    last: str
    rows: tuple[tuple[str, Verdict, str, str], ...]
    more: int

    @property
    def told(self) -> str:
        """What the plot shows, for those who do not see it."""
        first, last = self.bars[0].told, self.bars[-1].told
        return f"{len(self.bars)} rehearsals: the first {first}; the last {last}"


def trend_of(rehearsals: Sequence[Rehearsal]) -> Trend | None:
    """The plot of rehearsals, the oldest first; None where they are too few for one."""
    if len(rehearsals) < FEWEST:
        return None
    longest = max(r.seconds for r in rehearsals) or 1.0
    counts = [r.checkpoints or 0 for r in rehearsals]
    most = max(counts) or 1
    slot = 100 / len(rehearsals)
    width = min(WIDEST, 0.7 * slot)
    middles = [slot * (place + 0.5) for place in range(len(rehearsals))]
    bars = tuple(
        Bar(
            round(middle - width / 2, 2),
            round(width, 2),
            round(max(1.0, 100 * r.seconds / longest), 2),
            r.verdict,
            _told(r),
        )
        for r, middle in zip(rehearsals, middles, strict=True)
    )
    points = (
        f"{middle:.2f},{100 - 96 * count / most:.2f}"
        for middle, count in zip(middles, counts, strict=True)
    )
    return Trend(
        bars,
        " ".join(points),
        format_seconds(longest),
        format_count(max(counts)),
        moment_of(rehearsals[0]),
        moment_of(rehearsals[-1]),
        tuple(_row(r) for r in reversed(rehearsals[-LISTED:])),
        max(0, len(rehearsals) - LISTED),
    )


def moment_of(rehearsal: Rehearsal) -> str:
    """When a rehearsal began, in UTC: `2026-11-26 10:41`."""
    return datetime.fromisoformat(rehearsal.started).strftime("%Y-%m-%d %H:%M")


def _told(rehearsal: Rehearsal) -> str:
    checkpoints = figure(rehearsal.checkpoints)
    return (
        f"{moment_of(rehearsal)}, {rehearsal.verdict.value}, {checkpoints} checkpoints in "
        f"{format_seconds(rehearsal.seconds)}"
    )


def _row(rehearsal: Rehearsal) -> tuple[str, Verdict, str, str]:
    seconds = format_seconds(rehearsal.seconds)
    return moment_of(rehearsal), rehearsal.verdict, figure(rehearsal.checkpoints), seconds
