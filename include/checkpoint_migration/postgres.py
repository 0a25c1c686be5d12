"""How the engine talks with PostgreSQL: connections, transactions, and server errors in our words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg
from psycopg import errors as pg
from psycopg import sql

from .errors import MigrationError, StorageFull, TargetBusy, TargetNotReady, TargetUnreachable

Connect = Callable[[], "psycopg.Connection[Any]"]

NOTHING_COMMITTED = "the source is untouched; the transaction was rolled back as a whole."

# A refused connection comes without an SQLSTATE: only libpq's words tell it from a broken one.
REFUSED_AT_THE_DOOR = ("password", "authentication", "does not exist", "pg_hba.conf")

_BUSY = (
    pg.SerializationFailure,
    pg.DeadlockDetected,
    pg.LockNotAvailable,
    pg.QueryCanceled,
    pg.TooManyConnections,
    pg.ConfigurationLimitExceeded,
)
_GONE = (
    pg.AdminShutdown,
    pg.CrashShutdown,
    pg.CannotConnectNow,
    pg.IdleInTransactionSessionTimeout,
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
REFUSED = Meaning(
    (),
    TargetNotReady,
    "PostgreSQL was reached and refused the connection while {doing}: the login or the database that "
    "it names is not right.",
    "correct login, password and database of the Airflow connection.",
)


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
    lost = (psycopg.OperationalError, psycopg.InterfaceError)
    if error.sqlstate is None and isinstance(error, lost):
        if any(word in str(error) for word in REFUSED_AT_THE_DOOR):
            return REFUSED
        return next(m for m in MEANINGS if m.kind is TargetUnreachable)
    return next(m for m in MEANINGS if isinstance(error, m.errors))


@contextmanager
def connection(connect: Connect, doing: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection in autocommit mode for the length of the block, its errors in our words."""
    with translated_errors(doing):
        conn = connect()
        try:
            conn.autocommit = True
            yield conn
        finally:
            conn.close()


@contextmanager
def transaction(
    connect: Connect,
    doing: str,
    *,
    repeatable_read: bool = False,
    lock_timeout_ms: int = 30_000,
    idle_timeout_ms: int = 600_000,
) -> Iterator[psycopg.Connection[Any]]:
    """One transaction on a connection of its own: committed whole when the block ends, else nothing."""
    with connection(connect, doing) as conn:
        conn.autocommit = False
        if repeatable_read:
            conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        else:
            conn.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        with conn.transaction():
            for name, value in (
                ("lock_timeout", lock_timeout_ms),
                ("idle_in_transaction_session_timeout", idle_timeout_ms),
            ):
                conn.execute(
                    sql.SQL("SET LOCAL {} = {}").format(sql.Identifier(name), sql.Literal(value))
                )
            yield conn
