"""Has `PostgresSaver.setup()` make the live tables, or bring older ones up to date: whole, or gone on with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg import sql

from ..errors import TargetBusy, TargetNotReady
from ..interrupting import interruptible
from ..postgres import ENDS_WITH_CLIENT, Connect, started, transaction
from ..server_errors import translated_errors
from ..texts import quoted
from .layout import Layout, read_layout

CONCURRENTLY = " CONCURRENTLY "  # of the saver's migrations: what no transaction can hold
NO_ROWS = "the source is untouched; no row was written on the target."
NOTHING_MADE = "the source is untouched; nothing was made or written on the target."
IN_PART = f"{NO_ROWS} What setup() has done so far stays, and the next try goes on from there."

# A lock is not waited for longer than an application bears to wait behind it.
SESSION = """\
set statement_timeout = 0;
set lock_timeout = '30s';
set client_encoding = 'UTF8';
set default_transaction_read_only = off;
set search_path = {schema};
{since_14}
"""
SINCE_14 = "set idle_session_timeout = 0;" + ENDS_WITH_CLIENT.format(is_local="false")

ALONE = "SELECT pg_try_advisory_lock(hashtext('checkpoint_migration: setup'), hashtext(%s))"
# What CONCURRENTLY leaves of an index when it is ended midway; IF NOT EXISTS would pass it over for good.
HALF_MADE = """
SELECT c.relname::text AS name
  FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
 WHERE NOT i.indisvalid AND c.relname = ANY(%s)
   AND c.relnamespace = to_regnamespace(quote_ident(%s))
"""


def make_tables(connect: Connect, layout: Layout, *, pooled: bool) -> Layout:
    """Make or update the tables, and look at them again. Safe to repeat, whatever ended the last try."""
    from langgraph.checkpoint.postgres import PostgresSaver

    schema = layout.schema
    done = 0 if layout.version is None else layout.version + 1
    apart = any(CONCURRENTLY in m for m in PostgresSaver.MIGRATIONS[done:])
    if not layout.tables or not apart:
        with transaction(connect, "making the saver's tables") as conn, alone(schema):
            _make_at_once(conn, schema)
            return read_layout(conn, schema)
    if pooled:
        raise _cannot_update(schema)
    with _session_in(connect, schema) as conn, alone(schema):
        _drop_half_made(conn, schema)
        PostgresSaver(conn).setup()
        return read_layout(conn, schema)


@contextmanager
def alone(schema: str) -> Iterator[None]:
    """What setup() raises where another one is at work in the same schema is transient."""
    try:
        yield
    except (pg.UniqueViolation, pg.DuplicateObject, pg.DuplicateTable, pg.InternalError_):
        raise _not_alone(schema) from None


@contextmanager
def _session_in(connect: Connect, schema: str) -> Iterator[psycopg.Connection[Any]]:
    """A session of its own, with no pooler in between, for what no transaction can hold."""
    doing = "bringing the saver's tables up to date"

    def start(conn: psycopg.Connection[Any]) -> None:
        since_14 = SINCE_14 if conn.info.server_version >= 140000 else ""
        conn.execute(
            sql.SQL(SESSION).format(schema=sql.Identifier(schema), since_14=sql.SQL(since_14))
        )

    with (
        translated_errors(doing, IN_PART),
        closing(started(connect, doing, start)) as conn,
        interruptible(conn),
    ):
        # Two that make indexes side by side would wait for each other: nobody waits for the lock.
        if conn.execute(ALONE, (schema,)).fetchone() != (True,):
            raise _not_alone(schema)
        yield conn


def _drop_half_made(conn: psycopg.Connection[Any], schema: str) -> None:
    from langgraph.checkpoint.postgres import PostgresSaver

    made = re.findall(r"CONCURRENTLY IF NOT EXISTS (\w+)", "\n".join(PostgresSaver.MIGRATIONS))
    for (name,) in conn.execute(HALF_MADE, (made, schema)).fetchall():
        conn.execute(sql.SQL("DROP INDEX CONCURRENTLY {}").format(sql.Identifier(schema, name)))


def _make_at_once(conn: psycopg.Connection[Any], schema: str) -> None:
    """All or nothing, and behind a pooler too: on new tables an index needs no CONCURRENTLY."""
    from langgraph.checkpoint.postgres import PostgresSaver

    class AtOnce(PostgresSaver):
        MIGRATIONS = [m.replace(CONCURRENTLY, " ") for m in PostgresSaver.MIGRATIONS]  # noqa: RUF012 - as the saver has it

    conn.execute(sql.SQL("create schema if not exists {}").format(sql.Identifier(schema)))
    conn.execute(sql.SQL("set local search_path = {}").format(sql.Identifier(schema)))
    AtOnce(conn).setup()


def _not_alone(schema: str) -> TargetBusy:
    return TargetBusy(
        f"somebody else is making the saver's tables in schema {quoted(schema)} right now.",
        safe=NO_ROWS,
        next="nothing: the task is tried again, and finds them made.",
    )


def _cannot_update(schema: str) -> TargetNotReady:
    return TargetNotReady(
        "the connection goes through a pooler, and to bring older tables up to date setup() needs a"
        f" session of its own: without one it could alter others than those of schema {quoted(schema)}.",
        safe=NOTHING_MADE,
        next="name the server itself in the Airflow connection, or bring the tables up to date"
        " beforehand with PostgresSaver.setup().",
    )
