"""How staged rows go live within the promoting transaction, and the proof that all of them did."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg import sql

from ..errors import TargetBusy, TargetError
from ..every_table import COLUMNS, KEYS, key_order
from ..postgres import Connect, transaction
from ..settings import Settings
from ..tables import columns, count_rows, table
from .relations import differing, identical, wanted

Conn = psycopg.Connection[Any]

INSERT = """
INSERT INTO {live} AS l ({columns})
SELECT {staged_columns} FROM {wanted} ORDER BY {order}
"""
# To look for each key first costs a third of the insert: only where one may be live. The key alone is
# looked for, so that a unique index of a team's own is heard.
BESIDE = "ON CONFLICT ({key}) DO NOTHING"

# A table that nothing of the database's own changes on the way in or hides on the way out.
IS_PLAIN = """
SELECT relkind = 'r' AND NOT (relhastriggers OR relhasrules OR relrowsecurity OR relhassubclass)
  FROM pg_catalog.pg_class WHERE oid = %s::regclass
"""


class KeyTaken(Exception):
    """A key that was free is not: somebody wrote it meanwhile, or a unique index of a team's own."""


@contextmanager
def taken_where(is_free: bool) -> Iterator[None]:
    """A key that is there already means, where none was to be, `KeyTaken`."""
    try:
        yield
    except pg.UniqueViolation:
        if is_free:
            raise KeyTaken from None
        raise


def insert(conn: Conn, name: str, settings: Settings, *, is_free: bool) -> int:
    """Insert what is to be live and is not; returns how many rows. `is_free`: no key of it is live.

    Raises `KeyTaken` where that does not hold; the transaction is then at its end.
    """
    statement = sql.SQL(INSERT).format(
        live=table(settings.live_schema, name),
        columns=columns(COLUMNS[name]),
        staged_columns=columns(COLUMNS[name], "s"),
        wanted=wanted(name, settings),
        order=key_order(name, "s"),
    )
    if not is_free:
        statement += sql.SQL(BESIDE).format(key=columns(KEYS[name]))
    with taken_where(is_free):
        return conn.execute(statement).rowcount


def plain_tables(connect: Connect, names: Iterable[str], settings: Settings) -> frozenset[str]:
    """Which of the live tables are plain: asked over a connection of its own once rows were inserted.

    What is inserted into bears no new trigger until the transaction ends, and a snapshot from before
    the insert would not show one that came right before it. Where no second connection is to be had, none
    is known to be plain, and nothing that was inserted is thrown away for that.
    """
    try:
        # A pooler lets each try wait, and the promoting transaction idles meanwhile.
        with transaction(connect, "looking at the live tables", read_only=True, tries=1) as conn:
            return frozenset(name for name in names if _is_plain(conn, name, settings))
    except TargetError as error:
        if not error.transient:
            raise
        return frozenset()


def prove(conn: Conn, name: str, settings: Settings, expected: int, *, plain: bool) -> None:
    """Inserted and found identical are all that was to be live, and they read equal now.

    Of a plain table the server's own count of what it inserted says so; elsewhere the rows are compared.
    """
    should = count_rows(conn, wanted(name, settings))
    kept = count_rows(conn, differing(name, settings)) if settings.on_conflict == "keep" else 0
    live = expected if plain else count_rows(conn, identical(name, settings))
    if live + kept != should or expected + kept != should:
        raise TargetBusy(
            f"after inserting, {live:,} of {should:,} rows of {name} are live and equal: something "
            "else changes these tables.",
            next="nothing at first: the transaction is tried again. If it repeats, look for triggers "
            "or rules on the live tables.",
        )


def _is_plain(conn: Conn, name: str, settings: Settings) -> bool:
    row = conn.execute(IS_PLAIN, (table(settings.live_schema, name).as_string(None),)).fetchone()
    return row is not None and bool(row[0])
