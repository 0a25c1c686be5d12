"""The stand of docker-compose.yaml without its containers: its environment lines, on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psutil
import redis
import yaml

from scripts.demo_airflow import Airflow
from tests.support.airflow import ROOT, Deployed
from tests.support.objects import Store
from tests.support.postgres import Database
from tests.support.sqlite_sources import IS_ROOT

VARIABLE = re.compile(r"\$\{([A-Z_]+):[?-]([^}]*)\}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def compose_environment(given: dict[str, str], places: dict[str, str]) -> dict[str, str]:
    """The lines of the compose file, with what `.env` gives, and `places` for the containers' names."""
    stand = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
    lines = {name: str(value) for name, value in stand["x-airflow"]["environment"].items()}
    for name, value in lines.items():
        value = VARIABLE.sub(lambda found: given.get(found[1], found[2]), value)
        for place, instead in places.items():
            value = value.replace(place, instead)
        lines[name] = value
    return lines


@contextlib.contextmanager
def redis_server(password: str, folder: Path) -> Iterator[int]:
    port = free_port()
    program = shutil.which("redis-server")
    assert program, "redis-server is missing: apt install redis-server"
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
    server = subprocess.Popen([*command, "--requirepass", password], stdout=subprocess.DEVNULL)
    try:
        with redis.Redis(port=port, password=password) as client:
            end = time.monotonic() + 20
            while time.monotonic() < end:
                with contextlib.suppress(redis.ConnectionError):
                    client.ping()
                    break
                time.sleep(0.1)
        yield port
    finally:
        server.kill()
        server.wait()


class Worker:
    """A worker with a home, a scratch folder, logs and, if we are root, a user of its own."""

    def __init__(self, name: str, uid: int, env: dict[str, str], home: Path, queues: str) -> None:
        self.name, self.uid, self.home, self._queues = name, uid, home, queues
        home.mkdir(mode=0o700)
        if IS_ROOT:
            os.chown(home, uid, uid)
        own = {"HOME": str(home), "AIRFLOW_HOME": str(home), "TMPDIR": str(home), "USER": name}
        self._env = {**env, **own}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = Path(sys.executable).with_name("airflow")
        command: list[Any] = [program, "celery", "worker", "--queues", self._queues]
        command += ["--celery-hostname", f"{self.name}@%h", "--skip-serve-logs"]
        if IS_ROOT:  # it may read the interpreter, wherever that lies, and write nothing of others
            as_user = [f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups"]
            may = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
            command = ["setpriv", *as_user, *may, *command]
        with self.home.with_suffix(".log").open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.home,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> None:
        """SIGKILL it with all that it has begun, as the machine's end would."""
        if self._process is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            worker = psutil.Process(self._process.pid)
            worker.suspend()
            for child in worker.children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        self._process.kill()
        self._process.wait()

    @property
    def is_ready(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise AssertionError(self.home.with_suffix(".log").read_text()[-3000:])
        return f"{self.name}@" in (said := self.home.with_suffix(".log").read_text()) and (
            " ready." in said
        )

    def began(self, task: str) -> int:
        """How many instances of a task it has a log of."""
        found = self.home.glob(f"logs/**/task_id={task}/**/attempt=*.log")
        return len(list(found))


class Stand(Deployed):
    """API server, scheduler with CeleryExecutor and DAG processor; workers are started apart."""

    def __init__(
        self,
        env: dict[str, str],
        metadata: Database,
        target: Database,
        store: Store,
        broker: tuple[int, str],
        **given: str,
    ) -> None:
        home = Path(env["AIRFLOW_HOME"])
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._token, self.password = "", secrets.token_urlsafe(12)
        passwords = home / "passwords.json"
        passwords.write_text(json.dumps({"admin": self.password}))
        user = urlsplit(metadata.dsn)
        login = f"{user.username}:{user.password or ''}@{user.hostname}:{user.port}{user.path}"
        at_target = urlsplit(target.dsn).netloc + urlsplit(target.dsn).path
        lines = compose_environment(
            {
                "AIRFLOW_PORT": str(port),
                "API_SECRET_KEY": secrets.token_hex(32),
                "BROKER_PASSWORD": broker[1],
                "FERNET_KEY": "ZmFrZS1rZXktZm9yLWEtdGVzdC1vZi10aGUtc3RhbmQ=",
                "JWT_SECRET": secrets.token_hex(64),
                "METADATA_PASSWORD": "metadata",
                "STORE_PASSWORD": "store-password",
                "TARGET_PASSWORD": "target",
                **given,
            },
            {
                "http://localhost:": "http://127.0.0.1:",
                "http://api-server:8080": self.url,
                "@broker:6379": f"@127.0.0.1:{broker[0]}",
                "airflow:metadata@metadata/airflow": login,
                "langgraph:target@target:5432/langgraph": at_target,
                "http://store:9000": store.endpoint,
                "/opt/airflow": str(ROOT),
            },
        )
        assert quote("store") in lines["AIRFLOW_CONN_OBJECTS"]
        ours = {
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        }
        without = {name: value for name, value in env.items() if name != "PYTHONPATH"}
        self.env = {**without, **lines, **ours}
        listed = [ROOT / "scripts" / "airflow", "pools", "list"]  # migrates the metadata database
        (home / ".metadata-ready").unlink(missing_ok=True)
        subprocess.run(listed, env=self.env, check=True, capture_output=True)
        self._airflow = Airflow(self.env, home / "logs" / "components")
