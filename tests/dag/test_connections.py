"""Airflow's connection as the engine gets it: named when it is missing, given up when silent."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from include import checkpoint_migration as engine
from include.checkpoint_migration.errors import TargetUnreachable
from include.checkpoint_migration.postgres import transaction
from include.checkpoint_migration.server_errors import translated_errors
from include.orchestration.connections import connect_to
from tests.support.faults import Proxy, hang
from tests.support.postgres import Database, TestServer

SILENCE = timedelta(seconds=2)


@pytest.fixture
def proxy(
    database: Database, postgres_server: TestServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Proxy]:
    """A proxy to a fresh database, which the Airflow connection `through_proxy` names."""
    with Proxy(database.dsn) as made:
        part = conninfo_to_dict(database.dsn)
        port = conninfo_to_dict(made.dsn)["port"]
        login = f"{part['user']}:{part['password']}" if "password" in part else part["user"]
        uri = f"postgresql://{login}@127.0.0.1:{port}/{part['dbname']}?sslmode=disable"
        monkeypatch.setenv("AIRFLOW_CONN_THROUGH_PROXY", uri)
        yield made


def hung(proxy: Proxy) -> None:
    for link in proxy.links:
        hang(link)


def test_a_server_that_falls_silent_is_given_up(proxy: Proxy) -> None:
    """A statement without an answer ends in a transient failure; a busy server is waited for."""
    connect = connect_to("through_proxy", SILENCE)
    with transaction(connect, "waiting") as conn:
        assert conn.execute("SELECT 1 FROM pg_sleep(1)").fetchone() == (1,)
        hung(proxy)
        began = time.monotonic()
        with pytest.raises(TargetUnreachable), translated_errors("waiting"):
            conn.execute("SELECT 1")
        assert SILENCE.seconds <= time.monotonic() - began < 3 * SILENCE.seconds


def test_a_task_that_timed_out_in_a_silent_copy_ends(proxy: Proxy) -> None:
    """Airflow's alarm raises within a COPY whose end would wait for the server for ever."""

    class TimedOut(BaseException):
        """As Airflow's own, no `Exception`."""

    def alarm(*_: Any) -> None:
        raise TimedOut

    before = signal.signal(signal.SIGALRM, alarm)
    began = time.monotonic()
    try:
        with (  # noqa: PT012 - the alarm is to come up inside the COPY
            pytest.raises(TimedOut),
            transaction(connect_to("through_proxy", SILENCE), "copying") as conn,
        ):
            conn.execute("CREATE TEMP TABLE words (word text)")
            with conn.cursor().copy("COPY words FROM STDIN") as copy:
                hung(proxy)
                signal.setitimer(signal.ITIMER_REAL, 1)
                while True:
                    copy.write("x" * 100_000 + "\n")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - began < 1 + 4 * SILENCE.seconds


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "is not defined"),
        ("postgresql://u:s3cret/Pa55word@host/db", "is not defined, or Airflow cannot read it"),
        ("postgresql://u:s3cret@127.0.0.1:1/db?nonsense=Pa55word", "libpq does not know"),
    ],
    ids=["missing", "malformed", "unknown_extra"],
)
def test_a_connection_that_is_none_is_named_without_its_secrets(
    value: str | None, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What the deployment has to correct is named, terminal, and tells nothing of a password."""
    if value is not None:
        monkeypatch.setenv("AIRFLOW_CONN_BROKEN", value)
    with (
        pytest.raises(engine.SettingsInvalid, match=said) as caught,
        transaction(connect_to("broken", SILENCE), "trying"),
    ):
        pass
    assert not caught.value.transient
    assert "'broken'" in caught.value.what
    assert "Pa55word" not in str(caught.value) + caplog.text
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
