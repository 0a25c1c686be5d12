"""A real pgbouncer in transaction mode, and other clients that keep its server connections busy."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.support.postgres import Database, new_folder

PASSWORD = "of-the-pooler"


def binary() -> str:
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        pytest.skip("pgbouncer is not installed (apt-get install pgbouncer)")
    return found


@contextlib.contextmanager
def pooler(database: Database, **settings: Any) -> Iterator[str]:
    """Run a pgbouncer before a database, three server connections large; gives its own URI.

    `settings` are pgbouncer's own. Prepared statements are not followed by it.
    """
    command = binary()
    part = conninfo_to_dict(database.dsn)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = new_folder()
    given = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "trust",
        "auth_file": folder / "users",
        "pool_mode": "transaction",
        "default_pool_size": 3,
        "max_client_conn": 200,
        "server_tls_sslmode": "disable",
        **settings,
    }
    server = f"host={part['host']} port={part['port']} dbname={part['dbname']}"
    login = f"user={part['user']} password={part['password']}"
    lines = ["[databases]", f"* = {server} {login}", "[pgbouncer]"]
    lines += [f"{name} = {value}" for name, value in given.items()]
    (folder / "users").write_text(f'"{part["user"]}" "{PASSWORD}"\n')
    (folder / "pgbouncer.ini").write_text("\n".join(lines) + "\n")
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0:  # whom pgbouncer refuses
        nobody = pwd.getpwnam("nobody")
        as_user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        for path in (folder, *folder.iterdir()):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [command, str(folder / "pgbouncer.ini")], stdout=log, stderr=log, cwd="/", **as_user
        )
    try:
        _wait_for(port, process, folder / "log")
        yield f"postgresql://{part['user']}:{PASSWORD}@127.0.0.1:{port}/{part['dbname']}"
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError(f"pgbouncer did not start:\n{log.read_text()}")


@contextlib.contextmanager
def busy(dsn: str, clients: int = 4) -> Iterator[list[int]]:
    """Other clients of a pooler: each leaves settings and prepared statements in whatever session.

    Gives how many transactions each has made. They take any name that a driver would, and close
    everybody's, as one that cleans up does.
    """
    done = [0] * clients
    stop = threading.Event()

    def work(number: int) -> None:
        while not stop.is_set():
            with contextlib.suppress(psycopg.Error), psycopg.connect(dsn, autocommit=True) as conn:
                conn.prepare_threshold = None
                while not stop.is_set():
                    _disturb(conn, number, done[number])
                    done[number] += 1

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield done
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)


def _disturb(conn: psycopg.Connection[Any], number: int, turn: int) -> None:
    name = f"_pg3_{turn % 6}"
    with contextlib.suppress(psycopg.errors.DuplicatePreparedStatement):
        conn.execute(f"PREPARE {name} AS SELECT {number}".encode())
    conn.execute("SET search_path = nowhere, pg_temp")
    conn.execute("SET client_encoding = 'LATIN1'")
    conn.execute("SET quote_all_identifiers = on")
    conn.execute("SET default_transaction_read_only = on")
    conn.execute("SELECT pg_sleep(0.001)")
    conn.execute("SET statement_timeout = '30ms'")
    if turn % 3 == 0:
        conn.execute("DEALLOCATE ALL")
