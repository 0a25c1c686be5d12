"""Whether PostgreSQL sorts checkpoint ids as SQLite does: the greatest id is a thread's latest.

`PostgresSaver` orders by id in the column's collation, SQLite by bytes. Ids of uuid6 sort alike in
both; others, such as `B1` and `a2`, need not.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from ..errors import TargetNotReady
from ..settings import Settings
from ..tables import table
from ..texts import quoted

Conn = psycopg.Connection[Any]

# Only namespaces with an id of another shape are sorted twice.
OTHER_ORDER = """
WITH odd AS MATERIALIZED (
    SELECT DISTINCT thread_id, checkpoint_ns FROM {staged}
     WHERE checkpoint_id !~ '^[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}$'
), placed AS (
    SELECT thread_id, s.checkpoint_ns,
           row_number() OVER (PARTITION BY s.thread_id, s.checkpoint_ns
                              ORDER BY s.checkpoint_id COLLATE "C") AS on_sqlite,
           row_number() OVER (PARTITION BY s.thread_id, s.checkpoint_ns
                              ORDER BY l.checkpoint_id) AS on_postgres
      FROM {staged} AS s
      JOIN odd USING (thread_id, checkpoint_ns)
     CROSS JOIN LATERAL (SELECT s.checkpoint_id COLLATE {collation} AS checkpoint_id) AS l
)
SELECT thread_id, count(*) OVER () FROM placed
 WHERE on_sqlite <> on_postgres GROUP BY thread_id ORDER BY thread_id COLLATE "C" LIMIT 1
"""
COLLATION = """
SELECT n.nspname::text, c.collname::text, c.collname = 'C' OR c.collname = 'POSIX'
  FROM pg_catalog.pg_attribute AS a
  JOIN pg_catalog.pg_collation AS c ON c.oid = a.attcollation
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.collnamespace
 WHERE a.attrelid = %s::regclass AND a.attname = 'checkpoint_id'
"""


def refuse_other_order(conn: Conn, settings: Settings) -> None:
    """Raise `TargetNotReady` where live would take another checkpoint for the latest one."""
    live = table(settings.live_schema, "checkpoints")
    row = conn.execute(COLLATION, (live.as_string(None),)).fetchone()
    assert row is not None, "a text column has a collation"
    schema, name, by_bytes = row
    if by_bytes:
        return
    found = conn.execute(
        sql.SQL(OTHER_ORDER).format(
            staged=table(settings.staging_schema, "checkpoints"),
            collation=sql.Identifier(schema, name),
        )
    ).fetchone()
    if found is None:
        return
    thread_id, threads = found
    alter = sql.SQL('ALTER TABLE {} ALTER COLUMN checkpoint_id TYPE text COLLATE "C";').format(live)
    raise TargetNotReady(
        f"the collation of checkpoints.checkpoint_id ({quoted(name)}) sorts the checkpoint ids of "
        f"{threads:,} thread{'' if threads == 1 else 's'} in another order than SQLite, the first is "
        f"{quoted(thread_id)}: PostgresSaver would take another checkpoint for the latest one.",
        next=f"let that column sort by bytes ({alter.as_string(None)} it rewrites the index), or name "
        "a database whose collation is C; or leave those threads out with threads.",
        threads=threads,
    )
