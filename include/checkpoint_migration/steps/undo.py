"""undo: take out of the live tables what one run made live, and say what was left and why."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from ..errors import MigrationError, NotUndoable, TargetUnreachable
from ..findings import Undone
from ..preflight import check_undo
from ..reporting.build import build_error
from ..reporting.undo_html import summarized_undo
from ..reporting.undo_json import BEFORE_OR_AFTER, UNDO_JSON, UndoReport, undo_lines, undo_report
from ..resting import resting_connections
from ..run import lease, ledger, records
from ..run.run import Run
from ..storage import atomic_file
from ..undoing import find_run_to_undo, undo_run

HandOn = Callable[[dict[str, Any]], None]
BEGAN = "undo-began"  # lies in the run's folder once a try came as far as the live tables


def nobody_asked(_summary: dict[str, Any]) -> None:
    """A summary that nobody takes."""


@resting_connections()
def undo(run: Run, run_id: str, *, hand_on: HandOn = nobody_asked) -> tuple[UndoReport, str]:
    """Take out of the live tables exactly what the run `run_id` inserted and nobody changed or built
    upon since, in one transaction, and bring back what it replaced; `undo.json` lists what was left.

    Killed anywhere, live is as before or as after; called again, it does nothing and says so. It is a
    run in the ledger itself: no migration works on the same tables meanwhile. `hand_on` is given the
    report as plain JSON, of which the page is made elsewhere. Returns the report and its path or URI.
    Raises `SettingsInvalid` for a run that the ledger does not know, `NotUndoable`, `AnotherRunIsAlive`,
    and what a target may raise; `undo.json` then says so too.
    """
    started = datetime.now(UTC)
    began_before = False
    try:
        run.open_folder()
        began_before = run.folder.has(BEGAN)
        undone = _undo(run, run_id)
    except MigrationError as error:
        if began_before and not isinstance(error, NotUndoable):  # it looks first what was done
            error.safe = BEFORE_OR_AFTER
        with suppress(MigrationError):  # nobody has to wait for a run that failed
            ledger.finish(run.connect, run.settings.key, None, done=False)
        with suppress(MigrationError):
            _, path = _write(run, run_id, None, error, started, hand_on)
            error.facts["undo_report"] = path
        raise
    try:
        return _write(run, run_id, undone, None, started, hand_on)
    except MigrationError as error:
        error.safe = BEFORE_OR_AFTER
        raise


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
    run.folder.keep(BEGAN, b"")
    undone: Undone | None = None
    try:
        with at_target.step(records.Undo) as step:
            undone = step.record.undone = undo_run(run.connect, settings, found.run_key)
        ledger.finish(run.connect, settings.key, msgspec.to_builtins(undone), done=True)
    except MigrationError as error:
        if undone is not None or isinstance(
            error, TargetUnreachable
        ):  # COMMIT's answer was lost, maybe
            error.safe = BEFORE_OR_AFTER
        raise
    return undone


def _write(
    run: Run,
    asked: str,
    undone: Undone | None,
    error: MigrationError | None,
    started: datetime,
    hand_on: HandOn,
) -> tuple[UndoReport, str]:
    written = undo_report(
        run.settings,
        asked,
        undone,
        None if error is None else build_error(error),
        started,
        datetime.now(UTC),
    )
    hand_on(summarized_undo(written))
    for level, line in undo_lines(written):
        run.tell(level, line)
    path = run.folder.path / UNDO_JSON
    with atomic_file(path) as file:
        file.write(written.to_json())
    run.folder.publish(path)
    return written, run.folder.address(path)
