"""How the engine talks with PostgreSQL: connections and transactions that trust no default."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg import sql

from .errors import TargetNotReady
from .interrupting import interruptible
from .refusals import not_connected
from .resting import give_back, take
from .server_errors import NOTHING_COMMITTED, translated_errors

Connect = Callable[[], "psycopg.Connection[Any]"]

# What a transaction says first. A role, a database, a server and, behind a pooler, whoever had the
# session before may each have other defaults: ours are set for the transaction, and end with it. The
# search_path stays behind pg_catalog, because triggers of the live tables may need it. Our statements
# are long and run once: compiling them takes longer than it saves.
SETTINGS = """\
SET LOCAL statement_timeout = 0;
SET TRANSACTION ISOLATION LEVEL {level}, {mode};
SET LOCAL client_encoding = 'UTF8';
SET LOCAL standard_conforming_strings = on;
SET LOCAL quote_all_identifiers = off;
SET LOCAL jit = off;
SET LOCAL datestyle = 'ISO';
SET LOCAL "lock_timeout" = {lock_timeout};
SET LOCAL "idle_in_transaction_session_timeout" = {idle_timeout};
{more}
SELECT pg_catalog.set_config('search_path', pg_catalog.concat_ws(', ', 'pg_catalog',
    nullif(pg_catalog.current_setting('search_path'), '')), true)
"""
# Of a client that was killed the server learns within this time, not at its statement's end. It is
# known of Linux that a server can; others refuse the setting.
ENDS_WITH_CLIENT = """\
SELECT pg_catalog.set_config('client_connection_check_interval', '5s', {is_local})
 WHERE pg_catalog.version() OPERATOR(pg_catalog.~) 'linux';
"""
SINCE_14 = ENDS_WITH_CLIENT.format(is_local="true")
SINCE_17 = "SET LOCAL transaction_timeout = 0;"

TRIES = 5  # of a connection that ends, or is cancelled, before anything was asked


def opened(connect: Connect, doing: str) -> psycopg.Connection[Any]:
    """A new connection in autocommit mode, or an error that says why there is none.

    Nothing is prepared on it: behind a pooler the next transaction may be another session's.
    """
    try:
        conn = connect()
    except psycopg.Error as error:
        raise not_connected(error, doing) from None
    conn.autocommit = True
    conn.prepare_threshold = None
    return conn


def settle(
    conn: psycopg.Connection[Any],
    *,
    repeatable_read: bool = False,
    read_only: bool = False,
    lock_timeout_ms: int = 30_000,
    idle_timeout_ms: int = 600_000,
) -> None:
    """Say what a transaction has to say first, in one go."""
    version = conn.info.server_version
    since = (SINCE_14 if version >= 140000 else "") + (SINCE_17 if version >= 170000 else "")
    statement = sql.SQL(SETTINGS).format(
        level=sql.SQL("REPEATABLE READ" if repeatable_read else "READ COMMITTED"),
        mode=sql.SQL("READ ONLY" if read_only else "READ WRITE"),
        lock_timeout=lock_timeout_ms,
        idle_timeout=idle_timeout_ms,
        more=sql.SQL(since),
    )
    try:
        conn.execute(statement)
    except pg.FeatureNotSupported:  # what a standby says of READ WRITE
        raise TargetNotReady(
            "PostgreSQL takes no writes: it is a standby.",
            safe=NOTHING_COMMITTED,
            next="name the primary in the Airflow connection.",
        ) from None


@contextmanager
def begin(
    conn: psycopg.Connection[Any],
    *,
    repeatable_read: bool = False,
    read_only: bool = False,
    lock_timeout_ms: int = 30_000,
    idle_timeout_ms: int = 600_000,
) -> Iterator[psycopg.Connection[Any]]:
    """One transaction on a connection that has none: committed whole when the block ends, else nothing.

    No default is trusted, and nothing of it outlives the transaction.
    """
    with conn.transaction():
        settle(
            conn,
            repeatable_read=repeatable_read,
            read_only=read_only,
            lock_timeout_ms=lock_timeout_ms,
            idle_timeout_ms=idle_timeout_ms,
        )
        yield conn


def started(
    connect: Connect,
    doing: str,
    start: Callable[[psycopg.Connection[Any]], Any],
    conn: psycopg.Connection[Any] | None = None,
    tries: int = TRIES,
) -> psycopg.Connection[Any]:
    """Have `start` begin its work on `conn`, or on a new one where that was ended while it rested.

    Where a timeout of the role or of the pooler is short, it ends a connection before its first word,
    or cancels the word that lifts it: another is tried at once, a few times. `start` must bear to be
    called again.
    """
    left = tries
    while True:
        if conn is None or conn.closed:
            conn = opened(connect, doing)
        left -= 1
        try:
            start(conn)
        except psycopg.OperationalError as error:
            struck = conn.closed or isinstance(error, pg.QueryCanceled)
            conn.close()
            if not (struck and left):
                raise
        else:
            return conn


@contextmanager
def transaction(
    connect: Connect,
    doing: str,
    *,
    repeatable_read: bool = False,
    read_only: bool = False,
    lock_timeout_ms: int = 30_000,
    idle_timeout_ms: int = 600_000,
    tries: int = TRIES,
) -> Iterator[psycopg.Connection[Any]]:
    """One transaction on a connection of its own: committed whole when the block ends, else nothing.

    Within `resting.resting_connections` the connection may be one that rested, and rests again. An
    interruption ends what the server is doing as well.
    """
    with translated_errors(doing), ExitStack() as stack:

        def start(conn: psycopg.Connection[Any]) -> None:
            stack.callback(give_back, connect, conn)
            stack.enter_context(interruptible(conn))
            begun = begin(
                conn,
                repeatable_read=repeatable_read,
                read_only=read_only,
                lock_timeout_ms=lock_timeout_ms,
                idle_timeout_ms=idle_timeout_ms,
            )
            stack.enter_context(begun)

        yield started(connect, doing, start, take(connect), tries)
