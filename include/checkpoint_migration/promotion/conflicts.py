"""Live rows that have a staged row's key and other content: found, and refused, kept or replaced."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from ..errors import TargetConflict
from ..findings import Difference
from ..settings import Settings
from ..tables import COLUMNS, KEYS, count_rows, table
from ..texts import quoted
from .left_out import note_kept
from .relations import differing, on_key, same_row, staged

SHOWN = 100
Conn = psycopg.Connection[Any]

FIND = "SELECT s.thread_id, s.checkpoint_ns, s.{place} FROM {differing} LIMIT {limit}"
REPLACE = "UPDATE {live} AS l SET {assignments} FROM {staged} WHERE {on} AND NOT {same}"


def find_conflicts(conn: Conn, settings: Settings) -> list[Difference]:
    """The first live rows that have a staged row's key and other content, blobs first."""
    first: list[Difference] = []
    for name in KEYS:
        is_blob = name == "checkpoint_blobs"
        statement = sql.SQL(FIND).format(
            place=sql.Identifier("channel" if is_blob else "checkpoint_id"),
            differing=differing(name, settings),
            limit=sql.Literal(SHOWN - len(first)),
        )
        for thread_id, ns, place in conn.execute(statement):
            first.append(
                Difference(
                    thread_id,
                    ns,
                    "" if is_blob else place,
                    name,
                    f"channel {quoted(place)}" if is_blob else "",
                    "the live row has the same key and other content",
                )
            )
    return first


def settle_conflicts(
    conn: Conn, settings: Settings, conflicts: list[Difference]
) -> tuple[int, int]:
    """Do with conflicts what `on_conflict` asks; returns how many live rows are kept and replaced.

    Raises `TargetConflict` under `fail`. Blobs are never replaced, and a different one is an error
    under every choice: the application's own later checkpoints share them.
    """
    if not conflicts:
        return 0, 0
    if settings.on_conflict == "fail" or conflicts[0].table == "checkpoint_blobs":
        raise _refused(conn, settings, conflicts)
    if settings.on_conflict == "replace":
        return 0, _replace(conn, settings)
    return note_kept(conn, settings), 0


def _refused(conn: Conn, settings: Settings, conflicts: list[Difference]) -> TargetConflict:
    total = sum(count_rows(conn, differing(name, settings)) for name in KEYS)
    return TargetConflict(
        f"{total:,} live rows have the same keys as rows of this run and other content, the first in "
        f"thread {quoted(conflicts[0].thread_id)} ({conflicts[0].table}).",
        next="look at the rows that the report lists as conflicts. Blobs were written since the export: "
        "trigger the DAG again, and the incoming contents get versions of their own."
        if conflicts[0].table == "checkpoint_blobs"
        else "look at the rows that the report lists as conflicts; then run again with on_conflict keep "
        "or replace, or take those rows out of the live tables.",
        conflicts=conflicts,
    )


def _replace(conn: Conn, settings: Settings) -> int:
    """Give live rows the staged content."""
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
