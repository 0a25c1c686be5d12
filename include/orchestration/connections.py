"""How a task reaches PostgreSQL: by the provider's hook, over a network that may fall silent."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator
from copy import deepcopy
from datetime import timedelta
from typing import Any

import psycopg
from airflow.providers.postgres.hooks.postgres import PostgresHook
from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException
from psycopg import pq

from include.checkpoint_migration import Connect, SettingsInvalid

# Keep-alives find a dead peer within about two minutes.
NETWORK = {
    "connect_timeout": 15,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 6,
    "tcp_user_timeout": 120_000,
    "application_name": "checkpoint_migration",
    "client_encoding": "UTF8",
}
NOTHING_DONE = "the source is untouched; this task has written nothing."


def connect_to(conn_id: str, silence: timedelta) -> Connect:
    """How the engine opens a connection: by the hook, so that IAM and extras work as anywhere.

    A connection on which a server that still answers pings says nothing for `silence` is given up.
    """
    hook = _Hook(postgres_conn_id=conn_id)

    def connect() -> Any:
        try:
            conn = hook.get_conn()
        except AirflowNotFoundException:
            raise SettingsInvalid(
                f"the Airflow connection {conn_id!r} is not defined, or Airflow cannot read it.",
                safe=NOTHING_DONE,
                next=f"define it in the UI, or set AIRFLOW_CONN_{conn_id.upper()}; or name another "
                "one with the param postgres_conn_id.",
            ) from None
        except psycopg.ProgrammingError:  # its message would quote the option
            unknown = hook.unknown_extras()
            named = f": {', '.join(ascii(name[:60]) for name in unknown)}" if unknown else ""
            raise SettingsInvalid(
                f"the Airflow connection {conn_id!r} has an extra that libpq does not know, or whose "
                f"value it cannot read{named}.",
                safe=NOTHING_DONE,
                next="correct the connection's extras.",
            ) from None
        except psycopg.OperationalError as error:
            # libpq's words are shown without what holds the password: where psycopg itself failed
            # to resolve the host, it has not kept which that is.
            password = (hook.connection.password or "\0").casefold()
            if error.pgconn is None and password in str(error).casefold():
                raise psycopg.OperationalError from None
            raise
        _end_silence(conn, silence.total_seconds())
        return conn

    return connect


def aes_key(conn_id: str | None) -> bytes | None:
    """The key of an encrypted source: the password of a connection, else `LANGGRAPH_AES_KEY`."""
    if not conn_id:
        return os.environ.get("LANGGRAPH_AES_KEY", "").encode() or None
    try:
        password = Connection.get(conn_id).password
    except AirflowNotFoundException:
        password = None
    if not password:
        raise SettingsInvalid(
            f"the Airflow connection {conn_id!r}, named by aes_conn_id, is not defined or has no password.",
            safe=NOTHING_DONE,
            next="store the AES key as the password of that connection.",
        )
    return str(password).encode()


class _Hook(PostgresHook):
    """The provider's hook, with our network settings where the connection has none of its own."""

    @property  # type: ignore[misc]  # Airflow's has a setter, which nobody uses
    def connection(self) -> Any:
        stored = deepcopy(self.get_connection(self.get_conn_id()))
        extra = {**NETWORK, **stored.extra_dejson}
        extra.pop("cursor", None)  # the engine reads plain tuples
        stored.extra = json.dumps(extra)
        return stored

    def unknown_extras(self) -> list[str]:
        """The names of extras that are neither libpq's nor the provider's own."""
        known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
        return sorted(self.connection.extra_dejson.keys() - known - self.ignored_extra_options)


def _end_silence(conn: Any, seconds: float) -> None:
    """Make waits on a connection fail once nothing came or went on its socket for so long.

    Airflow's execution_timeout alone does not end them: it raises within a wait, and what then ends
    the COPY or the transaction waits for the silent server again, with no alarm any more.
    """
    wait = conn.wait

    def bounded(steps: Any, *args: Any, **kwargs: Any) -> Any:
        return wait(_listened(conn, steps, seconds), *args, **kwargs)

    conn.wait = bounded


def _listened(conn: Any, steps: Any, seconds: float) -> Generator[Any, Any, Any]:
    """The same steps of psycopg's protocol, which are sent 0 when nothing is ready for a while."""
    heard = time.monotonic()
    try:
        asked = next(steps)
        while True:
            ready = yield asked
            if ready:
                heard = time.monotonic()
            elif time.monotonic() - heard > seconds:
                conn.pgconn.finish()  # else every clean-up would wait as long again
                raise psycopg.OperationalError("the server said nothing for too long")
            asked = steps.send(ready)
    except StopIteration as end:
        return end.value
