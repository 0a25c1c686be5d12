"""What is live of a run's rows, and which of its threads somebody changed or went on with since.

The rows that a run inserted are those that bear the id of its transaction in the system column `xmin`: a
row that anybody updated bears another, and counts as one that was written since. All is noted in temporary
tables of the undoing transaction, by key: nothing of a value leaves the server.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from ..row_digests import key_digest, key_number, row_digest
from ..tables import KEYS, columns, table

Conn = psycopg.Connection[Any]

BY_THREAD = tuple(name for name in KEYS if "thread_id" in KEYS[name])

# What the ledger kept comes first into tables that can be analyzed whoever owns the ledger: joins of
# so many rows are to hash.
NOTE_KEPT = """
CREATE TEMPORARY TABLE undo_kept ON COMMIT DROP AS
SELECT table_name, key, digest FROM checkpoint_migration.replaced WHERE run_key = {key};
CREATE TEMPORARY TABLE undo_threads ON COMMIT DROP AS
SELECT thread_id, others, sum_of_keys, written FROM checkpoint_migration.threads_before
 WHERE run_key = {key};
ANALYZE undo_kept;
ANALYZE undo_threads;
"""
# One row for each live row that the run inserted or replaced; `same`: it holds what the run wrote.
NOTE_OURS = """
CREATE TEMPORARY TABLE {ours} ON COMMIT DROP AS
SELECT {keys}, CASE WHEN n.key IS NULL THEN true ELSE {row_digest} = n.digest END AS same,
       n.key IS NOT NULL AS replaced, n.key
  FROM {live} AS l
  LEFT JOIN undo_kept AS n ON n.table_name = {name} AND n.key = {key_digest}
 WHERE (l.xmin = {xmin}::xid OR n.key IS NOT NULL) AND {where};
ANALYZE {ours};
"""
OF_THREADS = "l.thread_id IN (SELECT thread_id FROM undo_threads)"

NOTE_LEFT = """
CREATE TEMPORARY TABLE undo_left ON COMMIT DROP AS
WITH changed AS (
    {changed}
), others AS (
    {others}
), now AS (
    SELECT thread_id, count(*) AS others, sum(number) AS sum_of_keys FROM others GROUP BY thread_id
), mine AS (
    SELECT thread_id, count(*) AS rows FROM ({mine}) AS o GROUP BY thread_id
)
SELECT b.thread_id, b.written > 0 AND coalesce(n.others, 0) > b.others AS rewritten
  FROM undo_threads AS b
  LEFT JOIN now AS n USING (thread_id)
  LEFT JOIN mine AS m USING (thread_id)
  LEFT JOIN changed AS c USING (thread_id)
 WHERE c.thread_id IS NOT NULL
    OR coalesce(m.rows, 0) > b.written  -- a restore may give the id to rows of others
    OR (coalesce(n.others, 0), coalesce(n.sum_of_keys, 0)) <> (b.others, b.sum_of_keys);
ANALYZE undo_left;
"""
MINE = "SELECT thread_id FROM {ours}"
CHANGED = "SELECT thread_id FROM {ours} WHERE NOT same"
OTHERS = """\
SELECT l.thread_id, {number} AS number
  FROM {live} AS l
  LEFT JOIN {ours} AS o ON {on} AND NOT o.replaced
 WHERE o.replaced IS NULL AND {of_threads}"""

# Of threads that do not stay, what the checkpoints that stay refer to.
NOTE_NEEDED = """
CREATE TEMPORARY TABLE undo_needed ON COMMIT DROP AS
SELECT DISTINCT l.thread_id, l.checkpoint_ns, v.key AS channel, v.value AS version
  FROM {live} AS l
  JOIN undo_threads USING (thread_id)
  LEFT JOIN {ours} AS o ON {on} AND NOT o.replaced
  LEFT JOIN undo_left AS t ON t.thread_id = l.thread_id
 CROSS JOIN LATERAL jsonb_each_text(
       CASE jsonb_typeof(l.checkpoint -> 'channel_versions')
            WHEN 'object' THEN l.checkpoint -> 'channel_versions' ELSE '{{}}' END) AS v
 WHERE o.replaced IS NULL AND t.thread_id IS NULL;
ANALYZE undo_needed;
"""


def ours(name: str) -> sql.Identifier:
    """The temporary table of a live table's rows that are the run's."""
    return sql.Identifier(f"undo_{name}")


def on_key(name: str, left: str = "l", right: str = "o") -> sql.Composed:
    """The join condition of two rows of a table."""
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(left, column), sql.Identifier(right, column))
        for column in KEYS[name]
    )


def note_kept(conn: Conn, run_key: str) -> None:
    """Note what the ledger kept of the run."""
    conn.execute(sql.SQL(NOTE_KEPT).format(key=sql.Literal(run_key)))


def note_ours(conn: Conn, name: str, schema: str, xid: int) -> None:
    """Note which live rows of a table are the run's, and whether they are as it left them."""
    conn.execute(
        sql.SQL(NOTE_OURS).format(
            ours=ours(name),
            keys=columns(KEYS[name], "l"),
            row_digest=row_digest(name, "l"),
            live=table(schema, name),
            name=sql.Literal(name),
            key_digest=key_digest(name, "l"),
            xmin=sql.Literal(str(xid & 0xFFFFFFFF)),  # a row bears no epoch
            where=sql.SQL(OF_THREADS if name in BY_THREAD else "true"),
        )
    )


def note_left_threads(conn: Conn, schema: str) -> None:
    """Note the threads that stay whole: a replaced row was changed, or other rows came or went.

    Of the others, note which blobs the checkpoints that stay refer to.
    """
    others = [
        sql.SQL(OTHERS).format(
            number=key_number(name, "l"),
            live=table(schema, name),
            ours=ours(name),
            on=on_key(name),
            of_threads=sql.SQL(OF_THREADS),
        )
        for name in BY_THREAD
    ]
    mine = [sql.SQL(MINE).format(ours=ours(name)) for name in BY_THREAD]
    changed = [sql.SQL(CHANGED).format(ours=ours(name)) for name in BY_THREAD]
    conn.execute(
        sql.SQL(NOTE_LEFT).format(
            mine=sql.SQL(" UNION ALL ").join(mine),
            changed=sql.SQL(" UNION ").join(changed),
            others=sql.SQL(" UNION ALL ").join(others),
        )
    )
    conn.execute(
        sql.SQL(NOTE_NEEDED).format(
            live=table(schema, "checkpoints"),
            ours=ours("checkpoints"),
            on=on_key("checkpoints"),
        )
    )


def may_go(name: str) -> sql.Composed:
    """Whether one of the run's rows (`o`) may go: nobody changed it, its thread does not stay, and no
    checkpoint that stays refers to it.
    """
    if name not in BY_THREAD:
        return sql.SQL("o.same").format()
    stays = sql.SQL(
        "o.same AND NOT EXISTS (SELECT FROM undo_left AS t WHERE t.thread_id = o.thread_id)"
    )
    if name != "checkpoint_blobs":
        return stays.format()
    return sql.SQL("{stays} AND NOT EXISTS (SELECT FROM undo_needed AS n WHERE {on})").format(
        stays=stays, on=on_key(name, "n", "o")
    )
