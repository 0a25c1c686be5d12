"""The DAG with an object store by Airflow's own connection and ObjectStoragePath."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.airflow import dags_test
from tests.support.faults import write_source
from tests.support.objects import BUCKET, SECRET, s3_server
from tests.support.postgres import Database

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_the_whole_dag_runs_with_exports_and_source_in_a_bucket(
    tmp_path: Path, database: Database, airflow_env: dict[str, str]
) -> None:
    """`identical`; the report's URI is what the last line says; nothing but the reports stays, neither
    in the bucket nor on the worker; the store's secret is in no log.
    """
    source = write_source(tmp_path / "app.sqlite", turns=4)
    scratch = tmp_path / "scratch"
    with s3_server() as store:
        store.put("app.sqlite", source.read_bytes())
        ended = dags_test(
            airflow_env,
            {"source": f"s3://the_store@{BUCKET}/app.sqlite", "batch_size": 5},
            AIRFLOW_CONN_LANGGRAPH_POSTGRES=database.dsn,
            AIRFLOW_CONN_THE_STORE=store.connection,
            CHECKPOINT_MIGRATION_EXPORT_URI=f"s3://the_store@{BUCKET}/exports",
            CHECKPOINT_MIGRATION_SCRATCH=str(scratch),
        )
        assert ended.code == 0, ended.output
        assert ended.verdicts == ["identical"]
        told = ended.output.rpartition("report: ")[2].split()[0]
        assert told.startswith(f"s3://the_store@{BUCKET}/exports/")
        name = told.removeprefix(f"s3://the_store@{BUCKET}/")
        assert store.names() == {"app.sqlite", name, name.replace("report.json", "report.html")}
        report = json.loads(store.file_system().cat_file(f"{BUCKET}/{name}"))
        assert (report["verdict"], report["succeeded"]) == ("identical", True)
        assert all(asked.range for asked in store.fetched(".jsonl.zst"))
        assert store.fetched(".jsonl.zst")
    assert [path for path in scratch.rglob("*") if path.is_file()] == []
    assert not ended.places_with(SECRET)


def test_a_connection_of_a_store_that_is_not_there_is_refused_by_name(
    tmp_path: Path, database: Database, airflow_env: dict[str, str]
) -> None:
    """Nobody goes on as whoever the machine happens to be; the report lies in a folder then."""
    ended = dags_test(
        airflow_env,
        {"source": str(write_source(tmp_path / "app.sqlite"))},
        AIRFLOW_CONN_LANGGRAPH_POSTGRES=database.dsn,
        CHECKPOINT_MIGRATION_EXPORT_URI=f"s3://nobody@{BUCKET}/exports",
    )
    assert ended.code == 1
    assert "the Airflow connection 'nobody', named by an object store's URI" in ended.output
    assert ended.report["error"]["type"] == "SettingsInvalid"
