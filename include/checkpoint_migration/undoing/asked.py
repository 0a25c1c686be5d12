"""Which run is to be undone: the one that the ledger knows by its Airflow run id, or why none is."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import NotUndoable, SettingsInvalid
from ..postgres import Connect, transaction
from ..run import ledger, undo_ledger
from ..run.undo_ledger import KnownRun
from ..settings import Settings
from ..texts import quoted

KNOWN = 5  # runs that a refusal names
NOTHING_UNDONE = "nothing was undone: the live tables are as they were."


def find_run_to_undo(connect: Connect, settings: Settings, run_id: str) -> KnownRun:
    """The run of this Airflow run id that made rows live, or that is at it.

    Raises `SettingsInvalid` for a run id that the ledger does not know, naming the runs that it does,
    and for a rehearsal's; `NotUndoable` where several runs bear the id.
    """
    with transaction(connect, "looking for the run to undo", read_only=True) as conn:
        if not ledger.is_there(conn):
            raise _unknown(run_id, [])
        found = undo_ledger.runs_named(conn, run_id, settings.dag_id)
        latest = undo_ledger.latest_runs(conn, settings.dag_id, KNOWN)
    real = [run for run in found if not run.rehearsal]
    if found and not real:
        raise SettingsInvalid(
            f"the run {quoted(run_id, 120)} is a rehearsal: none of its rows ever were live.",
            safe=NOTHING_UNDONE,
            next=_name_another(latest),
            known=[run.run_id for run in latest],
        )
    if not real:
        raise _unknown(run_id, latest)
    promoted = [run for run in real if run.promoted and not run.undone] or real
    if len(promoted) > 1:
        dags = ", ".join(quoted(run.dag_id) for run in promoted)
        raise NotUndoable(
            f"{len(promoted)} runs bear the id {quoted(run_id, 120)}, of the DAGs {dags}.",
            safe=NOTHING_UNDONE,
            next="a report's sql has the statements that take one run's rows out.",
        )
    return promoted[0]


def _unknown(run_id: str, latest: Sequence[KnownRun]) -> SettingsInvalid:
    return SettingsInvalid(
        f"the ledger of this target knows no run {quoted(run_id, 120)}.",
        safe=NOTHING_UNDONE,
        next=_name_another(latest),
        known=[run.run_id for run in latest],
    )


def _name_another(latest: Sequence[KnownRun]) -> str:
    if not latest:
        return (
            "name the connection of the target that was migrated to: this one knows no run that "
            "made rows live."
        )
    told = ", ".join(
        f"{quoted(run.run_id, 120)} (begun {run.started:%Y-%m-%d %H:%M} UTC"
        + (", undone already)" if run.undone else ")")
        for run in latest
    )
    return f"name the run_id of a run that made rows live; the last ones here are {told}."
