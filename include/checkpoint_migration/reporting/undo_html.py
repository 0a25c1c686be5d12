"""The page of an undo in Airflow's UI: what went, what stayed and why; nothing fetched, all escaped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from markupsafe import Markup

from .report_html import SCRIPT, STYLE, policy, templates
from .summary import storable
from .undo_json import UndoReport

# The colours of verdicts: all is well, somebody has to look, nothing is known.
TONES = {
    "undone": "identical",
    "nothing": "identical",
    "partly": "different",
    "failed": "different",
}


def summarized_undo(report: UndoReport) -> dict[str, Any]:
    """The report as plain JSON that any database takes; its lists are short already."""
    plain: dict[str, Any] = storable(msgspec.to_builtins(report))
    return plain


def read_undo(plain: Any) -> UndoReport | None:
    """The report that `summarized_undo` made; None for anything else, as of another release."""
    if not isinstance(plain, Mapping):
        return None
    try:
        return msgspec.convert(plain, UndoReport)
    except msgspec.ValidationError:
        return None


def tone_of(outcome: str) -> str:
    """The class in which an outcome is shown."""
    return TONES.get(outcome, "unproven")


def render_undo(
    report: UndoReport | None,
    *,
    run_id: str,
    asked: str | None,
    state: str,
    refresh_seconds: int | None = None,
    list_href: str | None = None,
) -> str:
    """Return the page of the run `run_id`, which undoes the run `asked`; `state` is what Airflow says of
    it. Without a report it says whether to wait for one, or where to look.
    """
    outcome = report.outcome if report else state
    return (
        templates()
        .get_template("undo.html")
        .render(
            report=report,
            run_id=run_id,
            asked=asked,
            outcome=outcome,
            tone=tone_of(outcome),
            refresh_seconds=refresh_seconds,
            list_href=list_href,
            policy=policy(live=refresh_seconds is not None),
            style=Markup(STYLE),  # noqa: S704 - files of our own
            script=Markup(SCRIPT),  # noqa: S704
        )
    )
