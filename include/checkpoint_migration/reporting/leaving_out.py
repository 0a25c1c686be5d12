"""The globs that leave threads out of the next run, ready to be pasted into its params. Pure."""

from __future__ import annotations

import re

from ..finding_places import is_of_store
from .report_json import Report
from .sentence import total_of

MAGIC = re.compile(r"([*?[])")
MOST = 100


def exclusions(report: Report) -> list[str]:
    """A glob for each thread with a blocker, or with another history on live; none where the report
    does not list them all, or they are too many to paste.
    """
    if total_of(report, "blockers") > len(report.blockers):
        return []
    whole = [c.thread_id for c in report.conflicts if c.column == "thread_id"]
    blocked = (b.thread_id for b in report.blockers if not is_of_store(b))
    threads = dict.fromkeys([*blocked, *whole])
    if len(threads) > MOST or not all(thread.isprintable() for thread in threads):
        return []
    # a filter that takes anything by name must go on doing so
    before = [*(report.scope.globs or ())] if threads else []
    return [*before, *("!" + MAGIC.sub(r"[\1]", thread) for thread in threads)]
