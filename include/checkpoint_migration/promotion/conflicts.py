"""Live rows that have a staged row's key and other content: found, and kept or replaced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import sql

from ..findings import Difference
from ..settings import Settings
from ..tables import COLUMNS, KEYS, count_rows, table
from ..texts import quoted
from .relations import differing, on_key, same_row, staged

SHOWN = 100
Conn = psycopg.Connection[Any]

FIND = "SELECT s.thread_id, s.checkpoint_ns, s.{place} FROM {differing} LIMIT {limit}"
REPLACE = "UPDATE {live} AS l SET {assignments} FROM {staged} WHERE {on} AND NOT {same}"
WHY = "the live row has the same key and other content"


def conflicts_of(conn: Conn, settings: Settings) -> Iterator[Difference]:
    """The first live rows that have a staged row's key and other content, blobs first."""
    left = SHOWN
    for name in KEYS:
        is_blob = name == "checkpoint_blobs"
        statement = sql.SQL(FIND).format(
            place=sql.Identifier("channel" if is_blob else "checkpoint_id"),
            differing=differing(name, settings),
            limit=sql.Literal(left),
        )
        for thread_id, ns, place in conn.execute(statement).fetchall():
            left -= 1
            if is_blob:
                yield Difference(thread_id, ns, "", name, f"channel {quoted(place)}", WHY)
            else:
                yield Difference(thread_id, ns, place, name, "", WHY)


def count_conflicts(conn: Conn, settings: Settings) -> int:
    """How many such rows there are in all."""
    return sum(count_rows(conn, differing(name, settings)) for name in KEYS)


def replace_live(conn: Conn, settings: Settings) -> int:
    """Give live rows the staged content; returns how many.

    Blobs are never replaced: the application's own later checkpoints share them, and an incoming
    content that differs has a version of its own.
    """
    replaced = 0
    for name in ("checkpoints", "checkpoint_writes"):
        columns = [column for column in COLUMNS[name] if column not in KEYS[name]]
        assignments = [sql.SQL("{0} = s.{0}").format(sql.Identifier(c)) for c in columns]
        if name == "checkpoints":
            assignments.append(sql.SQL("type = NULL").format())
        statement = sql.SQL(REPLACE).format(
            live=table(settings.live_schema, name),
            assignments=sql.SQL(", ").join(assignments),
            staged=staged(name, settings),
            on=on_key(name),
            same=same_row(name, settings),
        )
        replaced += conn.execute(statement).rowcount
    return replaced
