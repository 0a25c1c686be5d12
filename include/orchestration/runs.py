"""From a task's context to a run of the engine: its settings, its connection, its log."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from airflow.providers.postgres.hooks.postgres import PostgresHook
from airflow.sdk import Connection, get_current_context
from airflow.sdk.exceptions import AirflowNotFoundException

from include.checkpoint_migration import (
    Connect,
    Run,
    Settings,
    SettingsInvalid,
    owner_of_process,
    parse_settings,
)

from .deployment import read_deployment

log = logging.getLogger("checkpoint_migration")

REHEARSAL_DAG = "rehearse_checkpoints"
# A broken network must end in an error: keep-alives find a dead peer within about two minutes.
NETWORK = {
    "connect_timeout": 15,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 6,
    "tcp_user_timeout": 120_000,
    "application_name": "checkpoint_migration",
}


def current_run() -> Run:
    """The run that this task belongs to; raises `SettingsInvalid` where its params make none."""
    settings = current_settings()
    return Run(settings, connect_to(settings.conn_id), log.info, _owner())


def current_settings() -> Settings:
    context = get_current_context()
    dag_id, run_id = current_ids()
    deployment = read_deployment()
    params: Mapping[str, Any] = context["params"]
    return parse_settings(
        dict(params),
        dag_id=dag_id,
        run_id=run_id,
        default_export_uri=deployment.export_uri,
        rehearsal=dag_id == REHEARSAL_DAG,
        max_export_tasks=deployment.max_export_tasks,
        max_load_tasks=deployment.max_load_tasks,
    )


def current_ids() -> tuple[str, str]:
    """The ids of the DAG and of the run."""
    dag_run = get_current_context()["dag_run"]
    return dag_run.dag_id, dag_run.run_id


def fallback_folder() -> Path:
    """Where a report goes when the params name no folder that can be used."""
    return Path(read_deployment().export_uri)


def connect_to(conn_id: str) -> Connect:
    """How the engine opens a connection: by the hook, so that IAM and extras work as anywhere."""

    hook = _Hook(postgres_conn_id=conn_id)

    def connect() -> Any:
        try:
            return hook.get_conn()
        except AirflowNotFoundException:
            raise SettingsInvalid(
                f"the Airflow connection {conn_id!r} is not defined.",
                safe="nothing was read or written.",
                next=f"define it in the UI, or set AIRFLOW_CONN_{conn_id.upper()}; or name another one "
                "with the param postgres_conn_id.",
            ) from None

    return connect


class _Hook(PostgresHook):
    """The provider's hook, with our network settings wherever the connection has none of its own."""

    @property
    def connection(self) -> Connection:
        stored = deepcopy(self.get_connection(self.get_conn_id()))
        extra = {**NETWORK, **stored.extra_dejson}
        extra.pop("cursor", None)  # the engine reads plain tuples
        stored.extra = json.dumps(extra)
        return stored


def _owner() -> str | None:
    """This process, where it carries the whole run, as `dags test` does; else nobody."""
    from airflow.sdk.execution_time import task_runner

    comms = getattr(task_runner, "SUPERVISOR_COMMS", None)
    return owner_of_process() if type(comms).__name__.startswith("InProcess") else None
