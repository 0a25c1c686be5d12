"""How the engine talks with PostgreSQL: connections, transactions, and server errors in our words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg import sql

from .errors import MigrationError, StorageFull, TargetBusy, TargetNotReady, TargetUnreachable

Connect = Callable[[], "psycopg.Connection[Any]"]

TABLES = ("checkpoint_blobs", "checkpoints", "checkpoint_writes")
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


@contextmanager
def translated_errors(doing: str, safe: str = NOTHING_COMMITTED) -> Iterator[None]:
    """Turn what psycopg raises while `doing` something into the failure tree.

    Server messages can quote values, so only the SQLSTATE and the error's name are shown.
    """
    try:
        yield
    except psycopg.Error as error:
        raise _translate(error, doing, safe) from None


def _translate(error: psycopg.Error, doing: str, safe: str) -> MigrationError:
    name = type(error).__name__
    state = error.sqlstate
    said = f"{name} (SQLSTATE {state})" if state else name
    if isinstance(error, _BUSY):
        return TargetBusy(
            f"PostgreSQL was busy while {doing}: {said}.",
            safe=safe,
            next="nothing: the task is tried again. If it repeats, see what holds locks in pg_stat_activity.",
            sqlstate=state,
        )
    if isinstance(error, (pg.DiskFull, pg.OutOfMemory)):
        return StorageFull(
            f"the PostgreSQL server ran out of room while {doing}: {said}.",
            safe=safe,
            next="make room on the server's volume; the task is tried again.",
            sqlstate=state,
        )
    if isinstance(error, (pg.InvalidPassword, pg.InvalidAuthorizationSpecification)):
        return TargetNotReady(
            f"PostgreSQL refused the login while {doing}: {said}.",
            safe=safe,
            next="correct the login of the Airflow connection.",
            sqlstate=state,
        )
    if isinstance(error, pg.InvalidCatalogName):
        return TargetNotReady(
            f"the database that the connection names does not exist ({said}).",
            safe=safe,
            next="create the database, or correct the connection's database.",
            sqlstate=state,
        )
    if isinstance(error, pg.InsufficientPrivilege):
        return TargetNotReady(
            f"a privilege was missing while {doing}: {said}.",
            safe=safe,
            next="run the DAG again: check_schema names every missing privilege and its GRANT.",
            sqlstate=state,
        )
    if isinstance(error, (pg.UndefinedTable, pg.UndefinedColumn, pg.InvalidSchemaName)):
        return TargetNotReady(
            f"a table, column or schema was not there while {doing}: {said}.",
            safe=safe,
            next="somebody altered the target since check_schema: run the DAG again.",
            sqlstate=state,
        )
    if isinstance(error, _GONE) or (
        isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)) and state is None
    ):
        if any(word in str(error) for word in REFUSED_AT_THE_DOOR):
            return TargetNotReady(
                f"PostgreSQL was reached and refused the connection while {doing}: the login or the "
                "database that it names is not right.",
                safe=safe,
                next="correct login, password and database of the Airflow connection.",
            )
        return TargetUnreachable(
            f"PostgreSQL could not be reached, or the connection broke, while {doing}: {said}.",
            safe=safe,
            next="nothing at first: the task is tried again. If it repeats, check host, port and "
            "network of the Airflow connection.",
            sqlstate=state,
        )
    return TargetNotReady(
        f"PostgreSQL refused a statement while {doing}: {said}.",
        safe=safe,
        next="look up the SQLSTATE; the server's own log has the statement.",
        sqlstate=state,
    )


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


def table(schema: str, name: str) -> sql.Identifier:
    """The qualified, quoted name of a table."""
    return sql.Identifier(schema, name)
