"""From Airflow's records of a run to its page: its own summary, or what its tasks say so far. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from include.checkpoint_migration import (
    Counts,
    Origin,
    SoFar,
    Span,
    Summary,
    read_summary,
    summary_so_far,
)

from .progress import progress_of
from .records import REHEARSAL, RunRecord


def page_of(run: RunRecord) -> Summary:
    """The run's summary once its report is written; else what its tasks have said."""
    if run.last_summary is not None:
        try:
            return read_summary(run.last_summary)
        except msgspec.ValidationError:  # of another release of the package
            pass
    return summary_so_far(_known(run))


def _known(run: RunRecord) -> SoFar:
    checked = _result(run, "check_schema")
    promoted = _result(run, "import.promote")
    failed = sorted(
        (task.finished or 0, task.task_id) for task in run.tasks if task.state == "failed"
    )
    return SoFar(
        dag_id=run.dag_id,
        run_id=run.run_id,
        rehearsal=run.dag_id == REHEARSAL,
        progress=progress_of(run) if run.goes_on else None,
        started=run.started,
        finished=run.finished,
        failed=tuple(name for _, name in failed),
        source=_text(run.conf.get("source")),
        conn_id=_text(run.conf.get("postgres_conn_id")),
        schema=_text(run.conf.get("target_schema")),
        format=_text(checked.get("format")),
        server_version=_text(checked.get("server_version")),
        counted=_counts(checked.get("counts")),
        frozen=_counts(_result(run, "freeze_source").get("counts")),
        exported=_exported(run),
        inserted=_counts(promoted.get("inserted")),
        already_live=_counts(promoted.get("identical")),
        spans=tuple(_spans(run)),
        origin=Origin(run.triggered_by),
    )


def _result(run: RunRecord, task_id: str) -> dict[str, Any]:
    result = run.results.get((task_id, -1))
    return result if isinstance(result, dict) else {}


def _counts(told: Any) -> Counts | None:
    try:
        return msgspec.convert(told, Counts)
    except msgspec.ValidationError:
        return None


def _exported(run: RunRecord) -> Counts | None:
    """The sum over all shards, once none is missing."""
    tasks = [task for task in run.tasks if task.task_id == "export.export_threads"]
    told = [run.results.get((task.task_id, task.map_index)) for task in tasks]
    counts = [_counts(result.get("counts")) for result in told if isinstance(result, dict)]
    whole = [count for count in counts if count is not None]
    return sum(whole, Counts(0, 0, 0)) if tasks and len(whole) == len(tasks) else None


def _spans(run: RunRecord) -> Iterable[Span]:
    begun = [task for task in run.tasks if task.started is not None]
    for task in sorted(begun, key=lambda task: task.started or 0):
        name = task.task_id.rpartition(".")[2]
        yield Span(name, task.started or 0, task.finished, task.state == "failed")


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
