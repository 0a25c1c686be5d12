"""Reports of every situation, built from the parts that a run hands on."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from include.checkpoint_migration.errors import (
    Blocked,
    MigrationError,
    SettingsInvalid,
    SourceDrifted,
    TargetConflict,
    TargetUnreachable,
    VerificationFailed,
)
from include.checkpoint_migration.findings import (
    Blocker,
    Caution,
    Change,
    Counts,
    Difference,
    Drift,
    Verdict,
)
from include.checkpoint_migration.model import ThreadStat
from include.checkpoint_migration.reporting.build import (
    build_counts,
    build_drift,
    build_error,
    build_phases,
    build_report,
    build_source,
    build_threads,
)
from include.checkpoint_migration.reporting.report_json import Report
from include.checkpoint_migration.reporting.sentence import Situation
from include.checkpoint_migration.settings import Settings, ThreadFilter

SETTINGS = Settings(
    dag_id="migrate_checkpoints", run_id="a run", source="/a.sqlite", export_uri="/e"
)
REHEARSAL = replace(SETTINGS, rehearsal=True)
LIVE = Situation(settings=SETTINGS, promoted=True, staging_left=True)
NOT_LIVE = Situation(settings=SETTINGS, promoted=False, staging_left=True)
NOT_KNOWN = Situation(settings=SETTINGS, promoted=None, staging_left=True)
BEGAN = datetime(2026, 3, 1, 12, tzinfo=UTC)
ALL = Counts(856, 1240, 999)
HOSTILE = (
    "<script>document.title='ran'</script>",
    '"><img src=x onerror="document.title=\'ran\'">',
    'it\'s "quoted" and `ticked`',
    "line\nbreak\rand\ttab",
    "nul\0here",
    "lone \ud800 surrogate",
    "\u202eright to left",
    "x" * 10_000,
    "",
    "../../etc/passwd",
    "{{ 7 * 7 }}{% raw %}",
    "verdict: identical",
)


def difference(thread_id: str = "a", table: str = "checkpoints", id: str = "1") -> Difference:
    return Difference(thread_id, "", id, table, "metadata", "not equal by value")


def blocker(thread_id: str = "a") -> Blocker:
    return Blocker(thread_id, "", "1", "metadata", "it holds a NUL")


def report_of(situation: Situation = LIVE, **changes: Any) -> Report:
    """A report of a run that went well, but for the changes."""
    facts: dict[str, Any] = {
        "dag_id": "migrate_checkpoints",
        "run_id": "a run",
        "started": BEGAN,
        "finished": BEGAN + timedelta(seconds=42),
        "succeeded": True,
        "verdict": Verdict.IDENTICAL,
        "counts": build_counts(
            source=Counts(856, 1240), frozen=Counts(856, 1240), exported=ALL, staged=ALL, live=ALL
        ),
        "threads": build_threads([ThreadStat("a", 856, 1240, 1)], lambda _: Verdict.IDENTICAL),
        "drift": build_drift(Drift()),
        **changes,
    }
    return build_report(situation, **facts)


def failed(error: MigrationError, situation: Situation = NOT_LIVE, **changes: Any) -> Report:
    return report_of(
        situation,
        **{"verdict": Verdict.UNPROVEN, "succeeded": False, "error": build_error(error), **changes},
    )


def earliest() -> Report:
    """The report of a run whose params made no settings."""
    return build_report(
        Situation(),
        dag_id="migrate_checkpoints",
        run_id="a run",
        started=None,
        finished=None,
        succeeded=False,
        verdict=Verdict.UNPROVEN,
        error=build_error(SettingsInvalid("param 'source' is missing.", next="give one.")),
    )


def hostile_report() -> Report:
    """A report with hostile ids wherever an id can stand."""
    return failed(
        VerificationFailed("it is <b>not</b> equal.", next="look."),
        LIVE,
        verdict=Verdict.DIFFERENT,
        run_id=HOSTILE[0],
        differences=[difference(name) for name in HOSTILE],
        conflicts=[difference(name, id=name) for name in HOSTILE],
        blockers=[blocker(name) for name in HOSTILE],
        warnings=[Caution("kind", f"a message of {HOSTILE[0]}", 1, HOSTILE)],
        threads=build_threads(
            [ThreadStat(name, 1, 2, 3) for name in HOSTILE], lambda _: Verdict.DIFFERENT
        ),
        source=build_source("/srv/<script>/a.sqlite"),
        phases=build_phases([(HOSTILE[1], 1.0, 5)]),
    )


DRIFT = build_drift(Drift(Change(3, 1, 0), Change(0, 0, 1)))
EMPTY = build_counts(
    source=Counts(),
    frozen=Counts(),
    exported=Counts(0, 0, 0),
    staged=Counts(0, 0, 0),
    live=Counts(0, 0, 0),
)
SHORT = build_counts(frozen=Counts(856, 1240), staged=ALL, live=Counts(855, 1240, 999))
ROWS = "856 checkpoints and 1,240 pending writes of 1 thread"
EQUAL = f"{ROWS} are live in PostgreSQL, all equal to the frozen source"
CHANGES = "3 checkpoints added, 1 checkpoint changed, 1 pending write removed"
NO_CONTENT = "`verify: counts` compared no content"
NOT_LEARNT = "whether rows of this run are live could not be learnt"
ONLY_REHEARSED = "this was a rehearsal, so the live tables were never touched"
AS_IT_WAS = "the live tables are exactly as they were"
KEPT = "1 live row with other content than the source was kept"
LEFT_OUT = "2 threads that are live with another history were left out"
SENTENCES = {
    "identical": (
        report_of(),
        f"{EQUAL}.",
    ),
    "identical, drifted since": (
        report_of(drift=DRIFT),
        f"{EQUAL}; since then the source has changed ({CHANGES}).",
    ),
    "identical, failed afterwards": (
        failed(
            TargetUnreachable("the server went away.", next="wait."),
            LIVE,
            verdict=Verdict.IDENTICAL,
        ),
        f"{EQUAL}; the run failed all the same: the server went away.",
    ),
    "identical, figures unknown": (
        report_of(counts=build_counts()),
        "All rows are live in PostgreSQL, all equal to the frozen source.",
    ),
    "empty source": (
        report_of(counts=EMPTY, threads=build_threads([], lambda _: Verdict.IDENTICAL)),
        "There was nothing to migrate: the source has LangGraph's tables, and no rows in them.",
    ),
    "no thread taken": (
        report_of(
            Situation(settings=replace(SETTINGS, threads=ThreadFilter(("none-*",))), promoted=True),
            counts=EMPTY,
        ),
        "There was nothing to migrate: the source has no row of the `threads` asked for.",
    ),
    "rehearsal": (
        report_of(Situation(settings=REHEARSAL, promoted=True)),
        f"Rehearsed {ROWS}, all equal to the frozen source; the real one will take about 42 s.",
    ),
    "different, live": (
        report_of(verdict=Verdict.DIFFERENT, succeeded=False, differences=[difference()]),
        "1 difference from the frozen source was found; the rows of this run are live.",
    ),
    "different, staged": (
        report_of(
            NOT_LIVE,
            verdict=Verdict.DIFFERENT,
            succeeded=False,
            differences=[difference()],
            found=12,
        ),
        f"12 differences from the frozen source were found; {AS_IT_WAS}.",
    ),
    "different, rehearsed": (
        report_of(
            Situation(settings=REHEARSAL, promoted=True),
            verdict=Verdict.DIFFERENT,
            succeeded=False,
            differences=[difference()],
        ),
        f"1 difference from the frozen source was found; {ONLY_REHEARSED}.",
    ),
    "different, kept": (
        report_of(verdict=Verdict.DIFFERENT, succeeded=False, conflicts=[difference()] * 3),
        "3 live rows with other content than the source were kept; the rows of this run are live.",
    ),
    "different, left out": (
        report_of(
            verdict=Verdict.DIFFERENT,
            succeeded=False,
            conflicts=[difference()] * 3,
            warnings=[Caution("other_histories", "threads are live with another history", 2)],
        ),
        f"{KEPT} and {LEFT_OUT}; the rows of this run are live.",
    ),
    "different, by count": (
        report_of(verdict=Verdict.DIFFERENT, succeeded=False, counts=SHORT),
        "The counts do not agree from the source to PostgreSQL; the rows of this run are live.",
    ),
    "counts only": (
        report_of(verdict=Verdict.UNPROVEN),
        f"{ROWS} are live in PostgreSQL and all counts agree, but {NO_CONTENT}.",
    ),
    "drifted": (
        failed(SourceDrifted("the source was written.", next="stop it."), drift=DRIFT),
        f"The source was written since it was frozen ({CHANGES}); {AS_IT_WAS}.",
    ),
    "blocked": (
        failed(Blocked("2 blockers.", next="mend them."), blockers=[blocker(), blocker()]),
        f"2 values of the source have no lossless place in PostgreSQL; {AS_IT_WAS}.",
    ),
    "conflict": (
        failed(
            TargetConflict("one live row is another.", next="choose."), conflicts=[difference()]
        ),
        f"One live row is another; {AS_IT_WAS}.",
    ),
    "failed": (
        failed(TargetUnreachable("no connection\n  to the target.", next="wait."), NOT_LIVE),
        f"The run stopped with nothing proven: no connection to the target; {AS_IT_WAS}.",
    ),
    "failed, nobody knows": (
        failed(TargetUnreachable("no connection.", next="wait."), NOT_KNOWN),
        f"The run stopped with nothing proven: no connection; {NOT_LEARNT}.",
    ),
    "killed": (
        report_of(NOT_LIVE, verdict=Verdict.UNPROVEN, succeeded=False),
        f"The run ended with nothing proven, and no task left an error; {AS_IT_WAS}.",
    ),
}
