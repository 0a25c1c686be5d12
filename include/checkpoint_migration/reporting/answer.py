"""Whether to switch the application over now, in a sentence for somebody who reads no other. Pure."""

from __future__ import annotations

from ..findings import Verdict
from .counts import removed_rows
from .page_facts import PageFacts
from .report_json import Report
from .sentence import NOT_COUNTED, nothing_moved

QUESTION = "Switch the application over to PostgreSQL?"


def answer(report: Report, facts: PageFacts) -> tuple[str, str]:
    """Yes, not yet or no, and why; "Yes" only where all rows are proven to be live, or were removed there."""
    if facts.progress is not None:
        return "Not yet", "the migration is still running. Leave the application on SQLite."
    if report.verdict is Verdict.DIFFERENT:
        return (
            "No",
            "not everything is equal. Leave the application on SQLite, and do what is said below.",
        )
    if facts.rehearsal:
        return (
            "Not yet",
            "this was a rehearsal. The application stays on SQLite until the real migration.",
        )
    if report.verdict is Verdict.UNPROVEN:
        return (
            "No",
            "nothing is proven. Leave the application on SQLite, and do what is said below.",
        )
    if not report.succeeded:
        return (
            "Not yet",
            "the rows are live and equal, but the run failed. Do first what is said below.",
        )
    if report.scope.is_unknown:
        return "Not yet", f"{NOT_COUNTED}. Do first what is said below."
    if report.scope.is_part:
        return "Not yet", _left_behind(report)
    if nothing_moved(report):
        return (
            "Not yet",
            "there was nothing to migrate. Check first that this is the right database.",
        )
    if report.drift.total:
        return (
            "Not yet",
            "SQLite has changed since. One more run, with the application stopped, catches up.",
        )
    rows = "every row is live and proven equal"
    if removed_rows(report):
        rows = (
            "what is live is proven equal, but rows that were removed on PostgreSQL since an earlier run "
            "stay away, and so does what came since to threads that were deleted there (see the warning: "
            "was that meant?)"
        )
    after = (
        f"after the steps below, in this order: {rows}, but what the application has written to SQLite "
        "since is not among them."
    )
    return "Yes", after


def _left_behind(report: Report) -> str:
    if report.scope.threads.left_out:
        return "some threads are still only in SQLite. The switch is for all of them."
    return "the long-term store is still only in SQLite. The switch is for all of it."
