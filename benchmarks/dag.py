"""The DAG itself, from the command or the trigger to the end of its run, Airflow's own cost included."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

from tests.support.airflow import Deployed

ROOT = Path(__file__).resolve().parent.parent
AIRFLOW = ROOT / "scripts" / "airflow"
PATIENCE = 3_600


def dags_test(dsn: str, source: Path, folder: Path, dag: str = "migrate_checkpoints") -> float:
    """Seconds of `airflow dags test`, its start included."""
    environment = _environment(dsn, folder / "airflow-tested")
    _airflow(environment, "pools", "list")  # the metadata database is made, once for all runs
    began = time.perf_counter()
    _airflow(environment, "dags", "test", dag, "-c", _conf(source))
    return time.perf_counter() - began


def local_executor(dsn: str, source: Path, folder: Path) -> float:
    """Seconds from the trigger to the end of the run, under a scheduler with its own processes."""
    environment = _environment(dsn, folder / "airflow-scheduled")
    _airflow(environment, "pools", "list")
    deployed = Deployed(environment)
    with deployed.running():
        began = time.perf_counter()
        deployed.trigger("bench", {"source": str(source)})
        state = deployed.ended("bench", PATIENCE)
        seconds = time.perf_counter() - began
    if state != "success":
        raise RuntimeError("the run under the scheduler failed")
    return seconds


def _environment(dsn: str, home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW_CONN_LANGGRAPH_POSTGRES": dsn,
    }


def _conf(source: Path) -> str:
    return json.dumps({"source": str(source)})


def _airflow(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [AIRFLOW, *arguments],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    if done.returncode:
        raise RuntimeError(f"airflow {' '.join(arguments[:2])}:\n{done.stdout[-3000:]}")
    return done.stdout
