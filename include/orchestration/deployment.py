"""A deployment's own settings: the variables `CHECKPOINT_MIGRATION_*`."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from include.checkpoint_migration import TaskSizes

PREFIX = "CHECKPOINT_MIGRATION_"
MAPPED = 1024  # Airflow maps no longer lists (core.max_map_length)


@dataclass(frozen=True, slots=True)
class AtOnce:
    """How many mapped tasks of a kind a run has at work at once, however many slots Airflow has.

    A limit of the DAG's own, and no pool: a pool that nobody has made would hold the tasks back forever.
    """

    exports: int
    loads: int
    verifications: int


@dataclass(frozen=True, slots=True)
class NotifierSetting:
    """A notifier of Airflow by its import path, told of failures or of every verdict."""

    path: str
    kwargs: dict[str, Any]
    on: str


@dataclass(frozen=True, slots=True)
class Deployment:
    """What a deployment sets once for all runs; the README lists the variables."""

    export_uri: str
    sizes: TaskSizes
    retries: int
    retry_delay: timedelta
    task_timeout: timedelta
    rehearsal_source: str | None
    rehearsal_schedule: str | None
    source_queue: str | None
    owner: str
    active_runs: int
    run_timeout: timedelta
    at_once: AtOnce
    notifiers: tuple[NotifierSetting, ...]
    scratch: Path
    undo_days: int


def read_deployment() -> Deployment:
    """Read the environment; raise `ValueError` naming the variable that makes no sense."""
    source = _text("REHEARSAL_SOURCE")
    return Deployment(
        export_uri=_text("EXPORT_URI") or default_exports(),
        sizes=_sizes(),
        retries=_number("RETRIES", 3, 0, 100),
        retry_delay=timedelta(seconds=_number("RETRY_DELAY_SECONDS", 30, 0, 86_400)),
        task_timeout=timedelta(seconds=_number("TASK_TIMEOUT_SECONDS", 6 * 3600, 1, 30 * 86_400)),
        rehearsal_source=source,
        rehearsal_schedule=(_text("REHEARSAL_SCHEDULE") or "@weekly") if source else None,
        source_queue=_text("SOURCE_QUEUE"),
        owner=_text("OWNER") or "checkpoint-migration",
        active_runs=_number("ACTIVE_RUNS", 1, 1, 1000),
        run_timeout=timedelta(seconds=_number("RUN_TIMEOUT_SECONDS", 7 * 86_400, 1, 365 * 86_400)),
        at_once=AtOnce(
            exports=_number("EXPORTS_AT_ONCE", 16, 1, MAPPED),
            loads=_number("LOADS_AT_ONCE", 8, 1, MAPPED),
            verifications=_number("VERIFICATIONS_AT_ONCE", 8, 1, MAPPED),
        ),
        notifiers=_notifiers(_text("NOTIFIERS")),
        scratch=Path(_text("SCRATCH") or Path(default_exports()).with_name("scratch")).absolute(),
        undo_days=_number("UNDO_DAYS", 30, 0, 36_500),
    )


def default_exports() -> str:
    """Where runs keep their folders if nobody says otherwise."""
    home = os.environ.get("AIRFLOW_HOME") or str(Path.home() / "airflow")
    return str(Path(home).absolute() / "exports")


def _sizes() -> TaskSizes:
    usual = TaskSizes()
    return TaskSizes(
        threads_alone=_number("THREADS_ALONE", usual.threads_alone, 0, MAPPED),
        shard_bytes=_number("SHARD_MIB", usual.shard_bytes >> 20, 1, 1 << 20) << 20,
        shard_bytes_at_least=_number(
            "SHARD_KIB_AT_LEAST", usual.shard_bytes_at_least >> 10, 1, 1 << 30
        )
        << 10,
        fewest_shards=_number("FEWEST_SHARDS", usual.fewest_shards, 1, MAPPED),
        max_export_tasks=_number("MAX_EXPORT_TASKS", usual.max_export_tasks, 1, MAPPED),
        batches_alone=_number("BATCHES_ALONE", usual.batches_alone, 0, MAPPED),
        fewest_loads=_number("FEWEST_LOADS", usual.fewest_loads, 1, MAPPED),
        batches_at_most=_number("BATCHES_AT_MOST", usual.batches_at_most, 1, 1 << 20),
        max_load_tasks=_number("MAX_LOAD_TASKS", usual.max_load_tasks, 1, MAPPED),
    )


def _notifiers(text: str | None) -> tuple[NotifierSetting, ...]:
    """A JSON list of `{"notifier": path, "kwargs": {…}, "on": "verdict" or "failure"}`."""
    try:
        return tuple(map(_notifier, json.loads(text or "[]")))
    except (
        ValueError,
        TypeError,
        AttributeError,
        KeyError,
    ):  # its message would quote what the kwargs hold
        raise ValueError(
            f'{PREFIX}NOTIFIERS must be a JSON list of {{"notifier": "module.Class", "kwargs": {{…}}, '
            '"on": "verdict" or "failure"}'
        ) from None


def _notifier(entry: Any) -> NotifierSetting:
    path, kwargs = entry["notifier"], entry.get("kwargs", {})
    on = entry.get("on", "verdict")
    named = isinstance(path, str) and "." in path and isinstance(kwargs, dict)
    if not named or on not in ("verdict", "failure") or entry.keys() - {"notifier", "kwargs", "on"}:
        raise ValueError
    return NotifierSetting(path, kwargs, on)


def _text(name: str) -> str | None:
    return os.environ.get(PREFIX + name) or None


def _number(name: str, default: int, lowest: int, highest: int) -> int:
    text = _text(name)
    if text is None:
        return default
    if not text.isdecimal() or not lowest <= int(text) <= highest:
        raise ValueError(f"{PREFIX}{name} must be a whole number from {lowest} to {highest}")
    return int(text)
