"""`make airflow`: Airflow itself on localhost, with the demo's databases, until Ctrl-C.

API server, scheduler (LocalExecutor) and DAG processor run in one session of their own, so that
whatever they fork, Ctrl-C or SIGTERM ends it all and leaves nothing running.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import psutil  # noqa: E402

from scripts import demo, demo_sample, postgres_server  # noqa: E402 - found through the line above

COMPONENTS = (
    ["api-server", "--workers", "1"],
    ["scheduler", "--skip-serve-logs"],
    ["dag-processor"],
)
PROGRAM = ROOT / "scripts" / "airflow"
PORT = 8080
START_SECONDS, STOP_SECONDS = 180, 10


class Stopped(Exception):
    """Somebody asked to end it."""


def stop_on_signals() -> None:
    def ended(_number: int, _frame: FrameType | None) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # once is enough: let the end be orderly
        raise Stopped

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, ended)


def free_port() -> int:
    """Return the caller's AIRFLOW__API__PORT, else 8080 or the next free port."""
    if asked := os.environ.get("AIRFLOW__API__PORT"):
        return int(asked)
    for port in range(PORT, PORT + 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise demo.DemoFailed(f"no port from {PORT} on is free; name one in AIRFLOW__API__PORT")


def password() -> str:
    """Return the password of `admin`, made once and kept for its owner alone."""
    path = passwords_file()
    with contextlib.suppress(OSError, ValueError, KeyError):
        return str(json.loads(path.read_text())["admin"])
    made = secrets.token_urlsafe(12)
    path.parent.mkdir(parents=True, exist_ok=True)
    postgres_server.write_private(path, json.dumps({"admin": made}))
    return made


def passwords_file() -> Path:
    return demo.home() / "demo" / "passwords.json"


def environment(server: postgres_server.Server, port: int) -> dict[str, str]:
    """Return what the components see; a variable that the caller has set stays as it is."""
    url = f"http://127.0.0.1:{port}"
    ours = {
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords_file()),
        "AIRFLOW__CORE__PARALLELISM": str(max(4, os.cpu_count() or 4)),
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "30",
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
        "AIRFLOW__API__SECRET_KEY": secrets.token_urlsafe(64),
    }
    return {**ours, **demo.environment(server)}


class Airflow:
    """The components as child processes in one session, which is ended as a whole."""

    def __init__(self, env: dict[str, str], logs: Path, program: Path = PROGRAM) -> None:
        self.env, self.logs, self.program = env, logs, program
        self.children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        for component in COMPONENTS:
            with (self.logs / f"{component[0]}.log").open("wb") as log:
                self.children[component[0]] = subprocess.Popen(
                    [self.program, *component],
                    env=self.env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )

    def check(self) -> None:
        for name, child in self.children.items():
            if child.poll() is not None:
                log = self.logs / f"{name}.log"
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
                raise demo.DemoFailed(
                    f"{name} ended with exit code {child.returncode}; see {log}\n{tail}"
                )

    def stop(self, patience: float = STOP_SECONDS) -> None:
        """End the components, then everything that they have left in their sessions.

        After so many seconds of patience they are killed.
        """
        for child in self.children.values():
            if child.poll() is None:
                child.terminate()
        until = time.monotonic() + patience
        for child in self.children.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.1, until - time.monotonic()))
        for number in (signal.SIGTERM, signal.SIGKILL):
            left = list(self.left())
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.send_signal(number)
            psutil.wait_procs(left, timeout=min(5.0, patience))
        for child in self.children.values():
            child.wait()

    def left(self) -> Iterator[psutil.Process]:
        sessions = {child.pid for child in self.children.values()}
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                zombie = process.status() == psutil.STATUS_ZOMBIE
                if os.getsid(process.pid) in sessions and not zombie:
                    yield process


def wait_until_ready(airflow: Airflow, url: str, token_for: str) -> None:
    """Wait until the API answers to the printed login and has the DAG, which is then unpaused."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        airflow.check()
        with contextlib.suppress(urllib.error.URLError, OSError, ValueError, KeyError):
            login = {"username": "admin", "password": token_for}
            token = call("POST", f"{url}/auth/token", login)["access_token"]
            call("PATCH", f"{url}/api/v2/dags/{demo.DAG}", {"is_paused": False}, token)
            return
        time.sleep(1)
    raise demo.DemoFailed(f"Airflow was not ready after {START_SECONDS} s; see {airflow.logs}")


def call(method: str, url: str, body: dict[str, Any], token: str | None = None) -> Any:
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 - localhost
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return json.load(answer)


def serve() -> None:
    folder = postgres_server.demo_folder()
    started = postgres_server.status(folder) is None
    server = postgres_server.start(folder)
    logs = demo.home() / "logs" / "demo-airflow"
    try:
        demo.make_database(server, reset=False)
        source = demo_sample.write_sample(demo.sample_path())
        port, login = free_port(), password()
        env = environment(server, port)
        # sets up the metadata database before three processes want it at once
        listed = [ROOT / "scripts" / "airflow", "pools", "list"]
        subprocess.run(listed, env=env, check=True, stdout=subprocess.DEVNULL)
        airflow = Airflow(env, logs)
        try:
            airflow.start()
            print("Airflow is starting …", flush=True)
            url = env["AIRFLOW__API__BASE_URL"]
            wait_until_ready(airflow, url, login)
            print(f"\n  {url}/dags/{demo.DAG}\n  user admin, password {login}\n")
            print(f"Trigger {demo.DAG} with the sample as its source:\n  {source}\n")
            print(f"Logs are in {logs}\nCtrl-C ends it all.", flush=True)
            while True:
                time.sleep(1)
                airflow.check()
        finally:
            print("\nEnding Airflow …", flush=True)
            airflow.stop()
    finally:
        if started:
            postgres_server.stop(folder)


def main() -> int:
    stop_on_signals()
    try:
        serve()
    except Stopped:
        return 0
    except (demo.DemoFailed, postgres_server.ServerError, subprocess.CalledProcessError) as error:
        print(f"make airflow failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
