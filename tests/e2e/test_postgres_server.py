"""The server that demo and tests bring along."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from scripts import postgres_server
from tests.support.postgres import new_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    made = new_folder()
    yield made
    postgres_server.remove(made)


def answers(server: postgres_server.Server) -> bool:
    with psycopg.connect(server.uri()) as connection:
        return connection.execute("SELECT 1").fetchone() == (1,)


def pid_of(folder: Path) -> int:
    return int((folder / "data" / "postmaster.pid").read_text().split()[0])


def test_start_twice_gives_the_same_server(folder: Path) -> None:
    """Starting what runs is no error and starts nothing."""
    first = postgres_server.start(folder)
    pid = pid_of(folder)
    assert postgres_server.start(folder) == first
    assert pid_of(folder) == pid
    assert answers(first)


def test_stop_twice_leaves_nothing_running(folder: Path) -> None:
    """Stopping what does not run is no error."""
    postgres_server.start(folder)
    process = psutil.Process(pid_of(folder))
    assert postgres_server.stop(folder)
    assert not postgres_server.stop(folder)
    assert postgres_server.status(folder) is None
    gone = not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    assert gone


def test_server_needs_its_password_and_only_its_owner_can_read_it(folder: Path) -> None:
    """Nobody else on the machine gets in."""
    server = postgres_server.start(folder)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.uri().replace(server.password, "guess"))
    assert (folder / "password").stat().st_mode & 0o777 == 0o600
    assert server.password not in repr(server)


def test_killed_server_starts_again_on_its_port_with_its_data(folder: Path) -> None:
    """`kill -9` leaves a pid file that is in nobody's way."""
    server = postgres_server.start(folder)
    with psycopg.connect(server.uri()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS value")
    killed = psutil.Process(pid_of(folder))
    killed.send_signal(signal.SIGKILL)
    psutil.wait_procs([killed], timeout=10)
    again = postgres_server.start(folder)
    assert again == server
    with psycopg.connect(again.uri()) as connection:
        assert connection.execute("SELECT value FROM kept").fetchone() == (7,)


def test_pid_of_another_process_is_not_taken_for_the_server(folder: Path) -> None:
    """After a restart of the machine the old number may be anybody's."""
    server = postgres_server.start(folder)
    left = (folder / "data" / "postmaster.pid").read_text()
    postgres_server.stop(folder)
    stale = left.replace(left.split()[0], str(os.getppid()), 1)
    (folder / "data" / "postmaster.pid").write_text(stale)
    assert postgres_server.status(folder) is None
    assert answers(postgres_server.start(folder))
    assert server.port


def test_taken_port_is_replaced(folder: Path) -> None:
    """A port that somebody else has by now is no reason to fail."""
    first = postgres_server.start(folder)
    postgres_server.stop(folder)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", first.port))
        taken.listen()
        second = postgres_server.start(folder)
        assert second.port != first.port
        assert answers(second)


def test_interrupted_initdb_is_made_again(folder: Path) -> None:
    """A data folder that was never finished is no data."""
    (folder / "data").mkdir()
    (folder / "data" / "half").write_text("")
    began = time.monotonic()
    assert answers(postgres_server.start(folder))
    assert time.monotonic() - began < 60
