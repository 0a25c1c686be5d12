"""The page that lists past migrations: a row for each run, nothing fetched, everything escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ..findings import Verdict
from .report_html import SCRIPT, STYLE, policy, templates
from .undo_html import tone_of


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLine:
    """A run as the list shows it; `verdict` is None while it has none, `href` leads to its report.

    One that undoes another has that one in `undoes`, and an `outcome` for a verdict.
    """

    run_id: str
    href: str
    state: str
    started: str
    source: str | None = None
    target: str | None = None
    verdict: Verdict | None = None
    rehearsal: bool = False
    checkpoints: int | None = None
    writes: int | None = None
    duration: str = ""
    undoes: str | None = None
    outcome: str | None = None

    @property
    def told(self) -> str:
        """Verdict or outcome, or what Airflow says of the run."""
        return self.verdict.value if self.verdict else self.outcome or self.state

    @property
    def tone(self) -> str:
        """The class that it is shown in."""
        return self.verdict.value if self.verdict else tone_of(self.outcome or "")


def render_runs(lines: Sequence[RunLine], *, more: int = 0) -> str:
    """Return the page; `more` says how many older runs are not listed."""
    page = templates().get_template("runs.html")
    return page.render(
        lines=lines,
        more=more,
        policy=policy(),
        style=Markup(STYLE),  # noqa: S704 - files of our own
        script=Markup(SCRIPT),  # noqa: S704
    )


def render_notice(title: str, text: str) -> str:
    """Return a page that says why there is nothing to show."""
    page = templates().get_template("notice.html")
    return page.render(title=title, text=text, policy=policy(), style=Markup(STYLE))  # noqa: S704
