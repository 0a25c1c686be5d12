"""Past migrations, the newest first, each with what its report said in short."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from airflow.models.dagrun import DagRun
from airflow.models.xcom import XComModel
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from include.checkpoint_migration import RunLine, Verdict, format_seconds

from .records import LAST_TASKS, REHEARSAL, RESULT, UNDO, seconds, value_of

LISTED = 200


def list_runs(session: Session, dag_ids: Collection[str], most: int) -> tuple[list[RunLine], int]:
    """The newest runs of these DAGs, and how many more there are."""
    of_these = DagRun.dag_id.in_(dag_ids)
    total = session.scalar(select(func.count()).select_from(DagRun).where(of_these)) or 0
    newest = select(DagRun).where(of_these).order_by(DagRun.run_after.desc(), DagRun.id.desc())
    runs = list(session.scalars(newest.limit(most)))
    told = _results(session, [run.id for run in runs])
    return [_line(run, told.get(run.id, {})) for run in runs], max(0, total - len(runs))


def _results(session: Session, ids: list[int]) -> dict[int, dict[str, Any]]:
    """What each run's report, or undo, handed on."""
    statement = select(XComModel).where(
        XComModel.dag_run_id.in_(ids), XComModel.task_id.in_(LAST_TASKS), XComModel.key == RESULT
    )
    found = {entry.dag_run_id: value_of(entry) for entry in session.scalars(statement)}
    return {key: value for key, value in found.items() if isinstance(value, dict)}


def _line(run: DagRun, told: dict[str, Any]) -> RunLine:
    conf = run.conf if isinstance(run.conf, dict) else {}
    began, ended = seconds(run.start_date), seconds(run.end_date)
    verdict = None
    with suppress(ValueError):
        verdict = Verdict(str(told.get("verdict")))
    return RunLine(
        run_id=run.run_id,
        href=f"runs/{quote(run.dag_id, safe='')}/{quote(run.run_id, safe='')}",
        state=str(run.state),
        started=run.start_date.strftime("%Y-%m-%d %H:%M") if run.start_date else "",
        source=_text(told.get("source")) or _text(conf.get("source")),
        target=_text(told.get("target")),
        verdict=verdict,
        rehearsal=run.dag_id == REHEARSAL,
        checkpoints=_number(told.get("checkpoints")),
        writes=_number(told.get("writes")),
        duration=format_seconds(ended - began) if began and ended else "",
        undoes=_text(conf.get("run_id")) if run.dag_id == UNDO else None,
        outcome=_text(told.get("outcome")),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) else None
