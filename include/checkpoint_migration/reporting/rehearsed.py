"""What rehearsals tell a report: this one's own record, and those before it."""

from __future__ import annotations

from msgspec.structs import replace

from ..errors import MigrationError
from ..findings import Counts
from ..model import SourceInfo
from ..preflight.estimate import tasks_of
from ..rehearsal import Rehearsal, Rehearsals
from ..run import records
from ..run.rehearsals import past_rehearsals, recorded_rehearsal
from ..run.run import Run
from ..tables import bytes_of_schemas
from .report_json import Report
from .sentence import moved, total_of


def look_back(run: Run, report: Report, *, is_done: bool) -> Rehearsals:
    """Measure a rehearsal before its schemas are dropped, and find those of the same move before it.

    Of one that is done nothing is left to measure: it is as it was recorded. Works after any failure:
    what cannot be asked is left out.
    """
    this = None
    try:
        past = past_rehearsals(run.connect, run.settings)
        if is_done:
            this = recorded_rehearsal(run.connect, run.settings)
    except MigrationError:
        past = ()
    if not run.settings.rehearsal:
        return Rehearsals(None, past)
    if this is None:
        this = _record(run, report)
    return Rehearsals(this, past)


def _record(run: Run, report: Report) -> Rehearsal:
    settings = run.settings
    info = run.journal.record(records.CheckSchema).source
    staged: int | None = None
    live: int | None = None
    try:
        staged, live = bytes_of_schemas(run.connect, settings.staging_schema, settings.live_schema)
    except MigrationError:
        pass  # then there is no forecast, and no more is lost
    began = report.started or report.finished
    if began is None:
        raise ValueError("a report that was gathered has its end")
    return Rehearsal(
        run_id=settings.run_id,
        started=began,
        verdict=report.verdict,
        succeeded=report.succeeded,
        seconds=report.seconds or 0.0,
        threads=report.threads.total,
        checkpoints=moved(report.counts.checkpoints),
        writes=moved(report.counts.writes),
        conflicts=total_of(report, "conflicts"),
        blockers=total_of(report, "blockers"),
        error=report.error.type if report.error else None,
        tasks=tasks_of(info, settings) if info else None,
        tasks_for_twice=tasks_of(_doubled(info), settings) if info else None,
        phases={phase.name: phase.seconds for phase in report.phases},
        source_bytes=report.source.bytes,
        folder_bytes=run.folder.kept_bytes(),
        staged_bytes=staged,
        live_bytes=live,
    )


def _doubled(info: SourceInfo) -> SourceInfo:
    counts = Counts(2 * info.counts.checkpoints, 2 * info.counts.writes)
    return replace(info, threads=2 * info.threads, bytes=2 * info.bytes, counts=counts)
