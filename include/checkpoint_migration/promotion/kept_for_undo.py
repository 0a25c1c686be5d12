"""What promote leaves in the ledger so that the run can be undone: nothing where nobody may.

It is written as rows are, so that it says what was inserted and what was found there.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from ..row_digests import as_bytes, content, key_digest, key_number, row_digest
from ..settings import Settings
from ..tables import KEYS, table
from .relations import staged_and_live

Conn = psycopg.Connection[Any]

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
NOTE_INSERTED = """
WITH new AS ({insert} RETURNING {key_digest} AS key, {row_digest} AS digest)
INSERT INTO checkpoint_migration.inserted (run_key, table_name, key, digest)
SELECT {key}, {name}, key, digest FROM new
"""
NOTE_REPLACED = """
INSERT INTO checkpoint_migration.replaced (run_key, table_name, key, digest, columns, original)
SELECT {key}, {name}, {key_digest}, {row_digest}, {columns}, ARRAY[{original}]::bytea[]
  FROM {both} WHERE {differs}
"""


def note_threads(conn: Conn, settings: Settings) -> None:
    """Note what the run's threads hold on live before it: more of it later, and somebody went on."""
    if not settings.undo_days:
        return
    by_thread = [name for name in KEYS if "thread_id" in KEYS[name]]
    threads = [
        sql.SQL(THREADS).format(staged=table(settings.staging_schema, name)) for name in by_thread
    ]
    others = [
        sql.SQL(OTHERS).format(number=key_number(name, "l"), live=table(settings.live_schema, name))
        for name in by_thread
    ]
    conn.execute("INSERT INTO checkpoint_migration.undoable (run_key) VALUES (%s)", (settings.key,))
    conn.execute(
        sql.SQL(NOTE_THREADS).format(
            threads=sql.SQL(" UNION ").join(threads),
            others=sql.SQL(" UNION ALL ").join(others),
            key=sql.Literal(settings.key),
        )
    )


def noting_inserted(insert: sql.Composed, name: str, settings: Settings) -> sql.Composed:
    """An insert into live (`AS l`) that also notes which rows it inserted; it counts them as before."""
    if not settings.undo_days:
        return insert
    return sql.SQL(NOTE_INSERTED).format(
        insert=insert,
        key_digest=key_digest(name, "l"),
        row_digest=row_digest(name, "l"),
        key=sql.Literal(settings.key),
        name=sql.Literal(name),
    )


def note_replaced(conn: Conn, name: str, settings: Settings, differs: sql.Composable) -> None:
    """Keep the live rows that are about to be replaced, and what they will hold then."""
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
            both=staged_and_live(name, settings),
            differs=differs,
        )
    )
