"""The pages in Airflow's UI as people meet them: a real API server, and a real browser before it."""

from __future__ import annotations

import contextlib
import html
import http.client
import json
import os
import secrets
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.airflow import ROOT, free_port

AXE = ROOT / "tests" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
SANDBOX = "allow-scripts allow-same-origin allow-forms allow-downloads"  # as Airflow's UI sets it
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars "
    "--disable-background-networking --disable-component-update --disable-sync"
).split()


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    text: str


class ApiServer:
    """Airflow's API server alone: `admin` may read all, `outsider` no DAG of ours."""

    def __init__(self, env: dict[str, str]) -> None:
        self.home = Path(env["AIRFLOW_HOME"])
        self.port = free_port()
        self.passwords = {name: secrets.token_urlsafe(12) for name in ("admin", "outsider")}
        kept = self.home / "passwords.json"
        kept.write_text(json.dumps(self.passwords))
        url = f"http://127.0.0.1:{self.port}"
        self.env = {
            **env,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": url,
            "AIRFLOW__CORE__AUTH_MANAGER": "tests.support.outsiders.Outsiders",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,outsider:viewer",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(kept),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
            "AIRFLOW__API__SECRET_KEY": secrets.token_urlsafe(64),
        }
        self.tokens: dict[str, str] = {}

    @contextlib.contextmanager
    def running(self) -> Iterator[ApiServer]:
        with (self.home / "api-server.log").open("wb") as log:
            server = subprocess.Popen(
                [ROOT / "scripts" / "airflow", "api-server", "--workers", "1"],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._log_in(server)
            yield self
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(1)  # it takes eight seconds, for nothing
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()

    def _log_in(self, server: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + 180
        while not self.tokens and time.monotonic() < until:
            assert server.poll() is None, (self.home / "api-server.log").read_text()[-3000:]
            with contextlib.suppress(OSError, KeyError, ValueError, http.client.HTTPException):
                for name, password in self.passwords.items():
                    login = {"username": name, "password": password}
                    answer = self.ask("POST", "/auth/token", body=login)
                    self.tokens[name] = json.loads(answer.text)["access_token"]
            time.sleep(0.3)
        assert self.tokens, "the API server was not ready"

    def get(self, path: str, user: str | None = "admin") -> Answer:
        return self.ask("GET", path, user)

    def ask(self, method: str, path: str, user: str | None = None, body: Any = None) -> Answer:
        headers = {"Content-Type": "application/json"}
        if user is not None:
            headers["Authorization"] = f"Bearer {self.tokens[user]}"
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as conn:
            conn.request(method, path, body and json.dumps(body), headers)
            answer = conn.getresponse()
            text = answer.read().decode()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, text)

    def change(self, statement: str) -> None:
        """Change Airflow's own records, as its scheduler would."""
        with closing(sqlite3.connect(self.home / "airflow.db", timeout=30)) as conn, conn:
            conn.execute(statement)


class Root(HTMLParser):
    """The attributes of a document's root."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.attributes: dict[str, str] = {}
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "html":
            self.attributes = {name: value or "" for name, value in attrs}


def browse(url: str, folder: Path, *flags: str) -> dict[str, str]:
    """Open an address in headless Chromium; the attributes of its root once it has loaded."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    command = [browser, *FLAGS, *flags, f"--user-data-dir={folder / 'profile'}", "--dump-dom", url]
    done = subprocess.run(command, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    return Root(done.stdout.decode()).attributes


def findings_of_axe(page: str, folder: Path, *flags: str) -> list[str]:
    """What axe finds in a page, with all that can be opened open."""
    if not AXE.exists():
        pytest.skip("no axe-core on this machine: npm ci --prefix tests/axe")
    bare = page.replace('http-equiv="Content-Security-Policy"', "", 1)
    script = AXE.read_text(encoding="utf-8").replace("</script", "<\\/script")
    run = (
        "const told = document.documentElement.dataset;"
        "document.querySelectorAll('details').forEach((d) => { d.open = true; });"
        "axe.run().then((r) => { told.axe = JSON.stringify(r.violations.map((v) =>"
        " `${v.id}: ${v.nodes.length} x ${v.nodes[0].html.slice(0, 200)}`)); })"
        ".catch((e) => { told.axe = JSON.stringify([String(e)]); });"
    )
    file = folder / "axe.html"
    scripts = f"<script>{script}</script><script>{run}</script>"
    file.write_text(bare.replace("</body>", f"{scripts}</body>"), encoding="utf-8")
    found = browse(file.as_uri(), folder, "--virtual-time-budget=60000", *flags)
    told: list[str] = json.loads(found["data-axe"])
    return told


class Relay:
    """What stands between a browser and the API server: it logs in, and frames a page as the UI does."""

    def __init__(self, server: ApiServer, path: str, turn: Callable[[], None]) -> None:
        self.served = threading.Semaphore(0)
        relay = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/frame":
                    self.send(200, {"content-type": "text/html"}, relay.frame(path))
                elif self.path == "/turn":  # the frame's load waits for it
                    relay.served.acquire(timeout=30)
                    turn()
                    relay.served.acquire(timeout=30)
                    time.sleep(1)
                    self.send(204, {}, "")
                else:
                    answer = server.get(self.path)
                    self.send(answer.status, answer.headers, answer.text)
                    if self.path == path:
                        relay.served.release()

            def send(self, status: int, headers: dict[str, str], text: str) -> None:
                self.send_response(status)
                for name in ("content-type", "content-security-policy"):
                    if name in headers:
                        self.send_header(name, headers[name])
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @staticmethod
    def frame(path: str) -> str:
        return (
            f'<!doctype html><html class="dark"><iframe id="tab" sandbox="{SANDBOX}" '
            f'src="{html.escape(path)}" width="900" height="900"></iframe><img src="/turn"><script>'
            "const seen = new Set(), root = document.documentElement;"
            "setInterval(() => { const page = document.getElementById('tab').contentDocument;"
            " if (page && page.title) { seen.add(page.title);"
            " root.dataset.theme = page.documentElement.dataset.theme || '';"
            " root.dataset.tools = page.querySelectorAll('.tools input').length; }"
            " root.dataset.seen = JSON.stringify([...seen]); }, 50)</script>"
        )

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        """Serve, and give the address of the frame."""
        thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{self._http.server_address[1]}/frame"
        finally:
            self._http.shutdown()
            self._http.server_close()
            thread.join()


def hosts_named(page: str) -> set[str]:
    """Hosts that a page would ask for anything."""
    parts = [piece.split('"')[0] for piece in page.split('src="')[1:] + page.split("url(")[1:]]
    return {urlsplit(part).netloc for part in parts}
