"""The look at live after promote: every staged row is looked for there once more, in content."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from ..findings import Difference, LiveCheck
from ..postgres import Connect, transaction
from ..settings import Settings
from ..tables import KEYS, as_counts, count, count_rows, table
from .relations import identical, on_key, same_row, wanted
from .store_check import check_live_store

SHOWN = 100

NOT_LIVE = """
SELECT s.thread_id, s.checkpoint_ns, {checkpoint_id}, {column},
       EXISTS (SELECT FROM {live} AS l WHERE {on})
  FROM {wanted} AND NOT EXISTS (SELECT FROM {live} AS l WHERE {on} AND {same})
 LIMIT {limit}
"""


def check_live(connect: Connect, settings: Settings) -> LiveCheck:
    """Compare every row of staging that should be live with the live row of its key, in content."""
    with transaction(connect, "comparing live with staging", repeatable_read=True) as conn:
        conn.execute("SET TRANSACTION READ ONLY")
        should = {name: count_rows(conn, wanted(name, settings)) for name in KEYS}
        live = {name: count_rows(conn, identical(name, settings)) for name in KEYS}
        differences: list[Difference] = []
        found = 0
        for name in KEYS:
            if live[name] != should[name]:
                found += should[name] - live[name]
                differences += _differences(conn, name, settings)
        store = check_live_store(conn, settings)
        return LiveCheck(
            count(conn, settings.staging_schema) + store.staged,
            as_counts(should) + store.wanted,
            as_counts(live) + store.live,
            (*differences, *store.differences)[:SHOWN],
            found + store.found,
            store.swept,
        )


def _differences(conn: psycopg.Connection[Any], name: str, settings: Settings) -> list[Difference]:
    is_blob = name == "checkpoint_blobs"
    statement = sql.SQL(NOT_LIVE).format(
        checkpoint_id=sql.SQL("''" if is_blob else "s.checkpoint_id"),
        column=sql.SQL("s.channel" if is_blob else "''"),
        live=table(settings.live_schema, name),
        on=on_key(name),
        wanted=wanted(name, settings),
        same=same_row(name, settings),
        limit=sql.Literal(SHOWN),
    )
    return [
        Difference(
            thread_id,
            ns,
            checkpoint_id,
            name,
            column,
            "the live row has other content" if there else "the row is not live",
        )
        for thread_id, ns, checkpoint_id, column, there in conn.execute(statement).fetchall()
    ]
