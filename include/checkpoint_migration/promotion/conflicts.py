"""Live rows that have a staged row's key and other content: found, and kept or replaced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import sql

from ..findings import Difference
from ..settings import Settings
from ..tables import KEYS, count_rows
from ..texts import quoted
from .relations import differing, same_row, staged_and_live
from .replacing import replace_rows

SHOWN = 100
Conn = psycopg.Connection[Any]

FIND = """\
SELECT s.thread_id, s.checkpoint_ns, s.{place}, coalesce(nullif({columns}, ''), {usual})
  FROM {differing} LIMIT {limit}"""
# Which columns differ. A parent that is NULL on live may have been pruned there, which is no conflict:
# it is named where nothing else differs.
COLUMN = "CASE WHEN l.{column}{as_text} IS DISTINCT FROM s.{column}{as_text} THEN {name} END"
CONTENT = {
    "checkpoint_blobs": ("type", "blob"),
    "checkpoints": ("checkpoint", "metadata"),
    "checkpoint_writes": ("task_path", "channel", "type", "blob"),
}
OF_CHECKPOINTS = """\
CASE WHEN l.type IS NOT NULL THEN 'type' END,
CASE WHEN l.parent_checkpoint_id <> s.parent_checkpoint_id OR s.parent_checkpoint_id IS NULL
          AND l.parent_checkpoint_id IS NOT NULL THEN 'parent_checkpoint_id' END"""
WHY = "the live row has the same key and other content"


def conflicts_of(conn: Conn, settings: Settings) -> Iterator[Difference]:
    """The first live rows that have a staged row's key and other content, blobs first."""
    left = SHOWN
    for name in KEYS:
        is_blob = name == "checkpoint_blobs"
        statement = sql.SQL(FIND).format(
            place=sql.Identifier("channel" if is_blob else "checkpoint_id"),
            columns=_differing_columns(name),
            usual=sql.Literal("parent_checkpoint_id" if name == "checkpoints" else ""),
            differing=differing(name, settings),
            limit=sql.Literal(left),
        )
        for thread_id, ns, place, columns in conn.execute(statement).fetchall():
            left -= 1
            if is_blob:
                yield Difference(
                    thread_id, ns, "", name, f"channel {quoted(place)}: {columns}", WHY
                )
            else:
                yield Difference(thread_id, ns, place, name, columns, WHY)


def _differing_columns(name: str) -> sql.Composed:
    """The names of the columns in which a live row and its staged row differ, as one text."""
    cases: list[sql.Composable] = [
        sql.SQL(COLUMN).format(
            column=sql.Identifier(column),
            as_text=sql.SQL("::text" if column == "checkpoint" else ""),
            name=sql.Literal(column),
        )
        for column in CONTENT[name]
    ]
    if name == "checkpoints":
        cases.append(sql.SQL(OF_CHECKPOINTS))
    return sql.SQL("concat_ws(', ', {})").format(sql.SQL(", ").join(cases))


def count_conflicts(conn: Conn, settings: Settings) -> int:
    """How many such rows there are in all."""
    return sum(count_rows(conn, differing(name, settings)) for name in KEYS)


def replace_live(conn: Conn, settings: Settings) -> int:
    """Give live rows the staged content, keeping the originals for an undo; returns how many.

    Blobs are never replaced: the application's own later checkpoints share them, and an incoming
    content that differs has a version of its own.
    """
    replaced = 0
    for name in ("checkpoints", "checkpoint_writes"):
        give_way = sql.SQL("{both} WHERE NOT {same}").format(
            both=staged_and_live(name, settings), same=same_row(name, settings)
        )
        cleared = [sql.SQL("type = NULL")] if name == "checkpoints" else []
        replaced += replace_rows(conn, name, settings, give_way, *cleared)
    return replaced
