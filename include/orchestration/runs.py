"""From a task's context to a run of the engine: its settings, its connection, its log."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import date
from typing import Any
from urllib.parse import quote

import psycopg
from airflow.sdk import get_current_context
from airflow.sdk.configuration import conf

from include.checkpoint_migration import (
    COLUMNS,
    Connect,
    MigrationError,
    Origin,
    Run,
    RunFolder,
    Settings,
    SettingsInvalid,
    TargetUnreachable,
    folded,
    owner_of_process,
    parse_settings,
    parse_undo,
    run_folder,
    told_of,
)

from .connections import aes_key, connect_to
from .deployment import default_exports, read_deployment
from .object_stores import object_stores

log = logging.getLogger("checkpoint_migration")

REHEARSAL_DAG = "rehearse_checkpoints"
SUMMARY_KEY = "summary"


def say(level: int, line: str) -> None:
    """Log a line at its level, as several where it is long."""
    for part in folded(line) if len(line) > COLUMNS else (line,):
        log.log(level, part)


def _inform(line: str) -> None:
    say(logging.INFO, line)


def current_run() -> Run:
    """The run that this task belongs to; raises `SettingsInvalid` where its params make none."""
    settings = current_settings()
    connect = connect_to(settings.conn_id, silence=read_deployment().task_timeout)
    key = aes_key(_params().get("aes_conn_id"))
    return Run(settings, connect, _inform, _owner(), key, say, object_stores())


def current_undo() -> tuple[Run, str]:
    """The undoing run that this task belongs to, and the Airflow run that it is to undo."""
    dag_id, run_id = current_ids()
    deployment = read_deployment()
    params = _params()
    asked = parse_undo(
        {**_conf_beside(params), **params},
        dag_id=dag_id,
        run_id=run_id,
        default_export_uri=deployment.export_uri,
        run_date=_run_date(),
    )
    connect = connect_to(asked.run.conn_id, silence=deployment.task_timeout)
    return Run(
        asked.run, connect, _inform, _owner(), log_at=say, objects=object_stores()
    ), asked.run_id


def reported_run() -> Run:
    """The same run for its report, which needs no key, and can do without the target."""
    settings = current_settings()
    connect = _connect_if_possible(settings)
    return Run(settings, connect, _inform, log_at=say, objects=object_stores())


def current_settings() -> Settings:
    """What the run was asked to do; a key of its conf that would go unheeded is refused."""
    params = _params()
    return _settings({**_conf_beside(params), **params})


def current_ids() -> tuple[str, str]:
    """The ids of the DAG and of the run."""
    dag_run = get_current_context()["dag_run"]
    return dag_run.dag_id, dag_run.run_id


def current_folder() -> RunFolder:
    """The run's folder."""
    return _folder(current_settings())


def report_folders() -> Iterator[RunFolder]:
    """Where the run's report may lie, best first: as asked, as deployed, in AIRFLOW_HOME."""
    asked = get_current_context()["params"].get("export_uri")
    for export_uri in (asked, None, default_exports()):
        with suppress(MigrationError):
            yield _folder(_settings({"source": "/", "export_uri": export_uri}))


def _folder(settings: Settings) -> RunFolder:
    return run_folder(settings.export_uri, settings.folder_name, object_stores())


def current_origin() -> Origin:
    """Who triggered the run, and where Airflow shows it, if it knows its own address."""
    dag_run = get_current_context()["dag_run"]
    base = conf.get("api", "base_url", fallback="").rstrip("/")
    ids = (quote(text, safe="") for text in (dag_run.dag_id, dag_run.run_id))
    url = (
        "{}/dags/{}/runs/{}".format(base, *ids)
        if base.startswith(("http://", "https://"))
        else None
    )
    return Origin(getattr(dag_run, "triggering_user_name", None), url)


def keep_summary(summary: Mapping[str, Any]) -> None:
    """Hand the summary to Airflow's UI; whatever is in the way of that is not to cost the report."""
    instance: Any = get_current_context()["ti"]
    try:
        instance.xcom_push(SUMMARY_KEY, dict(summary))
    except Exception as error:  # noqa: BLE001 - a backend of XCom may raise anything
        say(logging.WARNING, f"the report is not shown in Airflow's UI ({told_of(error)}).")


def is_last_try() -> bool:
    """Whether Airflow gives this task no further try."""
    instance: Any = get_current_context()["ti"]
    return bool(instance.try_number > instance.max_tries)


def is_one_process() -> bool:
    """Whether this process carries the whole run, as `dags test` does."""
    from airflow.sdk.execution_time import task_runner

    comms = getattr(task_runner, "SUPERVISOR_COMMS", None)
    return type(comms).__name__.startswith("InProcess")


def _params() -> Mapping[str, Any]:
    params: Mapping[str, Any] = get_current_context()["params"]
    return params


def _conf_beside(params: Mapping[str, Any]) -> dict[str, Any]:
    """What the run's conf says that its params do not; where a deployment lets no conf override its
    params, a value that would go unheeded is refused like a key that would.
    """
    conf = getattr(get_current_context()["dag_run"], "conf", None) or {}
    unheeded = [name for name in conf if name in params and params[name] != conf[name]]
    if unheeded:
        raise SettingsInvalid(
            f"the run's conf sets {', '.join(map(repr, unheeded))}, which Airflow does not heed here: "
            "[core] dag_run_conf_overrides_params is False.",
            safe="nothing was opened, read or written.",
            next="set it to True (or leave it away, for that is its default), and trigger the DAG again.",
        )
    return {name: value for name, value in conf.items() if name not in params}


def _settings(params: Mapping[str, Any]) -> Settings:
    dag_id, run_id = current_ids()
    deployment = read_deployment()
    return parse_settings(
        dict(params),
        dag_id=dag_id,
        run_id=run_id,
        default_export_uri=deployment.export_uri,
        rehearsal=dag_id == REHEARSAL_DAG,
        run_date=_run_date(),
        sizes=deployment.sizes,
        undo_days=deployment.undo_days,
    )


def _run_date() -> date | None:
    """The run's own date, the same at every try."""
    run_after = getattr(get_current_context()["dag_run"], "run_after", None)
    return run_after.date() if run_after else None


def _connect_if_possible(settings: Settings) -> Connect:
    """How the report opens a connection: whatever is in the way, the target is out of reach."""

    def connect() -> Any:
        try:
            return connect_to(settings.conn_id, silence=read_deployment().task_timeout)()
        except (MigrationError, psycopg.Error):
            raise
        except Exception as error:  # noqa: BLE001 - a hook or a secrets backend may raise anything
            raise TargetUnreachable(
                f"the Airflow connection {settings.conn_id!r} could not be opened ({told_of(error)}).",
                next="see to the connection, and to what Airflow reads it from.",
            ) from None

    return connect


def _owner() -> str | None:
    """This process, where it carries the whole run; else nobody."""
    return owner_of_process() if is_one_process() else None
