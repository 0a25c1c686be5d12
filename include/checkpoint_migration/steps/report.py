"""report: write what the run has to say, after a failure too; close it in the ledger; clean up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from ..errors import MigrationError, SettingsInvalid
from ..findings import Caution, Verdict
from ..rehearsal import Rehearsal
from ..reporting.build import build_error, build_report
from ..reporting.forecast import told_of_rehearsals
from ..reporting.gather import gather, gather_again
from ..reporting.gather_facts import gather_facts
from ..reporting.log import leveled_lines
from ..reporting.page_facts import NO_FACTS, NOT_TOLD, Origin, PageFacts
from ..reporting.rehearsed import look_back
from ..reporting.report_json import Report, read_report
from ..reporting.sentence import Situation
from ..reporting.summary import summarized
from ..reporting.write import HTML_NAME, JSON_NAME, write_report
from ..resting import resting_connections
from ..run import ledger, records
from ..run.after_promote import after_promote
from ..run.journal import Journal
from ..run.rehearsals import drop_rehearsal, keep_record
from ..run.run import Run
from ..storage import RunFolder
from .verify_counts import RESULT

HandOn = Callable[[dict[str, Any]], None]
KEPT = frozenset((JSON_NAME, HTML_NAME))


def nobody_asked(_summary: dict[str, Any]) -> None:
    """A summary that nobody takes."""


@resting_connections()
def report(
    run: Run,
    elsewhere: Sequence[RunFolder] = (),
    *,
    origin: Origin = NOT_TOLD,
    hand_on: HandOn = nobody_asked,
) -> tuple[Report, str]:
    """Write `report.json` and `report.html`, close the run in the ledger, and clean up.

    Works after any failure, with an unreachable target too; where the run's folder takes no files,
    the first of the folders `elsewhere` that does. After success staging goes, and, once the verdict
    is `identical`, the export files and the frozen source (unless `keep_exports`). After a failure
    they stay, so that clearing tasks goes on from there. A rehearsal's scratch schema always goes.
    `hand_on` is given a capped summary, plain JSON of which the same page can be made elsewhere.
    Returns the report and where `report.json` is: its absolute path, or its URI. Raises a
    `StorageError` where no folder takes the report.
    """
    with after_promote(run.settings):
        return _report(run, elsewhere, origin, hand_on)


def _report(
    run: Run, elsewhere: Sequence[RunFolder], origin: Origin, hand_on: HandOn
) -> tuple[Report, str]:
    try:
        cautions = [Caution("volume", message, 1) for message in run.open_folder()]
    except MigrationError as error:  # nothing of it is read, for it may be somebody else's
        if error.transient or not elsewhere:
            raise
        written = _without_records(run, error)
        hand_on(summarized(written, PageFacts(origin=origin)))
        _tell(run.tell, written)
        return written, _write_elsewhere(written, elsewhere, error)
    recorded = _recorded(run)
    written = gather(run) if recorded is None else gather_again(run, recorded)
    written = _with(written, *cautions)
    rehearsals = look_back(run, written, is_done=recorded is not None)
    facts = replace(gather_facts(run, origin), rehearsals=rehearsals)
    try:
        path = _write(written, run.folder, facts)
    except MigrationError as error:
        why = f"this report is not in the run's folder: {error.what}"
        written = _with(written, Caution("report_elsewhere", why, 1))
        hand_on(summarized(written, facts))
        path = _write_elsewhere(written, elsewhere, error)
    else:
        hand_on(summarized(written, facts))
    _tell(run.tell, written)
    for line in told_of_rehearsals(rehearsals):
        run.log(line)
    _clean(run, written, rehearsals.this, already_done=recorded is not None)
    return written, path


def report_unsettled(
    error: BaseException,
    *,
    dag_id: str,
    run_id: str,
    folders: Sequence[RunFolder],
    tell: Callable[[int, str], None],
    hand_on: HandOn = nobody_asked,
) -> tuple[Report, str]:
    """The report of a run that can give none of its own: nothing but the error that is in the way.

    It is written to the first of the folders that takes it. Raises a `StorageError` where none does,
    whose fact `report` is the report.
    """
    # Where the settings are invalid no task can have done anything; else nobody knows.
    promoted = False if isinstance(error, SettingsInvalid) else None
    written = _bare(error, Situation(promoted=promoted), dag_id, run_id)
    hand_on(summarized(written, NO_FACTS))
    _tell(tell, written)
    return written, _write_elsewhere(written, folders)


def keep_failure(
    folder: RunFolder, task: str, part: int | None, started: float, error: BaseException
) -> None:
    """Keep for the report how a task failed, where its step has not: it may never have begun.

    Whatever is in the way of keeping it is not raised: it would hide the failure itself.
    """
    kinds = {kind.step: kind for kind in records.ALL}
    with suppress(MigrationError, OSError):
        if task in kinds:
            folder.create()
            Journal(folder).keep_failure(kinds[task], part, started, error)


def _without_records(run: Run, error: MigrationError) -> Report:
    """The report of a run whose folder cannot be used: what it recorded is out of reach."""
    try:
        promoted = ledger.is_promoted(run.connect, run.settings.key)
        situation = Situation(settings=run.settings, promoted=promoted)
    except MigrationError:
        situation = Situation(settings=run.settings, promoted=None)
    return _bare(error, situation, run.settings.dag_id, run.settings.run_id)


def _bare(error: BaseException, situation: Situation, dag_id: str, run_id: str) -> Report:
    return build_report(
        situation,
        dag_id=dag_id,
        run_id=run_id,
        started=None,
        finished=datetime.now(UTC),
        succeeded=False,
        verdict=Verdict.UNPROVEN,
        error=build_error(error),
    )


def _with(written: Report, *cautions: Caution) -> Report:
    known = [w for w in written.warnings if w not in cautions]  # by a report that is written again
    return replace(written, warnings=(*known, *cautions))


def _tell(tell: Callable[[int, str], None], written: Report) -> None:
    for level, line in leveled_lines(written):
        tell(level, line)


def _write(written: Report, folder: RunFolder, facts: PageFacts = NO_FACTS) -> str:
    """Write a report, the page first: where there is a new `report.json` there is its page."""
    path = write_report(written, folder.path, facts)
    folder.publish(path.with_name(HTML_NAME))
    folder.publish(path)
    return folder.address(path)


def _write_elsewhere(
    written: Report, folders: Sequence[RunFolder], first: MigrationError | None = None
) -> str:
    """Write the report to the first folder that takes it; what is raised is what the first one met."""
    for folder in folders:
        try:
            folder.create()
            return _write(written, folder)
        except MigrationError as error:
            first = first or error
    if first is None:
        raise ValueError("a report needs a folder")
    first.facts["report"] = written
    raise first


def _recorded(run: Run) -> Report | None:
    """The report of a run that is done already."""
    try:
        row = ledger.find_run(run.connect, run.settings.key)
    except MigrationError:
        return None
    if row is None or row.state != "done" or not row.result:
        return None
    return read_report(msgspec.json.encode(row.result["report"]))


def _clean(run: Run, written: Report, rehearsal: Rehearsal | None, *, already_done: bool) -> None:
    """Close the run and remove what it does not need any more; trouble here is said, not raised."""
    settings = run.settings
    over = written.succeeded or settings.rehearsal
    try:
        if not already_done:  # what a run that is done has recorded stays as it is
            result = _result(run, written) if over else None
            ledger.finish(run.connect, settings.key, result, done=written.succeeded)
            if rehearsal is not None:
                keep_record(run.connect, settings, rehearsal)
        if over:
            ledger.drop_schema(run.connect, settings.staging_schema)
        if settings.rehearsal:
            drop_rehearsal(run.connect, settings.key, settings.live_schema)
    except MigrationError as error:
        run.warn(f"not cleaned up on the target: {error.what}")
        return
    if written.succeeded and written.verdict is Verdict.IDENTICAL and not settings.keep_exports:
        try:
            run.folder.clear(keep=KEPT)
        except MigrationError as error:
            run.warn(f"not cleaned up in the run's folder: {error.what}")


def _result(run: Run, written: Report) -> dict[str, Any]:
    """What the ledger keeps of a run that is over."""
    kept = {"report": msgspec.json.decode(written.to_json())}
    witnessed = run.journal.record(records.VerifyCounts).result
    if witnessed is not None:
        kept[RESULT] = msgspec.to_builtins(witnessed)
    return kept
