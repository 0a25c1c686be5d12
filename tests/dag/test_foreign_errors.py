"""What fails and is not ours: the report is written all the same, with its two lines, and says where."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support import sqlite_sources as sources
from tests.support.airflow import Ended, dags_test
from tests.support.night import by_night
from tests.support.postgres import Database

pytestmark = pytest.mark.slow

SECRET = "s3cret-Pa55word"
IAM = json.dumps({"conn_type": "postgres", "host": "h", "login": "u", "extra": {"iam": True}})
BACKEND = f"""
from airflow.secrets import BaseSecretsBackend

class Sealed(BaseSecretsBackend):
    def get_connection(self, conn_id, *args, **kwargs):
        raise RuntimeError("{SECRET}")

    get_conn_value = get_connection
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return sources.saved(tmp_path / "source.sqlite", "a")


def reported(ended: Ended) -> dict[str, Any]:
    """The report of a run that failed: both lines are there once, and name a report that is there."""
    assert ended.code == 1
    assert ended.verdicts == ["unproven"], ended.output[-3000:]
    [path] = ended.report_paths
    assert path.is_file()
    assert path.with_suffix(".html").is_file()
    return ended.report


@pytest.mark.parametrize("key", ["on_conflit", *by_night("dry_run", "stores")])
def test_a_key_of_the_conf_that_is_no_param_runs_nothing(
    key: str, source: Path, database: Database, airflow_env: dict[str, str]
) -> None:
    """What would go unheeded is refused by name, at once, with nothing opened or written."""
    before = sources.listing(source.parent)[source.name]
    ended = dags_test(
        airflow_env,
        {"source": str(source), key: True},
        AIRFLOW_CONN_LANGGRAPH_POSTGRES=database.dsn,
    )
    report = reported(ended)
    error = report["error"]
    assert (error["type"], error["transient"]) == ("SettingsInvalid", False)
    assert repr(key) in error["what"]
    assert "nearest param" in error["what"]
    assert ended.tries()["check_schema"] == 1
    assert sources.listing(source.parent)[source.name] == before
    assert database.rows("SELECT nspname FROM pg_namespace WHERE nspname ~ '^checkpoint'") == []
    left = {path.name for path in ended.report_paths[0].parent.rglob("*")}
    assert left == {"report.json", "report.html"}


def test_a_conf_that_airflow_does_not_heed_is_refused(
    source: Path, airflow_env: dict[str, str]
) -> None:
    """Where a deployment lets no conf override its params, a run is not what its conf says."""
    ended = dags_test(
        airflow_env,
        {"source": str(source), "keep_exports": True},
        dag="rehearse_checkpoints",
        AIRFLOW__CORE__DAG_RUN_CONF_OVERRIDES_PARAMS="False",
        CHECKPOINT_MIGRATION_REHEARSAL_SOURCE=str(source),
    )
    error = reported(ended)["error"]
    assert error["type"] == "SettingsInvalid"
    assert "'keep_exports', which Airflow does not heed" in error["what"]


def test_a_hook_that_fails_is_reported_with_its_type_and_place(
    source: Path, airflow_env: dict[str, str]
) -> None:
    """`iam: true` without the provider that it takes, or without a region: an error in every task."""
    ended = dags_test(
        airflow_env,
        {"source": str(source)},
        AIRFLOW_CONN_LANGGRAPH_POSTGRES=IAM,
        CHECKPOINT_MIGRATION_RETRIES="0",
    )
    report = reported(ended)
    error = report["error"]
    assert error["type"] not in ("TargetUnreachable", "SettingsInvalid")
    assert error["type"] in error["what"]
    assert re.search(r"at (airflow\.providers|botocore)\.", error["what"])
    assert "called from include/orchestration/connections.py:" in error["what"]
    assert "no task left an error" not in report["sentence"]


@pytest.mark.parametrize("key", [None, "the_key"])
def test_a_secrets_backend_that_fails_is_reported(
    key: str | None, source: Path, tmp_path: Path, airflow_env: dict[str, str]
) -> None:
    """A backend that raises, asked for the target or, before any step, for the key: there is a report."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "sealed_backend.py").write_text(BACKEND)
    ended = dags_test(
        airflow_env,
        {"source": str(source), "aes_conn_id": key},
        PYTHONPATH=str(tmp_path / "modules"),
        AIRFLOW__SECRETS__BACKEND="sealed_backend.Sealed",
        CHECKPOINT_MIGRATION_RETRIES="0",
    )
    report = reported(ended)
    named = key or "langgraph_postgres"
    assert f"connection {named!r}" in report["error"]["what"]
    assert SECRET not in json.dumps(report)
    assert "no task left an error" not in report["sentence"]


NOWHERE = "/sys/kernel/checkpoint-migration"  # where not even root may make a folder


def test_an_export_folder_that_may_not_be_made_is_reported_elsewhere(
    source: Path, database: Database, airflow_env: dict[str, str]
) -> None:
    """The report goes where the deployment keeps its own, and has the reason."""
    ended = dags_test(
        airflow_env,
        {"source": str(source), "export_uri": NOWHERE},
        AIRFLOW_CONN_LANGGRAPH_POSTGRES=database.dsn,
    )
    report = reported(ended)
    assert report["error"]["type"] == "StorageRefused"
    assert NOWHERE in report["error"]["what"]
    assert ended.report_paths[0].is_relative_to(ended.home / "exports")
    assert report["sentence"].endswith("the live tables are exactly as they were.")


def test_a_deployment_s_folder_that_is_none_is_no_reason_for_no_report(
    source: Path, airflow_env: dict[str, str]
) -> None:
    """With a wrong folder of the deployment's, too, the report is found below AIRFLOW_HOME."""
    ended = dags_test(
        airflow_env, {"source": str(source)}, CHECKPOINT_MIGRATION_EXPORT_URI="ftp://host/exports"
    )
    assert reported(ended)["error"]["type"] == "SettingsInvalid"
    assert ended.report_paths[0].is_relative_to(ended.home / "exports")


def test_where_no_folder_takes_the_report_the_two_lines_are_there_all_the_same(
    source: Path, airflow_env: dict[str, str]
) -> None:
    """The last resort: the verdict, the path that could not be written, and why, in the log."""
    (Path(airflow_env["AIRFLOW_HOME"]) / "exports").write_text("a file")
    ended = dags_test(airflow_env, {"source": str(source), "export_uri": NOWHERE})
    assert ended.code == 1
    assert ended.verdicts == ["unproven"]
    [path] = ended.report_paths
    assert path.is_relative_to(NOWHERE)
    assert not path.exists()
    assert ended.tries()["report"] == 1
    assert "StorageRefused: making the run's folder ended with " in ended.output
