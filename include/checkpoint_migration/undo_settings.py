"""What a run that undoes another was asked to do: a migration's settings, and whose rows go out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from .errors import SettingsInvalid
from .param_values import NOTHING_DONE
from .settings import Settings, parse_settings
from .texts import quoted

UNDO_PARAMS = ("run_id", "postgres_conn_id", "export_uri")


@dataclass(frozen=True, slots=True)
class UndoSettings:
    """`run` says who undoes, and where it writes; its source and schema come from the ledger.

    `run_id` is the Airflow run whose rows go out again.
    """

    run: Settings
    run_id: str


def parse_undo(
    params: Mapping[str, Any],
    *,
    dag_id: str,
    run_id: str,
    default_export_uri: str,
    run_date: date | None = None,
) -> UndoSettings:
    """Return the settings that the DAG's params spell, or raise `SettingsInvalid` naming the first bad one."""
    unknown = [str(name) for name in params if name not in UNDO_PARAMS]
    if unknown:
        raise _invalid(f"the run was given what is no param: {', '.join(map(quoted, unknown[:5]))}")
    asked = params.get("run_id")
    if not isinstance(asked, str) or not asked or "\0" in asked:
        raise _invalid(
            "param 'run_id' is missing: it names the Airflow run whose rows go out again"
        )
    if asked == run_id:
        raise _invalid("param 'run_id' names this very run")
    given = {name: params[name] for name in ("postgres_conn_id", "export_uri") if name in params}
    settings = parse_settings(
        {"source": "/", **given},
        dag_id=dag_id,
        run_id=run_id,
        default_export_uri=default_export_uri,
        run_date=run_date,
    )
    return UndoSettings(settings, asked)


def _invalid(what: str) -> SettingsInvalid:
    return SettingsInvalid(
        f"{what}.",
        safe=NOTHING_DONE,
        next=f"trigger the DAG again; its params are {', '.join(UNDO_PARAMS)}.",
        params=UNDO_PARAMS,
    )
