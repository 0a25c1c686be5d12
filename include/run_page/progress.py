"""How far a run is, from the states of its tasks: "load: 14 of 49 batches, 31 %, about 20 s left". Pure."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from include.checkpoint_migration import Progress, format_about

from .records import RunRecord, TaskRecord

# In the order of the pipeline: the word, the task, and what its instances are dealt out in.
PHASES = (
    ("check", "check_schema", ""),
    ("freeze", "freeze_source", ""),
    ("plan", "export.plan_shards", ""),
    ("export", "export.export_threads", "shards"),
    ("plan", "import.plan_batches", ""),
    ("load", "import.load_batch", "batches"),
    ("verify", "import.verify_staged", "shards"),
    ("promote", "import.promote", ""),
    ("witness", "verify_counts", ""),
    ("report", "report", ""),
)
OVER = frozenset(("success", "failed", "skipped", "upstream_failed", "removed"))


def progress_of(run: RunRecord, now: Callable[[], float] = time.time) -> Progress:
    """The first phase that is not over, with its share done and a guess of what is left."""
    for word, task_id, unit in PHASES:
        tasks = [task for task in run.tasks if task.task_id == task_id]
        if all(task.state in OVER for task in tasks):
            continue
        began = min((task.started for task in tasks if task.started is not None), default=None)
        if began is None:
            return Progress(f"{word}: waiting to begin")
        seconds = max(0.0, now() - began)
        if unit:
            return _of_parts(word, unit, tasks, _weights(run, task_id), seconds)
        return Progress(f"{word}: at work for {format_about(seconds)}" + _again(tasks))
    return Progress("report: about to end", 100)


def _of_parts(
    word: str, unit: str, tasks: list[TaskRecord], weights: dict[int, int], seconds: float
) -> Progress:
    total = sum(weights.get(task.map_index, 1) for task in tasks)
    done = sum(weights.get(task.map_index, 1) for task in tasks if task.state in OVER)
    percent = 100 * done // total
    line = f"{word}: {done:,} of {total:,} {unit if total != 1 else unit[:-1]}, {percent} %"
    if done:
        line += f", about {format_about(seconds / done * (total - done))} left"
    return Progress(line + _again(tasks), percent)


def _weights(run: RunRecord, task_id: str) -> dict[int, int]:
    """How many batches each load task takes, as plan_batches dealt them out; else one each."""
    if task_id != "import.load_batch":
        return {}
    planned = run.results.get(("import.plan_batches", -1))
    loads: list[Any] = planned if isinstance(planned, list) else []
    try:
        return {n: sum(part["count"] for part in load["batches"]) for n, load in enumerate(loads)}
    except (KeyError, TypeError):
        return {}


def _again(tasks: list[TaskRecord]) -> str:
    waiting = sum(task.state == "up_for_retry" for task in tasks)
    return f"; {waiting:,} to be tried again" if waiting else ""
