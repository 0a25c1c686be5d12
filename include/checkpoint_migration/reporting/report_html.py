"""The report as one self-contained page of HTML: no script, nothing fetched, everything escaped."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from ..figures import format_bytes, format_rate, format_seconds
from ..findings import Blocker, Difference
from ..texts import quoted
from .leaving_out import exclusions
from .log import figure
from .report_json import DriftFigures, Report
from .sentence import counts_line, moved, real_warnings, total_of, where

CUT = 80
KINDS = ("differences", "blockers", "conflicts")


def render_page(report: Report) -> str:
    """Return the page; it opens with the verdict in four lines."""
    warnings = real_warnings(report)
    looked_at = _looked_at(report)
    clean = [kind for kind in KINDS if kind in looked_at and not getattr(report, kind)]
    return _template().render(
        report=report,
        counts_line=counts_line(report),
        duration="not known" if report.seconds is None else format_seconds(report.seconds),
        when=_when(report),
        count_rows=list(_count_rows(report)),
        findings=list(_findings(report)),
        warnings=warnings,
        clean=[*clean, *([] if warnings or not looked_at else ["warnings"])],
        exclusions=exclusions(report),
        drift_rows=list(_drift_rows(report.drift)),
        phases=list(_phases(report)),
    )


def _looked_at(report: Report) -> set[str]:
    """The kinds of findings that the run got far enough to look for: of others nothing is said."""
    reached = report.counts.checkpoints
    stages = {
        "blockers": reached.exported,
        "differences": reached.staged,
        "conflicts": reached.live,
    }
    return {kind for kind, count in stages.items() if count is not None}


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(figure=figure, name=_name, prose=_prose, size=_size_or_dash)
    return environment.get_template("page.html")


def _shown(value: Any) -> Any:
    """What the page may hold of any text: characters that print, and line breaks."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return "" if value is None else value
    if value.isprintable():
        return value
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in value)


def _prose(text: str) -> Markup:
    """A sentence with what stands in backticks as code."""
    parts = _shown(text).split("`")
    if len(parts) % 2 == 0:
        return escape(_shown(text))
    return Markup().join(
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part)
        for place, part in enumerate(parts)
    )


def _name(text: str) -> str:
    """An id of a database: as it is where it is plain, else quoted, escaped and cut."""
    plain = text.isprintable() and text == text.strip() and 0 < len(text) <= CUT
    shown = text if plain else quoted(text, CUT)
    return shown if len(text) <= CUT else f"{shown} ({len(text):,} characters)"


def _size_or_dash(count: int | None) -> str:
    return "—" if count is None else format_bytes(count)


def _when(report: Report) -> str:
    moments = [
        datetime.fromisoformat(moment).strftime("%Y-%m-%d %H:%M:%S")
        for moment in (report.started, report.finished)
        if moment is not None
    ]
    if len(moments) == 2 and moments[0][:10] == moments[1][:10]:
        moments[1] = moments[1][11:]
    return " to ".join(moments) + " UTC" if moments else ""


def _count_rows(report: Report) -> Iterator[tuple[str, list[tuple[str, bool]]]]:
    """Each stage with its figures, and whether each is another than what was to be moved."""
    counts = report.counts
    blobs = counts.blobs
    right = (moved(counts.checkpoints), moved(counts.writes), moved(blobs))
    for stage in ("source", "frozen", "exported", "staged", "live"):
        found = [getattr(kind, stage, None) for kind in (counts.checkpoints, counts.writes, blobs)]
        cells = [(figure(f), f is not None and f != r) for f, r in zip(found, right, strict=True)]
        if not hasattr(blobs, stage):
            cells[2] = ("", False)
        yield "SQLite" if stage == "source" else stage, cells


def _findings(report: Report) -> Iterator[tuple[str, int, list[tuple[str, ...]]]]:
    """A title, how many in all, and the rows listed, for each kind of finding that there is."""
    for kind in KINDS:
        if listed := getattr(report, kind):
            yield kind.capitalize(), total_of(report, kind), [_finding(place) for place in listed]


def _finding(place: Difference | Blocker) -> tuple[str, ...]:
    return (place.thread_id, place.checkpoint_ns, place.checkpoint_id, where(place), place.why)


def _drift_rows(drift: DriftFigures) -> Iterator[tuple[str, list[str]]]:
    for name, change in (("checkpoints", drift.checkpoints), ("pending writes", drift.writes)):
        yield name, [figure(f) for f in (change.added, change.changed, change.removed)]


def _phases(report: Report) -> Iterator[tuple[str, str, str, float]]:
    """Each phase with its seconds, its rate, and its bar's length in percent of the longest."""
    longest = max((phase.seconds for phase in report.phases), default=0) or 1
    for phase in report.phases:
        rate = phase.checkpoints_per_second
        spelled = "" if rate is None else format_rate(rate)
        share = round(100 * phase.seconds / longest, 1)
        yield phase.name, format_seconds(phase.seconds), spelled, share
