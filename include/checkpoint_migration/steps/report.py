"""report: write what the run has to say, after a failure too; close it in the ledger; clean up."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from ..errors import MigrationError
from ..findings import Verdict
from ..reporting.build import build_error, build_report
from ..reporting.gather import gather, gather_again
from ..reporting.log import log_lines
from ..reporting.report_json import Report, read_report
from ..reporting.sentence import Situation
from ..reporting.write import write_report
from ..run import ledger, records
from ..run.run import Run
from ..storage import FOLDER_MODE, storage_errors
from .verify_counts import RESULT

KEPT = frozenset(("report.json", "report.html"))


def report(run: Run) -> tuple[Report, Path]:
    """Write `report.json` and `report.html`, close the run in the ledger, and clean up.

    Works after any failure, with an unreachable target too. After success staging goes, and, once
    the verdict is `identical`, the export files and the frozen source (unless `keep_exports`).
    After a failure they stay, so that clearing tasks goes on from there. A rehearsal's scratch
    schema always goes. Returns the report and the absolute path of `report.json`.
    """
    run.folder.create()
    recorded = _recorded(run)
    written = gather(run) if recorded is None else gather_again(run, recorded)
    path = write_report(written, run.folder.path)
    for line in log_lines(written):
        run.log(line)
    _clean(run, written, already_done=recorded is not None)
    return written, path


def report_unsettled(
    error: BaseException, *, dag_id: str, run_id: str, folder: Path
) -> tuple[Report, Path]:
    """The report of a run whose params made no settings: nothing but its error."""
    written = build_report(
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
    return written, write_report(written, folder)


def _recorded(run: Run) -> Report | None:
    """The report of a run that is done already."""
    try:
        row = ledger.find_run(run.connect, run.settings.key)
    except MigrationError:
        return None
    if row is None or row.state != "done" or not row.result:
        return None
    return read_report(msgspec.json.encode(row.result["report"]))


def _clean(run: Run, written: Report, *, already_done: bool) -> None:
    """Close the run and remove what it does not need any more; trouble here is said, not raised."""
    settings = run.settings
    over = written.succeeded or settings.rehearsal
    try:
        if not already_done:  # what a run that is done has recorded stays as it is
            result = _result(run, written) if over else None
            ledger.finish(run.connect, settings.key, result, done=written.succeeded)
        if over:
            ledger.drop_schema(run.connect, settings.staging_schema)
        if settings.rehearsal:
            ledger.drop_rehearsal(run.connect, settings.key, settings.live_schema)
    except MigrationError as error:
        run.log(f"not cleaned up on the target: {error.what}")
        return
    if written.succeeded and written.verdict is Verdict.IDENTICAL and not settings.keep_exports:
        run.folder.clear(keep=KEPT)


def _result(run: Run, written: Report) -> dict[str, Any]:
    """What the ledger keeps of a run that is over."""
    kept = {"report": msgspec.json.decode(written.to_json())}
    witnessed = run.journal.record(records.VerifyCounts).result
    if witnessed is not None:
        kept[RESULT] = msgspec.to_builtins(witnessed)
    return kept
