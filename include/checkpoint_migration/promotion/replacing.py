"""Live rows that give way to the staged row of their key, the originals kept for an undo."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from ..every_table import COLUMNS, KEYS
from ..settings import Settings
from ..tables import table
from .kept_for_undo import note_replaced
from .relations import on_key, same_row, staged

REPLACE = "UPDATE {live} AS l SET {assignments} FROM {staged} WHERE {on} AND NOT {same}"


def replace_rows(
    conn: psycopg.Connection[Any],
    name: str,
    settings: Settings,
    give_way: sql.Composed,
    *more: sql.SQL,
) -> int:
    """Give the live rows of one table the staged content of their keys; returns how many.

    `give_way` is the relation of the rows that do, `more` what is set beside the columns that we write.
    """
    assignments = [
        sql.SQL("{0} = s.{0}").format(sql.Identifier(column))
        for column in COLUMNS[name]
        if column not in KEYS[name]
    ]
    statement = sql.SQL(REPLACE).format(
        live=table(settings.live_schema, name),
        assignments=sql.SQL(", ").join([*assignments, *more]),
        staged=staged(name, settings),
        on=on_key(name),
        same=same_row(name, settings),
    )
    note_replaced(conn, name, settings, give_way)
    return conn.execute(statement).rowcount
