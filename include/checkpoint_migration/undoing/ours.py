"""What is live of a run's rows, and which of its threads and items somebody changed or went on with since.

The rows that a run inserted are those that bear the id of its transaction in the system column `xmin`: a
row that anybody updated bears another, and counts as one that was written since. All is noted in temporary
tables of the undoing transaction, by key: nothing of a value leaves the server.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from ..row_digests import key_digest, key_number, row_digest
from ..tables import columns, table
from .kinds import THREADS, Kind, on

Conn = psycopg.Connection[Any]

# What the ledger kept comes first into tables that can be analyzed whoever owns the ledger: joins of
# so many rows are to hash.
NOTE_REPLACED = """
CREATE TEMPORARY TABLE undo_replaced ON COMMIT DROP AS
SELECT table_name, key AS key_digest, digest FROM checkpoint_migration.replaced WHERE run_key = {key};
ANALYZE undo_replaced;
"""
NOTE_UNITS = """
CREATE TEMPORARY TABLE {units} ON COMMIT DROP AS
SELECT {unit}, b.others, b.sum_of_keys, b.written FROM {before} AS b WHERE b.run_key = {key};
ANALYZE {units};
"""
# One row for each live row that the run inserted or replaced; `same`: it holds what the run wrote.
NOTE_OURS = """
CREATE TEMPORARY TABLE {ours} ON COMMIT DROP AS
SELECT {keys}, CASE WHEN n.key_digest IS NULL THEN true ELSE {row_digest} = n.digest END AS same,
       n.key_digest IS NOT NULL AS replaced, n.key_digest
  FROM {live} AS l
  LEFT JOIN undo_replaced AS n ON n.table_name = {name} AND n.key_digest = {key_digest}
 WHERE (l.xmin = {xmin}::xid OR n.key_digest IS NOT NULL) AND {of_units};
ANALYZE {ours};
"""
OF_UNITS = "({unit}) IN (SELECT {names} FROM {units} AS b)"

NOTE_LEFT = """
CREATE TEMPORARY TABLE {left} ON COMMIT DROP AS
WITH changed AS (
    {changed}
), others AS (
    {others}
), now AS (
    SELECT {names}, count(*) AS others, sum(number) AS sum_of_keys FROM others AS b GROUP BY {names}
), mine AS (
    SELECT {names}, count(*) AS rows FROM ({mine}) AS b GROUP BY {names}
)
SELECT {names}, b.written > 0 AND coalesce(n.others, 0) > b.others AS rewritten
  FROM {units} AS b
  LEFT JOIN now AS n ON {now_on}
  LEFT JOIN mine AS m ON {mine_on}
  LEFT JOIN changed AS c ON {changed_on}
 WHERE c.changed
    OR coalesce(m.rows, 0) > b.written  -- a restore may give the id to rows of others
    OR (coalesce(n.others, 0), coalesce(n.sum_of_keys, 0)) <> (b.others, b.sum_of_keys);
ANALYZE {left};
"""
MINE = "SELECT {unit} FROM {ours} AS o"
CHANGED = "SELECT {unit}, true AS changed FROM {ours} AS o WHERE NOT same"
OTHERS = """\
SELECT {unit}, {number} AS number
  FROM {live} AS l
  LEFT JOIN {ours} AS o ON {on} AND NOT o.replaced
 WHERE o.replaced IS NULL AND {of_units}"""

# Of threads that do not stay, what the checkpoints that stay refer to.
NOTE_NEEDED = """
CREATE TEMPORARY TABLE undo_needed ON COMMIT DROP AS
SELECT DISTINCT l.thread_id, l.checkpoint_ns, v.key AS channel, v.value AS version
  FROM {live} AS l
  JOIN {threads} USING (thread_id)
  LEFT JOIN {ours} AS o ON {on} AND NOT o.replaced
  LEFT JOIN {left} AS t ON t.thread_id = l.thread_id
 CROSS JOIN LATERAL jsonb_each_text(
       CASE jsonb_typeof(l.checkpoint -> 'channel_versions')
            WHEN 'object' THEN l.checkpoint -> 'channel_versions' ELSE '{{}}' END) AS v
 WHERE o.replaced IS NULL AND t.thread_id IS NULL;
ANALYZE undo_needed;
"""


def ours(name: str) -> sql.Identifier:
    """The temporary table of a live table's rows that are the run's."""
    return sql.Identifier(f"undo_{name}")


def note_kind(conn: Conn, kind: Kind, schema: str, run_key: str, xid: int) -> None:
    """Note which live rows are the run's, and which threads or items stay whole because a row of them
    was changed, or other rows came or went.
    """
    conn.execute(
        sql.SQL(NOTE_UNITS).format(
            units=kind.units,
            unit=kind.in_unit("b"),
            before=table("checkpoint_migration", kind.before),
            key=sql.Literal(run_key),
        )
    )
    for name in kind.keys:
        _note_ours(conn, kind, name, schema, xid)
    _note_left(conn, kind, schema)


def note_replaced(conn: Conn, run_key: str) -> None:
    """Note which rows the ledger kept the originals of."""
    conn.execute(sql.SQL(NOTE_REPLACED).format(key=sql.Literal(run_key)))


def _note_ours(conn: Conn, kind: Kind, name: str, schema: str, xid: int) -> None:
    conn.execute(
        sql.SQL(NOTE_OURS).format(
            ours=ours(name),
            keys=columns(kind.keys[name], "l"),
            row_digest=row_digest(name, "l"),
            live=table(schema, name),
            name=sql.Literal(name),
            key_digest=key_digest(name, "l"),
            xmin=sql.Literal(str(xid & 0xFFFFFFFF)),  # a row bears no epoch
            of_units=_of_units(kind),
        )
    )


def _of_units(kind: Kind) -> sql.Composed:
    return sql.SQL(OF_UNITS).format(
        unit=kind.in_unit("l"), names=kind.in_unit("b"), units=kind.units
    )


def _note_left(conn: Conn, kind: Kind, schema: str) -> None:
    others = [
        sql.SQL(OTHERS).format(
            unit=kind.in_unit("l"),
            number=key_number(name, "l"),
            live=table(schema, name),
            ours=ours(name),
            on=on(key, "l", "o"),
            of_units=_of_units(kind),
        )
        for name, key in kind.keys.items()
    ]
    mine = [sql.SQL(MINE).format(unit=kind.in_unit("o"), ours=ours(name)) for name in kind.keys]
    changed = [
        sql.SQL(CHANGED).format(unit=kind.in_unit("o"), ours=ours(name)) for name in kind.keys
    ]
    conn.execute(
        sql.SQL(NOTE_LEFT).format(
            left=kind.left,
            mine=sql.SQL(" UNION ALL ").join(mine),
            changed=sql.SQL(" UNION ").join(changed),
            others=sql.SQL(" UNION ALL ").join(others),
            names=kind.in_unit("b"),
            units=kind.units,
            now_on=kind.same_unit("n", "b"),
            mine_on=kind.same_unit("m", "b"),
            changed_on=kind.same_unit("c", "b"),
        )
    )


def note_needed(conn: Conn, schema: str) -> None:
    """Note which blobs the checkpoints that stay refer to, once those of the run went or were restored:
    a replaced one names the run's blobs, and its original others.
    """
    conn.execute(
        sql.SQL(NOTE_NEEDED).format(
            live=table(schema, "checkpoints"),
            threads=THREADS.units,
            ours=ours("checkpoints"),
            on=on(THREADS.keys["checkpoints"], "l", "o"),
            left=THREADS.left,
        )
    )


def may_go(kind: Kind, name: str) -> sql.Composed:
    """Whether one of the run's rows (`o`) may go: nobody changed it, its thread or item does not stay,
    and no checkpoint that stays refers to it.
    """
    goes = sql.SQL("o.same AND NOT EXISTS (SELECT FROM {left} AS t WHERE {on})").format(
        left=kind.left, on=kind.same_unit("t", "o")
    )
    if name != "checkpoint_blobs":
        return goes
    return sql.SQL("{goes} AND NOT EXISTS (SELECT FROM undo_needed AS n WHERE {on})").format(
        goes=goes, on=on(kind.keys[name], "n", "o")
    )
