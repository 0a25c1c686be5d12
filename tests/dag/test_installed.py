"""The repository in an Airflow that is there already: a bundle beside others, events for their DAGs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import chdir
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from airflow.dag_processing.dagbag import BundleDagBag

from tests.support import sqlite_sources as sources
from tests.support.airflow import DAG, REHEARSAL, ROOT, Deployed
from tests.support.postgres import Database

PLAIN = Path(sys.executable).with_name("airflow")  # and not the script, which knows this repository
PROBE = """
import json, sys
from pathlib import Path
from airflow.dag_processing.dagbag import BundleDagBag
bag = BundleDagBag(dag_folder=sys.argv[1], bundle_path=Path(sys.argv[1]), bundle_name="dags-folder")
files = sorted(stat.file.lstrip("/") for stat in bag.dagbag_stats)
print("\\n" + json.dumps({"errors": bag.import_errors, "dags": list(bag.dags), "files": files}))
"""
ALIAS = "migrated_langgraph_checkpoints"
LISTENER = f"""
from airflow.sdk import AssetAlias, dag, task

@dag(schedule=[AssetAlias("{ALIAS}")], is_paused_upon_creation=False)
def switch_over():
    @task
    def read(triggering_asset_events=None):
        return [event.extra for event in triggering_asset_events[AssetAlias("{ALIAS}")]]
    read()

switch_over()
"""


def test_as_a_bundle_only_dags_holds_dags(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow, given the whole repository, reads the DAG files and nothing else of it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    bag = BundleDagBag(dag_folder=str(ROOT), bundle_path=ROOT, bundle_name="here")
    assert bag.import_errors == {}
    assert {DAG, REHEARSAL} <= set(bag.dags)
    assert {Path(stat.file.lstrip("/")).parts[0] for stat in bag.dagbag_stats} == {"dags"}


def test_all_in_one_dag_folder_needs_no_path(tmp_path: Path) -> None:
    """DAG files, include/ and .airflowignore side by side, as where there is a DAG folder alone."""
    for file in (*(ROOT / "dags").glob("*.py"), ROOT / ".airflowignore"):
        shutil.copyfile(file, tmp_path / file.name)
    shutil.copytree(ROOT / "include", tmp_path / "include")
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(
        [sys.executable, "-c", PROBE, tmp_path], cwd="/", env=env, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout.splitlines()[-1])
    assert told["errors"] == {}
    assert {DAG, REHEARSAL} <= set(told["dags"])
    assert told["files"] == sorted(path.name for path in (ROOT / "dags").glob("*.py"))


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_a_plain_airflow_runs_it_from_a_bundle_and_other_dags_follow_identical_alone(
    tmp_path: Path, database: Database, airflow_env: dict[str, str]
) -> None:
    """The repository as a local bundle, no PYTHONPATH, another working folder: a run is identical.

    A DAG of another bundle that is scheduled on the asset's alias runs once for it, with run, counts
    and digest, and not for a run that failed, a rehearsal, or a run that is looked at again.
    """
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "switch_over.py").write_text(LISTENER)
    bundles = [
        {
            "name": path.name,
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(path), "refresh_interval": 300},
        }
        for path in (ROOT, tmp_path / "others")
    ]
    env = {name: value for name, value in airflow_env.items() if name != "PYTHONPATH"}
    airflow = Deployed(
        {
            **env,
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
            "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "nothing"),
            "AIRFLOW_CONN_LANGGRAPH_POSTGRES": database.dsn,
            "CHECKPOINT_MIGRATION_RETRIES": "0",
        },
        program=PLAIN,
    )
    source = sources.saved(tmp_path / "application.sqlite", "a", "b")
    with chdir(tmp_path), airflow.running():
        airflow.trigger("failed", {"source": str(tmp_path / "nowhere.sqlite")})
        airflow.trigger("rehearsed", {"source": str(source)}, REHEARSAL)
        assert airflow.ended("failed", 240) == "failed"
        assert airflow.ended("rehearsed", 240, REHEARSAL) == "success"
        airflow.trigger("moved", {"source": str(source)})
        assert airflow.ended("moved", 240) == "success"
        airflow.clear("moved", "verify_counts", -1)
        assert airflow.ended("moved", 120) == "success"
        [run] = airflow.until(lambda: runs_of(airflow, "switch_over"), 60, "nobody followed")
        assert airflow.ended(run, 60, "switch_over") == "success"
        read = airflow.xcoms(run, "switch_over")["read", -1, "return_value"]
        events = airflow.call("GET", "/assets/events")["asset_events"]

    live = database.rows("SELECT count(*) FROM checkpoints")[0][0]
    [event] = events
    assert read == [event["extra"]]
    told = event["extra"]
    assert (told["dag_id"], told["run_id"], told["verdict"]) == (DAG, "moved", "identical")
    assert (told["checkpoints"], len(told["digest"])) == (live, 64)
    where = urlsplit(database.dsn)
    table = f"{where.hostname}:{where.port}{where.path}/public/checkpoints"
    assert event["uri"] == f"postgres://{table}"


def runs_of(airflow: Deployed, dag: str) -> list[str]:
    return [run["dag_run_id"] for run in airflow.call("GET", f"/dags/{dag}/dagRuns")["dag_runs"]]
