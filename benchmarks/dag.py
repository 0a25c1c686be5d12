"""The DAG itself, from the command or the trigger to the end of its run, Airflow's own cost included."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
    """Seconds from the trigger to the end of the run under a scheduler with two workers."""
    environment = _environment(dsn, folder / "airflow-scheduled")
    _airflow(environment, "pools", "list")
    with _scheduling(environment):
        _airflow(environment, "dags", "unpause", "migrate_checkpoints")
        began = time.perf_counter()
        run = ("migrate_checkpoints", "--run-id", "bench", "-c", _conf(source))
        _airflow(environment, "dags", "trigger", *run)
        while time.perf_counter() - began < PATIENCE:
            listed = _airflow(
                environment, "dags", "list-runs", "migrate_checkpoints", "-o", "plain"
            )
            if " success " in listed:
                return time.perf_counter() - began
            if " failed " in listed:
                raise RuntimeError(listed)
            time.sleep(1)
    raise TimeoutError("the run did not end")


@contextmanager
def _scheduling(environment: dict[str, str]) -> Iterator[None]:
    started = [
        subprocess.Popen(
            [AIRFLOW, name],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for name in ("scheduler", "dag-processor", "api-server")
    ]
    try:
        yield
    finally:
        for process in started:
            os.killpg(process.pid, 15)
        for process in started:
            process.wait(60)


def _environment(dsn: str, home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW_CONN_LANGGRAPH_POSTGRES": dsn,
    }


def _conf(source: Path) -> str:
    return f'{{"source": "{source}"}}'


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
