"""What Airflow's own records have of a run: its tasks, and what they handed on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.sdk.execution_time.xcom import XCom
from sqlalchemy import select
from sqlalchemy.orm import Session

MIGRATION, REHEARSAL, UNDO = "migrate_checkpoints", "rehearse_checkpoints", "undo_migration"
DAGS = (MIGRATION, REHEARSAL, UNDO)
LAST_TASKS = ("report", "undo")  # what a run comes to, they hand on
ENDED = frozenset(("success", "failed"))
RESULT, SUMMARY = "return_value", "summary"
RUNNING = frozenset(("queued", "running"))


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A task instance; times are Unix seconds."""

    task_id: str
    map_index: int
    state: str | None
    started: float | None
    finished: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run with its tasks, and their results by task and map index."""

    dag_id: str
    run_id: str
    state: str
    started: float | None = None
    finished: float | None = None
    conf: dict[str, Any] = field(default_factory=dict)
    triggered_by: str | None = None
    tasks: tuple[TaskRecord, ...] = ()
    results: dict[tuple[str, int], Any] = field(default_factory=dict)
    summary: Any = None

    @property
    def goes_on(self) -> bool:
        return self.state in RUNNING

    @property
    def last_summary(self) -> Any:
        """The summary, once the task that hands it on has ended: a try may follow that tells another."""
        ended = {task.task_id for task in self.tasks if task.state in ENDED}
        return self.summary if ended & set(LAST_TASKS) else None


def read_run(session: Session, dag_id: str, run_id: str) -> RunRecord | None:
    """The run, or None where Airflow knows none of that name."""
    found = session.scalar(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
    if found is None:
        return None
    results: dict[tuple[str, int], Any] = {}
    summary = None
    handed_on = select(XComModel).where(XComModel.dag_id == dag_id, XComModel.run_id == run_id)
    for entry in session.scalars(handed_on):
        if entry.key == RESULT:
            results[entry.task_id, entry.map_index] = value_of(entry)
        elif entry.key == SUMMARY:
            summary = value_of(entry)
    return RunRecord(
        dag_id=dag_id,
        run_id=run_id,
        state=str(found.state),
        started=seconds(found.start_date),
        finished=seconds(found.end_date),
        conf=found.conf if isinstance(found.conf, dict) else {},
        triggered_by=found.triggering_user_name,
        tasks=tuple(_tasks(session, dag_id, run_id)),
        results=results,
        summary=summary,
    )


def _tasks(session: Session, dag_id: str, run_id: str) -> list[TaskRecord]:
    statement = select(
        TaskInstance.task_id,
        TaskInstance.map_index,
        TaskInstance.state,
        TaskInstance.start_date,
        TaskInstance.end_date,
    ).where(TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id)
    return [
        TaskRecord(task_id, index, state and str(state), seconds(start), seconds(end))
        for task_id, index, state, start, end in session.execute(statement)
    ]


def value_of(entry: XComModel) -> Any:
    """What a task handed on; None where a backend of XCom keeps it out of this server's reach."""
    value = entry.value
    try:
        if isinstance(value, str):  # a deployment's own backend keeps a reference
            value = XCom.deserialize_value(entry)
        return json.loads(value) if isinstance(value, str) else value
    except Exception:  # noqa: BLE001 - a backend may raise anything, and the page does without
        return None


def seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
