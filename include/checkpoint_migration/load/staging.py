"""Staging: this run's own schema, where batches are copied before anything is live."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from .. import store_tables
from ..errors import StagingLost
from ..every_table import key_order
from ..postgres import Connect, transaction
from ..run import ledger
from ..settings import Settings
from ..tables import COLUMNS, DECLARED, KEYS, are_there, table

MAKE_TABLE = (
    "CREATE UNLOGGED TABLE {staged} (LIKE {live} INCLUDING DEFAULTS INCLUDING IDENTITY{more})"
)
SINCE_12 = " INCLUDING GENERATED"
MAKE_KEY = "CREATE UNIQUE INDEX ON {staged} ({key})"
COMPRESS = "ALTER TABLE {staged} ALTER COLUMN {column} SET COMPRESSION lz4"
MAKE_SENTINEL = "CREATE UNLOGGED TABLE {sentinel} AS SELECT 1 AS whole"
HAS_LZ4 = """
SELECT 'lz4' = ANY(enumvals) FROM pg_settings WHERE name = 'default_toast_compression'
"""
LARGE = ("jsonb", "bytea")  # types of what is worth compressing


def prepare(connect: Connect, settings: Settings) -> None:
    """Make this run's staging where it is not there or was lost; receipts of a lost one are void.

    Unlogged tables are emptied when the server crashes, and receipts are not: the sentinel row, in
    an unlogged table too, is missing then. What promote noted in staging is logged, and stays.
    """
    schema = settings.staging_schema
    with transaction(connect, "making staging") as conn:
        ledger.hold(conn, settings.key)
        if holds_sentinel(conn, schema):
            return
        ledger.void_receipts(conn, settings.key)
        conn.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
        lost = [table(schema, name) for name in ("sentinel", *KEYS, *store_tables.KEYS)]
        conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.SQL(", ").join(lost)))
        lz4 = conn.execute(HAS_LZ4).fetchone() == (True,)
        # a rehearsal's is made after the real tables, so that it has what a team added to them
        real = are_there(conn, settings.target_schema)
        like = settings.target_schema if real else settings.live_schema
        for name in KEYS:
            _make_table(conn, settings, name, like, lz4=lz4)
        conn.execute(sql.SQL(MAKE_SENTINEL).format(sentinel=table(schema, "sentinel")))


def prepare_store(connect: Connect, settings: Settings, *, vectors: bool) -> None:
    """Make the store's tables in staging where they are not there; they hang on the sentinel as all do.

    Raises `StagingLost` where the sentinel is gone.
    """
    schema = settings.staging_schema
    wanted = (store_tables.STORE, store_tables.VECTORS) if vectors else (store_tables.STORE,)
    with transaction(connect, "making staging of the store") as conn:
        refuse_lost(conn, schema)
        if set(wanted) <= set(store_tables.staged_tables(conn, schema)):
            return
        ledger.hold(conn, settings.key)
        there = store_tables.staged_tables(
            conn, schema
        )  # another load may have made them meanwhile
        for name in wanted:
            if name not in there:
                _make_store_table(conn, settings, name)


def _make_store_table(conn: psycopg.Connection[Any], settings: Settings, name: str) -> None:
    # a rehearsal's is made after the real table, so that it has what a team added to it
    real = store_tables.is_there(conn, settings.target_schema, name)
    like = settings.target_schema if real else settings.live_schema
    _make_like(conn, table(settings.staging_schema, name), name, like)


def _make_table(
    conn: psycopg.Connection[Any], settings: Settings, name: str, like: str, *, lz4: bool
) -> None:
    staged = table(settings.staging_schema, name)
    _make_like(conn, staged, name, like)
    for column in COLUMNS[name]:
        if lz4 and DECLARED[name][column].startswith(LARGE):
            conn.execute(sql.SQL(COMPRESS).format(staged=staged, column=sql.Identifier(column)))


def _make_like(conn: psycopg.Connection[Any], staged: sql.Identifier, name: str, like: str) -> None:
    more = sql.SQL(SINCE_12 if conn.info.server_version >= 120000 else "")
    conn.execute(sql.SQL(MAKE_TABLE).format(staged=staged, live=table(like, name), more=more))
    conn.execute(sql.SQL(MAKE_KEY).format(staged=staged, key=key_order(name)))


def holds_sentinel(conn: psycopg.Connection[Any], schema: str) -> bool:
    """Whether staging is there and was not emptied by a crash."""
    name = table(schema, "sentinel")
    if conn.execute("SELECT to_regclass(%s)", (name.as_string(None),)).fetchone() == (None,):
        return False
    found = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(name)).fetchone()
    return found == (1,)


def refuse_lost(conn: psycopg.Connection[Any], schema: str) -> None:
    """Raise `StagingLost` unless staging is there and whole."""
    if not holds_sentinel(conn, schema):
        raise StagingLost(
            "staging is not there any more: the server lost it in a crash, or it was dropped.",
            next="clear plan_batches: it makes staging anew, and the batches are loaded again.",
        )
