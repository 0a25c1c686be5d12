"""From a task's context to a run of the engine: its settings, its connection, its log."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow.sdk import get_current_context

from include.checkpoint_migration import Run, Settings, owner_of_process, parse_settings

from .connections import aes_key, connect_to
from .deployment import read_deployment

log = logging.getLogger("checkpoint_migration")

REHEARSAL_DAG = "rehearse_checkpoints"


def current_run() -> Run:
    """The run that this task belongs to; raises `SettingsInvalid` where its params make none."""
    params = get_current_context()["params"]
    settings = _settings(params)
    connect = connect_to(settings.conn_id, silence=read_deployment().task_timeout)
    return Run(settings, connect, log.info, _owner(), aes_key(params.get("aes_conn_id")))


def current_ids() -> tuple[str, str]:
    """The ids of the DAG and of the run."""
    dag_run = get_current_context()["dag_run"]
    return dag_run.dag_id, dag_run.run_id


def asked_folder() -> Path:
    """The run's folder where its params want it, be the other params as they may."""
    return _folder(get_current_context()["params"].get("export_uri"))


def default_folder() -> Path:
    """The run's folder where the deployment wants it."""
    return _folder(None)


def _folder(export_uri: Any) -> Path:
    settings = _settings({"source": "/", "export_uri": export_uri})
    return Path(settings.export_uri) / settings.folder_name


def _settings(params: Mapping[str, Any]) -> Settings:
    dag_id, run_id = current_ids()
    deployment = read_deployment()
    return parse_settings(
        dict(params),
        dag_id=dag_id,
        run_id=run_id,
        default_export_uri=deployment.export_uri,
        rehearsal=dag_id == REHEARSAL_DAG,
        max_export_tasks=deployment.max_export_tasks,
        max_load_tasks=deployment.max_load_tasks,
    )


def _owner() -> str | None:
    """This process, where it carries the whole run, as `dags test` does; else nobody."""
    from airflow.sdk.execution_time import task_runner

    comms = getattr(task_runner, "SUPERVISOR_COMMS", None)
    return owner_of_process() if type(comms).__name__.startswith("InProcess") else None
