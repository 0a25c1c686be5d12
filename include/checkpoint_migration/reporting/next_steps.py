"""What a person should do after a run, step by step. Pure."""

from __future__ import annotations

import re

from ..figures import format_bytes
from ..texts import quoted
from .report_json import ErrorFacts, Report
from .sentence import (
    NOT_COUNTED,
    Cause,
    Situation,
    cause_of,
    nothing_moved,
    one_line,
    real_warnings,
)

STAY = "Leave the application on SQLite until a run ends `identical`."
PART = "Leave the application on SQLite while anything stays behind there: the switch is for all of it."
AGAIN = "trigger the DAG again: it finds what is live already and adds what is new"
BLOCKED = (
    "Read the blockers; leave their threads out with `threads`, or set `on_blocker` to `sanitize` "
    "where metadata alone is concerned."
)
TRIED_AGAIN = re.compile(
    r"nothing( at first)?[:,] the \w+ (is tried|tries) again[^.;]*[.;] ?(if it repeats, )?"
    r"|[;,] the task (is tried|tries) again",
    re.IGNORECASE,
)
GO_ON = "Clear the failed task, whose tries are used up: it goes on where it was; or trigger the DAG again."
RIGHT = "Decide which side is right; with `on_conflict: replace` a new run takes the source's."
OUT = "Stop the application, then trigger `undo_migration` with this run's `run_id`: it takes its rows out again."


def next_steps(report: Report, situation: Situation) -> list[str]:
    """Return what to do, in order, as imperative sentences."""
    cause = cause_of(report)
    steps = []
    if report.error is not None and cause is not Cause.DIFFERENT:
        steps += _of_error(report.error)
    if real_warnings(report) and cause is Cause.IDENTICAL:
        steps.append("Read the warnings: they say what the application will meet on PostgreSQL.")
    steps += _steps(report, cause, situation)
    if cause not in (Cause.IDENTICAL, Cause.COUNTS_ONLY) and not situation.rehearsal:
        steps.append(STAY)
    if not report.succeeded and situation.kept_bytes and situation.folder:
        steps.append(
            f"When you will not go on with this run, remove {quoted(situation.folder, 200)}: it keeps "
            f"{format_bytes(situation.kept_bytes)} of conversations, so that cleared tasks go on from "
            "there."
        )
    return steps


def _of_error(error: ErrorFacts) -> list[str]:
    """What an error says to do: when a report is written, a task that is tried again was."""
    if not error.transient:
        return [one_line(error.next)]
    beyond = TRIED_AGAIN.sub("", error.next)
    return [*([one_line(beyond)] if beyond else []), GO_ON]


def _steps(report: Report, cause: Cause, situation: Situation) -> list[str]:
    if cause is Cause.IDENTICAL:
        return _after_identical(report, situation)
    if cause is Cause.DIFFERENT:
        return _after_different(report, situation)
    if cause is Cause.COUNTS_ONLY:
        return ["Set `verify` to `full` and trigger the DAG again: it compares every row."]
    if report.error is not None:
        return []
    if cause is Cause.BLOCKED:
        return [BLOCKED, "Trigger the DAG again."]
    return ["Read the log of the first task that failed, then clear it or trigger the DAG again."]


def _after_identical(report: Report, situation: Situation) -> list[str]:
    settings = situation.settings
    if nothing_moved(report):
        return ["Check that `source` and `threads` name what you meant."]
    if situation.rehearsal:
        return ["Trigger `migrate_checkpoints` with the same params to migrate for real."]
    drift = report.drift
    steps = []
    if report.scope.is_unknown:
        return [f"Trigger the DAG again without `threads`: {NOT_COUNTED}.", PART]
    if report.scope.is_part:
        steps.append("Migrate what stays behind, too: trigger the DAG again without `threads`.")
        steps.append(PART)
        return steps
    if drift.total:
        steps.append(f"Stop the application, then {AGAIN}.")
    else:
        steps.append(f"Stop the application; if it wrote to SQLite since this run began, {AGAIN}.")
    if drift.checkpoints.changed or drift.writes.changed or (drift.store and drift.store.changed):
        steps.append("Choose `on_conflict: replace` for it: rows that changed are conflicts.")
    steps.append("Start the application on PostgreSQL.")
    steps.append("Keep the SQLite file until you trust the application on PostgreSQL.")
    if settings is not None and settings.keep_exports:
        steps.append("Delete the export files when you need them no more: they hold conversations.")
    return steps


def _after_different(report: Report, situation: Situation) -> list[str]:
    if situation.rehearsal:
        return ["Trigger no migration yet: it would find the same differences."]
    if situation.promoted is False:
        return [
            "Look at the differing rows with the SQL of the report, while staging is still there."
        ]
    steps = ["Look at the differing rows with the SQL of the report."]
    if report.conflicts and not report.differences:
        steps.append(RIGHT)
    else:
        steps.append(OUT)
    return steps
