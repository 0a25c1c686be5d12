"""The report as one self-contained page of HTML: nothing fetched, everything escaped.

The same page is the report of a run that goes on, which its own script then brings up to date.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from ..figures import format_bytes, format_seconds
from ..texts import quoted
from . import page_view as view
from .answer import QUESTION, answer
from .forecast import told_on_page
from .kinds import kinds
from .leaving_out import exclusions
from .log import figure
from .page_facts import NO_FACTS, PageFacts
from .report_json import Report
from .sentence import counts_line, real_warnings

CUT = 80
HERE = Path(__file__).parent
STYLE = (HERE / "page.css").read_text(encoding="utf-8")
SCRIPT = (HERE / "page.js").read_text(encoding="utf-8")


def render_page(
    report: Report,
    facts: PageFacts = NO_FACTS,
    *,
    refresh_seconds: int | None = None,
    list_href: str | None = None,
) -> str:
    """Return the page; it opens with whether to switch, and the verdict.

    With `refresh_seconds` it asks where it came from for a newer one, until that is final.
    `list_href` leads to the other runs.
    """
    warnings = real_warnings(report)
    looked_at = view.looked_at(report)
    clean = [kind for kind in view.KINDS if kind in looked_at and not getattr(report, kind)]
    if not warnings and looked_at:
        clean.append("warnings")
    yes_or_no, because = answer(report, facts)
    return (
        templates()
        .get_template("page.html")
        .render(
            report=report,
            facts=facts,
            question=QUESTION,
            answer=yes_or_no,
            because=because,
            counts_line=counts_line(report),
            duration="not known" if report.seconds is None else format_seconds(report.seconds),
            when=view.when(report),
            count_heads=[kind.name for kind in kinds(report)],
            count_rows=list(view.count_rows(report)),
            live_rows=list(view.live_rows(facts)),
            findings=list(view.findings(report)),
            warnings=warnings,
            clean=[] if facts.progress else clean,
            exclusions=exclusions(report),
            drift_rows=list(view.drift_rows(report)),
            phases=list(view.phases(report)),
            timeline=list(view.timeline(facts)),
            throughput=view.throughput(facts),
            sizes=view.sizes(facts),
            policy=policy(live=refresh_seconds is not None),
            style=Markup(STYLE),  # noqa: S704 - files of our own
            script=Markup(SCRIPT),  # noqa: S704
            refresh_seconds=refresh_seconds,
            list_href=list_href,
            **told_on_page(report, facts.rehearsals),
        )
    )


@cache
def policy(*, live: bool = False) -> str:
    """The content security policy of a page: this style, this script, and nothing from anywhere.

    One that follows a run may ask its own server for the newer one.
    """
    connect = "connect-src 'self'; " if live else ""
    return (
        f"default-src 'none'; style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)}; {connect}"
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


@cache
def templates() -> Environment:
    """The templates of this room, in which everything is escaped."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(figure=figure, name=_name, prose=_prose, size=_size_or_dash)
    return environment


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
