"""undo: take out of the live tables what one run made live, and say what was left and why."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

import msgspec

from ..errors import MigrationError
from ..findings import Undone
from ..preflight import check_undo
from ..reporting.build import build_error
from ..reporting.undo_json import UNDO_JSON, UndoReport, undo_lines, undo_report
from ..resting import resting_connections
from ..run import lease, ledger, records
from ..run.run import Run
from ..storage import atomic_file
from ..undoing import find_run_to_undo, undo_run


@resting_connections()
def undo(run: Run, run_id: str) -> tuple[UndoReport, str]:
    """Take out of the live tables exactly what the run `run_id` inserted and nobody changed or built
    upon since, in one transaction, and bring back what it replaced; `undo.json` lists what was left.

    Killed anywhere, live is as before or as after; called again, it does nothing and says so. It is a
    run in the ledger itself: no migration works on the same tables meanwhile. Returns the report and
    its path or URI. Raises `SettingsInvalid` for a run that the ledger does not know, `NotUndoable`,
    `AnotherRunIsAlive`, and what a target may raise; `undo.json` then says so too.
    """
    run.open_folder()
    started = datetime.now(UTC)
    try:
        undone = _undo(run, run_id)
    except MigrationError as error:
        with suppress(MigrationError):  # nobody has to wait for a run that failed
            ledger.finish(run.connect, run.settings.key, None, done=False)
        with suppress(MigrationError):
            _, path = _write(run, run_id, None, error, started)
            error.facts["undo_report"] = path
        raise
    return _write(run, run_id, undone, None, started)


def _undo(run: Run, run_id: str) -> Undone:
    found = find_run_to_undo(run.connect, run.settings, run_id)
    at_target = replace(
        run, settings=replace(run.settings, source=found.source, target_schema=found.live_schema)
    )
    settings = at_target.settings
    known = ledger.find_run(run.connect, settings.key)
    if known is None or known.state == "running":
        check_undo(run.connect, settings, store=found.took_store)
    lease.acquire(run.connect, settings, owner=run.owner)
    with at_target.step(records.Undo) as step:
        undone = step.record.undone = undo_run(run.connect, settings, found.run_key)
    ledger.finish(run.connect, settings.key, msgspec.to_builtins(undone), done=True)
    return undone


def _write(
    run: Run, asked: str, undone: Undone | None, error: MigrationError | None, started: datetime
) -> tuple[UndoReport, str]:
    written = undo_report(
        run.settings,
        asked,
        undone,
        None if error is None else build_error(error),
        started,
        datetime.now(UTC),
    )
    for level, line in undo_lines(written):
        run.tell(level, line)
    path = run.folder.path / UNDO_JSON
    with atomic_file(path) as file:
        file.write(written.to_json())
    run.folder.publish(path)
    return written, run.folder.address(path)
