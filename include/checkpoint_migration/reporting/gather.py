"""The end of a run, after a failure too: from what its steps recorded to the report, then cleaning up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from .. import source
from ..errors import MigrationError
from ..model import Blocker, Counts, Difference, Drift, Promotion, SourceInfo, Verdict, Warning_
from ..preflight import TargetInfo
from ..run import ledger
from ..run.journal import Journal, Step
from ..run.run import Run
from ..settings import Settings
from ..steps.going_live import Outcome
from ..storage import FOLDER_MODE, storage_errors
from . import (
    ErrorFacts,
    Report,
    Situation,
    TargetFacts,
    Threads,
    build_counts,
    build_drift,
    build_error,
    build_moment,
    build_phases,
    build_report,
    build_source,
    build_threads,
    build_warnings,
    final_lines,
    log_lines,
    read_report,
    worded,
    write_report,
)
from .run_warnings import noted_warnings

REPORTS = frozenset(("report.json", "report.html"))
PHASES = (
    "check_schema",
    "freeze_source",
    "plan_shards",
    "export",
    "plan_batches",
    "load",
    "verify_staged",
    "promote",
    "verify_counts",
)


def conclude(run: Run) -> tuple[Report, Path]:
    """Write `report.json` and `report.html`, close the run in the ledger, and clean up.

    Works after any failure, with an unreachable target too. After success staging goes, and, once
    the verdict is `identical`, the export files and the frozen source (unless `keep_exports`).
    After a failure they stay, so that clearing tasks goes on from there. A rehearsal's scratch
    schema always goes. Returns the report and the absolute path of `report.json`.
    """
    run.folder.create()
    recorded = _recorded(run)
    report = _again(run, recorded) if recorded is not None else _first(run)
    path = write_report(report, run.folder.path)
    for line in log_lines(report):
        run.log(line)
    _clean(run, report, again=recorded is not None)
    return report, path


def conclude_unsettled(
    error: BaseException, *, dag_id: str, run_id: str, folder: Path
) -> tuple[Report, Path]:
    """The report of a run whose params made no settings: nothing but its error."""
    report = build_report(
        Situation(),
        dag_id=dag_id,
        run_id=run_id,
        started=None,
        finished=datetime.now(UTC),
        succeeded=False,
        verdict=Verdict.UNPROVEN,
        error=build_error(error),
    )
    with storage_errors("making the report's folder", folder):
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    return report, write_report(report, folder)


def _recorded(run: Run) -> Report | None:
    """The report of a run that is done already."""
    try:
        row = ledger.find_run(run.connect, run.settings.key)
    except MigrationError:
        return None
    if row is None or row.state != "done" or not row.result:
        return None
    return read_report(msgspec.json.encode(row.result["report"]))


def _first(run: Run) -> Report:
    settings, journal = run.settings, run.journal
    steps = journal.steps()
    failed = _last_error(steps)
    promotion = journal.fact("promote", "promotion", Promotion)
    outcome = journal.fact("verify_counts", "outcome", Outcome)
    staged = [s for s in steps if s.name == "verify_staged" and (s.facts or {}).get("verdict")]
    differences, found = _differences(outcome, staged)
    verdict = outcome.verdict if outcome else Verdict.DIFFERENT if found else Verdict.UNPROVEN
    succeeded = failed is None and any(s.name == "verify_counts" for s in steps)
    info = journal.fact("check_schema", "source", SourceInfo)
    return build_report(
        Situation(settings=settings, promoted=_promoted(run, steps, promotion)),
        dag_id=settings.dag_id,
        run_id=settings.run_id,
        started=_moment(min((s.started for s in steps), default=None)),
        finished=datetime.now(UTC),
        succeeded=succeeded,
        verdict=verdict,
        source=build_source(settings.source, info),
        target=_target(settings, journal),
        counts=_counts(journal, steps, info, outcome),
        threads=_threads(run, verdict, differences),
        differences=differences,
        found=found,
        conflicts=promotion.conflicts if promotion else _conflicts(steps),
        warnings=build_warnings(noted_warnings(journal)),
        blockers=tuple(journal.fact("plan_batches", "blockers", list[Blocker]) or ()),
        drift=build_drift(journal.fact("drift", "drift", Drift)),
        error=failed,
        phases=build_phases(_phases(steps)),
    )


def _again(run: Run, report: Report) -> Report:
    """The report of a run that was done before and whose tasks were cleared since."""
    situation = Situation(settings=run.settings, promoted=True)
    outcome = run.journal.fact("verify_counts", "outcome", Outcome)
    error = _last_error(run.journal.steps())
    late = outcome.late if outcome else None
    if outcome is None or late is None:
        succeeded = report.succeeded and error is None
        return worded(replace(report, error=error, succeeded=succeeded), situation)
    looked = Warning_(
        "looked_again",
        f"looked at again on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC: of {late.recorded:,} checkpoints "
        f"recorded, {late.unchanged:,} are live as they were, {late.changed:,} changed and "
        f"{late.missing:,} are missing",
        late.changed + late.missing,
    )
    others = tuple(w for w in report.warnings if w.kind != looked.kind)
    looked_at = replace(
        report,
        finished=build_moment(datetime.now(UTC)),
        verdict=outcome.verdict,
        warnings=(*others, looked),
        error=error,
        succeeded=error is None,
    )
    return worded(looked_at, situation)


def _last_error(steps: Sequence[Step]) -> ErrorFacts | None:
    failed = [step for step in steps if step.error is not None]
    return build_error(max(failed, key=lambda s: s.finished).error) if failed else None


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _differences(
    outcome: Outcome | None, staged: Iterable[Step]
) -> tuple[tuple[Difference, ...], int]:
    if outcome is not None and outcome.found:
        return outcome.differences, outcome.found
    listed: list[Difference] = []
    found = 0
    for step in staged:
        found += int(step.facts["verdict"]["found"])
        listed += msgspec.convert(step.facts["verdict"]["differences"], list[Difference])
    return tuple(listed), found


def _promoted(run: Run, steps: Sequence[Step], promotion: Promotion | None) -> bool | None:
    if promotion is not None:
        return True
    if not any(step.name == "promote" for step in steps):
        return False
    try:
        row = ledger.find_run(run.connect, run.settings.key)
    except MigrationError:
        return None
    return row is not None and row.state in ("promoted", "done")


def _target(settings: Settings, journal: Journal) -> TargetFacts:
    target = journal.fact("check_schema", "target", TargetInfo)
    return TargetFacts(
        settings.conn_id,
        target.database if target else None,
        settings.live_schema,
        target.server_version if target else None,
    )


def _counts(
    journal: Journal, steps: Sequence[Step], info: SourceInfo | None, outcome: Outcome | None
) -> Any:
    if outcome is not None and outcome.frozen is not None:
        return build_counts(
            source=outcome.source,
            frozen=outcome.frozen,
            exported=outcome.exported,
            staged=outcome.staged,
            live=outcome.live,
        )
    frozen = journal.fact("freeze_source", "frozen", SourceInfo)
    verified = [s for s in steps if s.name == "verify_staged" and s.error is None]
    shards = journal.fact("plan_shards", "shards", int)
    staged = [msgspec.convert(s.facts["verdict"]["counts"], Counts) for s in verified if s.facts]
    return build_counts(
        source=journal.fact("drift", "source", Counts) or (info.counts if info else None),
        frozen=frozen.counts if frozen else None,
        exported=journal.fact("plan_batches", "exported", Counts),
        staged=sum(staged, Counts(0, 0, 0)) if staged and len(staged) == shards else None,
    )


def _threads(run: Run, verdict: Verdict, differences: Sequence[Difference]) -> Threads:
    if not run.folder.frozen.is_file():
        return Threads()
    differing = {difference.thread_id for difference in differences}

    def verdict_of(thread_id: str) -> Verdict:
        if thread_id in differing:
            return Verdict.DIFFERENT
        return Verdict.IDENTICAL if verdict is Verdict.DIFFERENT else verdict

    try:
        with closing(source.open_frozen(run.folder.frozen)) as frozen:
            return build_threads(source.thread_counts(frozen, run.settings.threads), verdict_of)
    except MigrationError:
        return Threads()


def _conflicts(steps: Sequence[Step]) -> tuple[Difference, ...]:
    for step in steps:
        if step.name == "promote" and step.facts and step.facts.get("conflicts"):
            return tuple(msgspec.convert(step.facts["conflicts"], list[Difference]))
    return ()


def _phases(steps: Sequence[Step]) -> Iterable[tuple[str, float, int | None]]:
    for name in PHASES:
        parts = [step for step in steps if step.name == name]
        if parts:
            moved = [step.moved for step in parts if step.moved is not None]
            seconds = max(s.finished for s in parts) - min(s.started for s in parts)
            yield name, seconds, sum(moved) if moved else None


def _clean(run: Run, report: Report, *, again: bool) -> None:
    """Close the run and remove what it does not need any more; trouble here is said, not raised."""
    settings = run.settings
    over = report.succeeded or settings.rehearsal
    try:
        if not again:  # what a run that is done has recorded stays as it is
            result = _result(run, report) if over else None
            ledger.finish(run.connect, settings.key, result, done=report.succeeded)
        if over:
            ledger.drop_schema(run.connect, settings.staging_schema)
        if settings.rehearsal:
            ledger.drop_rehearsal(run.connect, settings.key, settings.live_schema)
    except MigrationError as error:
        run.log(f"not cleaned up on the target: {error.what}")
        return
    if report.succeeded and report.verdict is Verdict.IDENTICAL and not settings.keep_exports:
        run.folder.clear(keep=REPORTS)


def _result(run: Run, report: Report) -> dict[str, Any]:
    result = {"report": msgspec.json.decode(report.to_json())}
    outcome = run.journal.fact("verify_counts", "outcome", Outcome)
    if outcome is not None:
        result["outcome"] = msgspec.to_builtins(outcome)
    return result


__all__ = ["conclude", "conclude_unsettled", "final_lines"]
