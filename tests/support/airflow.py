"""Airflow as people and programs meet it: `scripts/airflow dags test`, and a whole one with REST."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import socket
import sqlite3
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from scripts.demo_airflow import PROGRAM, Airflow

ROOT = Path(__file__).resolve().parents[2]
DAG = "migrate_checkpoints"
REHEARSAL = "rehearse_checkpoints"
UNDO = "undo_migration"
FINISHED = ("success", "failed")


# --- dags test ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ended:
    """A `dags test` that ended: its exit code, all that it printed, and its AIRFLOW_HOME."""

    code: int
    output: str
    home: Path

    @property
    def verdicts(self) -> list[str]:
        return re.findall(r"^verdict: (.*)$", self.output, re.MULTILINE)

    @property
    def report_paths(self) -> list[Path]:
        return [Path(p) for p in re.findall(r"^report: (.*)$", self.output, re.MULTILINE)]

    @property
    def report(self) -> dict[str, Any]:
        return json.loads(self.report_paths[0].read_bytes())

    def metadata(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of Airflow's own database."""
        with closing(sqlite3.connect(self.home / "airflow.db")) as conn:
            return conn.execute(query).fetchall()

    def tries(self) -> dict[str, int]:
        """How often each task was tried; mapped ones by the last of their instances."""
        query = "SELECT task_id, try_number FROM task_instance ORDER BY map_index"
        return dict(self.metadata(query))

    def places_with(self, text: str) -> list[str]:
        """Where a text is found: in what was printed, and in every file below AIRFLOW_HOME."""
        found = ["what was printed"] if text in self.output else []
        files = (path for path in self.home.rglob("*") if path.is_file())
        return found + [str(path) for path in files if text.encode() in path.read_bytes()]


def dags_test(env: dict[str, str], conf: dict[str, Any], *, dag: str = DAG, **more: str) -> Ended:
    """Run `scripts/airflow dags test` to its end, in an environment with `more` variables."""
    done = subprocess.run(
        [ROOT / "scripts" / "airflow", "dags", "test", dag, "-c", json.dumps(conf)],
        env={**env, "CHECKPOINT_MIGRATION_RETRY_DELAY_SECONDS": "0", **more},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
    )
    return Ended(done.returncode, done.stdout, Path(env["AIRFLOW_HOME"]))


# --- LocalExecutor -----------------------------------------------------------------------------


class Deployed:
    """API server, scheduler with LocalExecutor and DAG processor, driven through REST as the UI."""

    def __init__(self, env: dict[str, str], program: Path = PROGRAM) -> None:
        home = Path(env["AIRFLOW_HOME"])
        self.url = f"http://127.0.0.1:{free_port()}"
        self.password = secrets.token_urlsafe(12)
        passwords = home / "passwords.json"
        passwords.write_text(json.dumps({"admin": self.password}))
        ours = {
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": self.url.rpartition(":")[2],
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "4",
            # a run is some ten tasks one after the other: no second is to pass between two of them
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
            "AIRFLOW__API__SECRET_KEY": secrets.token_urlsafe(64),
        }
        self._airflow = Airflow({**env, **ours}, home / "logs" / "components", program)
        self._token = ""

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Start the components, wait until the DAGs can be triggered, end all of it afterwards."""
        try:
            self._airflow.start()
            self.until(self._ready, 180, "Airflow was not ready")
            yield
        finally:
            self._airflow.stop(patience=1)  # nothing of it is needed any more

    def _ready(self) -> bool:
        self._airflow.check()
        login = {"username": "admin", "password": self.password}
        try:
            self._token = self._call("POST", "/auth/token", login)["access_token"]
            for dag in (DAG, REHEARSAL):
                self.call("PATCH", f"/dags/{dag}", {"is_paused": False})
        except (urllib.error.URLError, OSError):
            return False
        return True

    def until(self, true: Callable[[], Any], seconds: float, else_: str) -> Any:
        """Wait until something is true, and return it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := true():
                return found
            self._airflow.check()
            time.sleep(0.25)
        raise AssertionError(f"{else_} after {seconds} s")

    def call(self, method: str, path: str, body: Any = None) -> Any:
        return self._call(method, f"/api/v2{path}", body)

    def _call(self, method: str, path: str, body: Any) -> Any:
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def trigger(self, run_id: str, conf: dict[str, Any], dag: str = DAG) -> None:
        body = {"dag_run_id": run_id, "logical_date": None, "conf": conf}
        self.call("POST", f"/dags/{dag}/dagRuns", body)

    def ended(self, run_id: str, seconds: float, dag: str = DAG) -> str:
        """Wait for the end of a run and return its state."""

        def state() -> str | None:
            found = self.call("GET", f"/dags/{dag}/dagRuns/{run_id}")["state"]
            return found if found in FINISHED else None

        return str(self.until(state, seconds, f"{run_id} was not at its end"))

    def instances(self, run_id: str, dag: str = DAG) -> dict[tuple[str, int], dict[str, Any]]:
        """The run's task instances by task id and map index."""
        path = f"/dags/{dag}/dagRuns/{run_id}/taskInstances?limit=1000"
        listed = self.call("GET", path)["task_instances"]
        return {(ti["task_id"], ti["map_index"]): ti for ti in listed}

    def xcoms(self, run_id: str, dag: str = DAG) -> dict[tuple[str, int, str], Any]:
        """Everything that the run's tasks have handed on."""
        path = f"/dags/{dag}/dagRuns/{run_id}/taskInstances/~/xcomEntries?limit=1000"
        found = {}
        for entry in self.call("GET", path)["xcom_entries"]:
            task, index, key = entry["task_id"], entry["map_index"], entry["key"]
            one = f"/dags/{dag}/dagRuns/{run_id}/taskInstances/{task}/xcomEntries/{key}"
            value = self.call("GET", f"{one}?map_index={index}&deserialize=false")["value"]
            found[task, index, key] = value
        return found

    def log(self, run_id: str, task: str, try_number: int = 1, dag: str = DAG) -> str:
        path = f"/dags/{dag}/dagRuns/{run_id}/taskInstances/{task}/logs/{try_number}"
        return json.dumps(self.call("GET", f"{path}?full_content=true"))

    def clear(self, run_id: str, task: str, index: int, dag: str = DAG) -> None:
        """Clear one mapped instance and what follows it, as the UI does."""
        body = {
            "dag_run_id": run_id,
            "task_ids": [[task, index]],
            "include_downstream": True,
            "only_failed": False,
            "dry_run": False,
        }
        self.call("POST", f"/dags/{dag}/clearTaskInstances", body)

    def kill_task(self, ti: dict[str, Any]) -> None:
        """SIGKILL the process in which a task instance runs, not the one that watches it."""
        for process in psutil.process_iter(["cmdline"]):
            title = " ".join(process.info["cmdline"] or ()).strip()
            if title == f"airflow worker -- {ti['id']}":
                process.kill()
                return
        raise AssertionError(f"no process carries {ti['task_id']} [{ti['map_index']}]")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
