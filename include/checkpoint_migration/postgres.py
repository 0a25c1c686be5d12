"""How the engine talks with PostgreSQL: connections, transactions, and server errors in our words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import psycopg
from psycopg import errors as pg
from psycopg import sql

from .errors import MigrationError, StorageFull, TargetBusy, TargetNotReady, TargetUnreachable
from .refusals import not_connected
from .resting import give_back, take

Connect = Callable[[], "psycopg.Connection[Any]"]

NOTHING_COMMITTED = "the source is untouched; the transaction was rolled back as a whole."

_BUSY = (
    pg.SerializationFailure,
    pg.DeadlockDetected,
    pg.TooManyConnections,
    pg.ConfigurationLimitExceeded,
)
_GONE = (
    pg.AdminShutdown,
    pg.CrashShutdown,
    pg.CannotConnectNow,
    pg.IdleInTransactionSessionTimeout,
    pg.IdleSessionTimeout,
    pg.ConnectionException,
    pg.ProtocolViolation,
)


class Meaning(NamedTuple):
    """What some of PostgreSQL's errors mean: `{doing}` and `{said}` are filled in."""

    errors: tuple[type[psycopg.Error], ...]
    kind: type[MigrationError]
    what: str
    next: str


# In order: the first that holds the error speaks.
MEANINGS = (
    Meaning(
        _BUSY,
        TargetBusy,
        "PostgreSQL was busy while {doing}: {said}.",
        "nothing: the task is tried again. If it repeats, see what holds locks in pg_stat_activity.",
    ),
    Meaning(
        (pg.LockNotAvailable,),
        TargetBusy,
        "a lock was not to be had in time while {doing}: {said}.",
        "nothing: the task is tried again. If it repeats, see what holds locks in pg_stat_activity.",
    ),
    Meaning(
        (pg.QueryCanceled, pg.TransactionTimeout),
        TargetBusy,
        "a statement was cancelled while {doing}, by somebody or by a timeout: {said}.",
        "nothing at first: the task is tried again. Each transaction lifts statement_timeout and "
        "transaction_timeout for itself; if it repeats, see who cancels, or lift the pooler's.",
    ),
    Meaning(
        (pg.DiskFull, pg.OutOfMemory),
        StorageFull,
        "the PostgreSQL server ran out of room while {doing}: {said}.",
        "make room on the server's volume; the task is tried again.",
    ),
    Meaning(
        (pg.InvalidPassword, pg.InvalidAuthorizationSpecification),
        TargetNotReady,
        "PostgreSQL refused the login while {doing}: {said}.",
        "correct the login of the Airflow connection.",
    ),
    Meaning(
        (pg.InvalidCatalogName,),
        TargetNotReady,
        "the database that the connection names does not exist ({said}).",
        "create the database, or correct the connection's database.",
    ),
    Meaning(
        (pg.ReadOnlySqlTransaction,),
        TargetNotReady,
        "PostgreSQL takes no writes while {doing}: {said}.",
        "name the primary in the Airflow connection: this is a standby, or was made read-only.",
    ),
    Meaning(
        (pg.InsufficientPrivilege,),
        TargetNotReady,
        "a privilege was missing while {doing}: {said}.",
        "run the DAG again: check_schema names every missing privilege and its GRANT.",
    ),
    Meaning(
        (pg.UndefinedTable, pg.UndefinedColumn, pg.InvalidSchemaName),
        TargetNotReady,
        "a table, column or schema was not there while {doing}: {said}.",
        "somebody altered the target since check_schema: run the DAG again.",
    ),
    Meaning(
        _GONE,
        TargetUnreachable,
        "PostgreSQL could not be reached, or the connection broke, while {doing}: {said}.",
        "nothing at first: the task is tried again. If it repeats, check host, port and network of "
        "the Airflow connection.",
    ),
    Meaning(
        (psycopg.Error,),
        TargetNotReady,
        "PostgreSQL refused a statement while {doing}: {said}.",
        "look up the SQLSTATE; the server's own log has the statement.",
    ),
)
UNREACHABLE = next(meaning for meaning in MEANINGS if meaning.kind is TargetUnreachable)

# What a transaction says first. A role, a database, a server and, behind a pooler, whoever had the
# session before may each have other defaults: ours are set for the transaction, and end with it. The
# search_path stays behind pg_catalog, because triggers of the live tables may need it.
SETTINGS = """\
SET TRANSACTION ISOLATION LEVEL {level}, {mode};
SET LOCAL client_encoding = 'UTF8';
SET LOCAL statement_timeout = 0;
SET LOCAL standard_conforming_strings = on;
SET LOCAL quote_all_identifiers = off;
SET LOCAL "lock_timeout" = {lock_timeout};
SET LOCAL "idle_in_transaction_session_timeout" = {idle_timeout};
{more}
SELECT pg_catalog.set_config('search_path', pg_catalog.concat_ws(', ', 'pg_catalog',
    nullif(pg_catalog.current_setting('search_path'), '')), true)
"""
SINCE_17 = "SET LOCAL transaction_timeout = 0;"

TRIES = 5  # of a connection that ends before anything was asked


@contextmanager
def translated_errors(doing: str, safe: str = NOTHING_COMMITTED) -> Iterator[None]:
    """Turn what psycopg raises while `doing` something into the failure tree.

    Server messages can quote values, so only the SQLSTATE and the error's name are shown.
    """
    try:
        yield
    except psycopg.Error as error:
        name, state = type(error).__name__, error.sqlstate
        said = f"{name} (SQLSTATE {state})" if state else name
        meaning = _meaning_of(error)
        raise meaning.kind(
            meaning.what.format(doing=doing, said=said),
            safe=safe,
            next=meaning.next,
            sqlstate=state,
        ) from None


def _meaning_of(error: psycopg.Error) -> Meaning:
    if error.sqlstate is None and isinstance(
        error, (psycopg.OperationalError, psycopg.InterfaceError)
    ):
        return UNREACHABLE
    return next(m for m in MEANINGS if isinstance(error, m.errors))


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


@contextmanager
def connection(connect: Connect, doing: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection in autocommit mode for the length of the block, its errors in our words.

    Its statements meet whatever defaults the session has: only for what no transaction can hold.
    """
    with translated_errors(doing):
        conn = opened(connect, doing)
        try:
            yield conn
        finally:
            conn.close()


def settle(
    conn: psycopg.Connection[Any],
    *,
    repeatable_read: bool = False,
    read_only: bool = False,
    lock_timeout_ms: int = 30_000,
    idle_timeout_ms: int = 600_000,
) -> None:
    """Say what a transaction has to say first, in one go."""
    statement = sql.SQL(SETTINGS).format(
        level=sql.SQL("REPEATABLE READ" if repeatable_read else "READ COMMITTED"),
        mode=sql.SQL("READ ONLY" if read_only else "READ WRITE"),
        lock_timeout=lock_timeout_ms,
        idle_timeout=idle_timeout_ms,
        more=sql.SQL(SINCE_17 if conn.info.server_version >= 170000 else ""),
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
) -> psycopg.Connection[Any]:
    """Have `start` begin its work on `conn`, or on a new one where that was ended while it rested.

    Where `idle_session_timeout` is short, a connection ends before its first word: another is tried
    at once, a few times. `start` must bear to be called again.
    """
    left = TRIES
    while True:
        if conn is None or conn.closed:
            conn = opened(connect, doing)
        left -= 1
        try:
            start(conn)
        except psycopg.OperationalError:
            if not (conn.closed and left):
                conn.close()
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
) -> Iterator[psycopg.Connection[Any]]:
    """One transaction on a connection of its own: committed whole when the block ends, else nothing.

    Within `resting.resting_connections` the connection may be one that rested, and rests again.
    """
    with translated_errors(doing), ExitStack() as stack:

        def start(conn: psycopg.Connection[Any]) -> None:
            stack.callback(give_back, connect, conn)
            begun = begin(
                conn,
                repeatable_read=repeatable_read,
                read_only=read_only,
                lock_timeout_ms=lock_timeout_ms,
                idle_timeout_ms=idle_timeout_ms,
            )
            stack.enter_context(begun)

        yield started(connect, doing, start, take(connect))
