"""What PostgreSQL's errors mean, as a table; why a connection was not made, `refusals` tells."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import psycopg
from psycopg import errors as pg

from .errors import MigrationError, StorageFull, TargetBusy, TargetNotReady, TargetUnreachable
from .texts import quoted

NOTHING_COMMITTED = "the source is untouched; the transaction was rolled back as a whole."
# A connection may break when COMMIT was sent and its answer was not heard.
WHOLE_OR_NOT_AT_ALL = (
    "the source is untouched; the transaction is committed or rolled back as a whole, and the next try "
    "sees which."
)

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
        (pg.IntegrityError,),
        TargetNotReady,
        "a constraint of the live tables refused a row while {doing}: {said}.",
        "the saver's own tables have none but primary keys: see what that constraint asks for, or drop it.",
    ),
    Meaning(
        (pg.RaiseException,),
        TargetNotReady,
        "a trigger or function of the database refused a row while {doing}: {said}.",
        "see which triggers the live tables have (check_schema names them as warnings).",
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


@contextmanager
def translated_errors(doing: str, safe: str = NOTHING_COMMITTED) -> Iterator[None]:
    """Turn what psycopg raises while `doing` something into the failure tree.

    Server messages can quote values, so only the SQLSTATE and the error's name are shown.
    """
    try:
        yield
    except psycopg.Error as error:
        state = error.sqlstate
        said, meaning = _said(error), _meaning_of(error)
        if safe == NOTHING_COMMITTED and meaning.kind is TargetUnreachable:
            safe = WHOLE_OR_NOT_AT_ALL
        raise meaning.kind(
            meaning.what.format(doing=doing, said=said),
            safe=safe,
            next=meaning.next,
            sqlstate=state,
        ) from None


def _said(error: psycopg.Error) -> str:
    """The error's name, its SQLSTATE, and which constraint of which table spoke."""
    said = type(error).__name__
    if error.sqlstate:
        said += f" (SQLSTATE {error.sqlstate})"
    if error.diag.constraint_name:
        said += (
            f" of {quoted(error.diag.constraint_name)} on {quoted(error.diag.table_name or '?')}"
        )
    return said


def _meaning_of(error: psycopg.Error) -> Meaning:
    if error.sqlstate is None and isinstance(
        error, (psycopg.OperationalError, psycopg.InterfaceError)
    ):
        return UNREACHABLE
    return next(m for m in MEANINGS if isinstance(error, m.errors))
