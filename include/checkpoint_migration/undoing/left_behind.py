"""What an undo left live: the threads, the items of the store and the blobs, the first of each with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import psycopg
from psycopg import sql

from ..findings import LeftBlob, LeftItem, LeftThread
from .kinds import ITEMS, THREADS, Kind, on
from .ours import ours

Conn = psycopg.Connection[Any]
SHOWN = 100

# A thread that the run wrote nothing of is none of its matter, whoever went on with it.
LEFT = """
SELECT {unit}, {counts}, count(*) OVER ()
  FROM {left} AS t
  LEFT JOIN ({rows}) AS o ON {on}
 WHERE t.rewritten OR o.name IS NOT NULL
 GROUP BY {unit}
 ORDER BY {order}
 LIMIT {limit}
"""
ROWS = "SELECT {unit}, {name} AS name FROM {ours} AS o"
COUNT = "count(*) FILTER (WHERE o.name = {name})"
BLOBS = """
SELECT o.thread_id, o.checkpoint_ns, o.channel, count(*) OVER ()
  FROM {ours} AS o
  JOIN undo_needed AS n ON {on}
 WHERE NOT o.replaced
 ORDER BY 1, 2, 3 LIMIT {limit}
"""
OF_THREAD = "rows were changed, written or removed since, by the application or a later run"
OF_ITEM = (
    "the item or a vector of it was written or removed since, by the application or a later run; a read "
    "that renews an item's expiry writes it"
)
Left = TypeVar("Left")


class LeftBehind(NamedTuple, Generic[Left]):
    """How many there are, and the first of them."""

    total: int
    first: tuple[Left, ...]


def left_threads(conn: Conn, kinds: Sequence[Kind]) -> LeftBehind[LeftThread]:
    """The threads that stayed whole, with the run's rows in them by table."""
    total, found = _left_of(conn, kinds, THREADS.name)
    return LeftBehind(
        total, tuple(LeftThread(thread, OF_THREAD, rows) for (thread,), rows in found)
    )


def left_items(conn: Conn, kinds: Sequence[Kind]) -> LeftBehind[LeftItem]:
    """The items of the store that stayed, with the run's rows of them by table."""
    total, found = _left_of(conn, kinds, ITEMS.name)
    return LeftBehind(
        total, tuple(LeftItem(prefix, key, OF_ITEM, rows) for (prefix, key), rows in found)
    )


def left_blobs(conn: Conn) -> LeftBehind[LeftBlob]:
    """The blobs that stayed because a checkpoint that stays refers to them."""
    name = "checkpoint_blobs"
    rows = conn.execute(
        sql.SQL(BLOBS).format(
            ours=ours(name),
            on=on(THREADS.keys[name], "n", "o"),
            limit=sql.Literal(SHOWN),
        )
    ).fetchall()
    return LeftBehind(rows[0][3] if rows else 0, tuple(LeftBlob(*row[:3]) for row in rows))


def _left_of(
    conn: Conn, kinds: Sequence[Kind], name: str
) -> tuple[int, list[tuple[tuple[str, ...], dict[str, int]]]]:
    """What stayed of a kind and holds rows of the run, or rows that were written in their place."""
    kind = next((kind for kind in kinds if kind.name == name), None)
    if kind is None:
        return 0, []
    tables = list(kind.keys)
    rows = [
        sql.SQL(ROWS).format(unit=kind.in_unit("o"), name=sql.Literal(t), ours=ours(t))
        for t in tables
    ]
    order = [sql.SQL('{} COLLATE "C"').format(sql.Identifier("t", column)) for column in kind.unit]
    comma = sql.SQL(", ")
    found = conn.execute(
        sql.SQL(LEFT).format(
            unit=kind.in_unit("t"),
            counts=comma.join(sql.SQL(COUNT).format(name=sql.Literal(t)) for t in tables),
            left=kind.left,
            rows=sql.SQL(" UNION ALL ").join(rows),
            on=kind.same_unit("o", "t"),
            order=comma.join(order),
            limit=sql.Literal(SHOWN),
        )
    ).fetchall()
    width = len(kind.unit)
    listed = [(row[:width], dict(zip(tables, row[width:-1], strict=True))) for row in found]
    return found[0][-1] if found else 0, listed
