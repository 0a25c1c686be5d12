"""What promote leaves in the ledger so that the run can be undone: nothing where nobody may.

PostgreSQL itself knows which rows a transaction wrote (`xmin`): the transaction's id is all that is noted
of the inserted ones. The inserts must stay out of savepoints, which have ids of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql

from ..row_digests import as_bytes, content, key_digest, key_number, row_digest
from ..settings import Settings
from ..tables import KEYS, table

Conn = psycopg.Connection[Any]

BY_THREAD = tuple(name for name in KEYS if "thread_id" in KEYS[name])

NOTE_THREADS = """
WITH threads AS MATERIALIZED ({threads}), others AS ({others})
INSERT INTO checkpoint_migration.threads_before (run_key, thread_id, others, sum_of_keys)
SELECT {key}, t.thread_id, count(o.number), coalesce(sum(o.number), 0)
  FROM threads AS t
  LEFT JOIN others AS o USING (thread_id)
 GROUP BY t.thread_id
"""
THREADS = "SELECT thread_id FROM {staged}"
OTHERS = """\
SELECT l.thread_id, {number} AS number FROM {live} AS l
 WHERE l.thread_id IN (SELECT thread_id FROM threads)"""
NOTE_WRITTEN = """
WITH written AS ({written})
UPDATE checkpoint_migration.threads_before AS b SET written = w.rows
  FROM (SELECT thread_id, count(*) AS rows FROM written GROUP BY thread_id) AS w
 WHERE b.run_key = {key} AND b.thread_id = w.thread_id
"""
WRITTEN = """\
SELECT l.thread_id FROM {live} AS l
 WHERE l.xmin = (txid_current() & 4294967295)::text::xid
   AND l.thread_id IN (SELECT thread_id FROM checkpoint_migration.threads_before WHERE run_key = {key})"""
NOTE_REPLACED = """
INSERT INTO checkpoint_migration.replaced (run_key, table_name, key, digest, columns, original)
SELECT {key}, {name}, {key_digest}, {row_digest}, {columns}, ARRAY[{original}]::bytea[]
  FROM {differing}
"""
# Of each item that this transaction wrote rows of: how many, and the others that were live before. What
# was replaced is looked for in a set of its own, so that no plan takes it row by row.
NOTE_ITEMS = """
WITH ours AS MATERIALIZED ({ours}), others AS ({others})
INSERT INTO checkpoint_migration.items_before (run_key, prefix, key, others, sum_of_keys, written)
SELECT {key}, prefix, key, count(*) FILTER (WHERE NOT inserted),
       coalesce(sum(number) FILTER (WHERE NOT inserted), 0), count(*) FILTER (WHERE written)
  FROM (SELECT * FROM ours UNION ALL SELECT * FROM others) AS l
 GROUP BY prefix, key
"""
OURS_OF_ITEMS = """\
SELECT l.prefix, l.key, {number} AS number,
       {key_digest} NOT IN (SELECT r.key FROM checkpoint_migration.replaced AS r
                             WHERE r.run_key = {key} AND r.table_name = {name}) AS inserted,
       true AS written
  FROM {live} AS l WHERE l.xmin = (txid_current() & 4294967295)::text::xid"""
OTHERS_OF_ITEMS = """\
SELECT l.prefix, l.key, {number}, false, false
  FROM {live} AS l
 WHERE l.xmin <> (txid_current() & 4294967295)::text::xid
   AND (l.prefix, l.key) IN (SELECT prefix, key FROM ours)"""


def note_threads(conn: Conn, settings: Settings) -> None:
    """Note this transaction, and what the run's threads hold on live before it: to tell who went on."""
    if not settings.undo_days:
        return
    threads = [
        sql.SQL(THREADS).format(staged=table(settings.staging_schema, name)) for name in BY_THREAD
    ]
    others = [
        sql.SQL(OTHERS).format(number=key_number(name, "l"), live=table(settings.live_schema, name))
        for name in BY_THREAD
    ]
    conn.execute("INSERT INTO checkpoint_migration.undoable (run_key) VALUES (%s)", (settings.key,))
    conn.execute(
        sql.SQL(NOTE_THREADS).format(
            threads=sql.SQL(" UNION ").join(threads),
            others=sql.SQL(" UNION ALL ").join(others),
            key=sql.Literal(settings.key),
        )
    )


def note_written(conn: Conn, settings: Settings) -> None:
    """Note how many rows of each thread this transaction wrote, after it wrote them."""
    if not settings.undo_days:
        return
    key = sql.Literal(settings.key)
    written = [
        sql.SQL(WRITTEN).format(live=table(settings.live_schema, name), key=key)
        for name in BY_THREAD
    ]
    conn.execute(
        sql.SQL(NOTE_WRITTEN).format(written=sql.SQL(" UNION ALL ").join(written), key=key)
    )


def note_items(conn: Conn, settings: Settings, tables: Sequence[str]) -> None:
    """Note the items of the store that this transaction wrote rows of, after it wrote them.

    `tables` are those of the live store in which rows of an item may be.
    """
    if not settings.undo_days:
        return
    key = sql.Literal(settings.key)
    parts = [
        {
            "number": key_number(name, "l"),
            "key_digest": key_digest(name, "l"),
            "key": key,
            "name": sql.Literal(name),
            "live": table(settings.live_schema, name),
        }
        for name in tables
    ]
    union = sql.SQL(" UNION ALL ")
    conn.execute(
        sql.SQL(NOTE_ITEMS).format(
            ours=union.join(sql.SQL(OURS_OF_ITEMS).format(**part) for part in parts),
            others=union.join(sql.SQL(OTHERS_OF_ITEMS).format(**part) for part in parts),
            key=key,
        )
    )


def note_replaced(conn: Conn, name: str, settings: Settings, differing: sql.Composable) -> None:
    """Keep the live rows that are about to be replaced, and what they will hold then.

    `differing` is FROM and WHERE of these (`l`) and the staged rows that they give way to (`s`).
    """
    if not settings.undo_days:
        return
    columns = list(content(name))
    conn.execute(
        sql.SQL(NOTE_REPLACED).format(
            key=sql.Literal(settings.key),
            name=sql.Literal(name),
            key_digest=key_digest(name, "l"),
            row_digest=row_digest(name, "s"),
            columns=sql.Literal(columns),
            original=sql.SQL(", ").join(as_bytes(name, column, "l") for column in columns),
            differing=differing,
        )
    )
