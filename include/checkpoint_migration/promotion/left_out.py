"""The staged rows that stay away from live: removed there on purpose, or beside a row that is kept.

They are noted in staging, in tables of their own, so that every later statement can leave them out. A
crash of the server does not empty these: what promote left out cannot be judged again once it is done.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from ..settings import Settings
from ..tables import KEYS, count_rows, table
from .relations import differing, on_key, staged, wanted

SHOWN = 100
Conn = psycopg.Connection[Any]

EMPTY = """
DROP TABLE IF EXISTS {left_out}, {left_out_blobs};
CREATE TABLE {left_out} (
    thread_id text, checkpoint_ns text, checkpoint_id text, why text,
    PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id)
);
CREATE TABLE {left_out_blobs} (
    thread_id text, checkpoint_ns text, channel text, version text,
    PRIMARY KEY (thread_id, checkpoint_ns, channel, version)
);
"""

# `gone`: keys that a run promoted and that are live no more. `deleted`: threads of which nothing is.
NOTE_REMOVED = """
INSERT INTO {left_out}
WITH gone AS MATERIALIZED (
    SELECT p.thread_id, p.checkpoint_ns, p.checkpoint_id
      FROM checkpoint_migration.promoted AS p
      LEFT JOIN {live} AS l USING (thread_id, checkpoint_ns, checkpoint_id)
     WHERE p.live_schema = {schema} AND l.thread_id IS NULL
       AND NOT (p.orphan AND EXISTS (
                SELECT FROM {live_writes} AS w
                 WHERE (w.thread_id, w.checkpoint_ns, w.checkpoint_id)
                     = (p.thread_id, p.checkpoint_ns, p.checkpoint_id)))
), deleted AS MATERIALIZED (
    SELECT DISTINCT thread_id
      FROM gone AS g
     WHERE NOT EXISTS (SELECT FROM {live} AS l WHERE l.thread_id = g.thread_id)
       AND NOT EXISTS (SELECT FROM {live_writes} AS w WHERE w.thread_id = g.thread_id)
)
SELECT thread_id, checkpoint_ns, checkpoint_id, 'removed'
  FROM (SELECT thread_id, checkpoint_ns, checkpoint_id FROM {staged}
         UNION SELECT thread_id, checkpoint_ns, checkpoint_id FROM {staged_writes}) AS k
 WHERE EXISTS (SELECT FROM gone)
   AND ((thread_id, checkpoint_ns, checkpoint_id) IN (SELECT * FROM gone)
        OR thread_id IN (SELECT thread_id FROM deleted))
"""

NOTE_KEPT = """
INSERT INTO {left_out}
SELECT s.thread_id, s.checkpoint_ns, s.checkpoint_id, 'kept' FROM {differing}
    ON CONFLICT DO NOTHING
"""

# A blob stays away with the last checkpoint that needs it.
NOTE_BLOBS = """
INSERT INTO {left_out_blobs}
SELECT b.thread_id, b.checkpoint_ns, b.channel, b.version
  FROM {staged_blobs} AS b
 WHERE EXISTS (SELECT FROM {left_out} AS o
                WHERE o.thread_id = b.thread_id AND o.checkpoint_ns = b.checkpoint_ns)
EXCEPT
SELECT s.thread_id, s.checkpoint_ns, v.key, v.value
  FROM {staged} AS s
 CROSS JOIN LATERAL jsonb_each_text(s.checkpoint -> 'channel_versions') AS v
 WHERE EXISTS (SELECT FROM {left_out} AS o
                WHERE o.thread_id = s.thread_id AND o.checkpoint_ns = s.checkpoint_ns)
   AND NOT EXISTS (SELECT FROM {left_out} AS o
                    WHERE (o.thread_id, o.checkpoint_ns, o.checkpoint_id)
                        = (s.thread_id, s.checkpoint_ns, s.checkpoint_id))
    ON CONFLICT DO NOTHING
"""

REMOVED_THREADS = """
SELECT DISTINCT thread_id FROM {left_out} WHERE why = 'removed' ORDER BY 1 LIMIT {limit}
"""


def _names(settings: Settings) -> dict[str, Any]:
    """What the statements of this room call their tables."""
    schema, live = settings.staging_schema, settings.live_schema
    return {
        "left_out": table(schema, "left_out"),
        "left_out_blobs": table(schema, "left_out_blobs"),
        "staged": table(schema, "checkpoints"),
        "staged_writes": table(schema, "checkpoint_writes"),
        "staged_blobs": table(schema, "checkpoint_blobs"),
        "live": table(live, "checkpoints"),
        "live_writes": table(live, "checkpoint_writes"),
        "schema": sql.Literal(live),
    }


def note_removed(conn: Conn, settings: Settings) -> None:
    """Note which keys stay away because the application removed them from live.

    An earlier run promoted them and they are gone: they do not come back, nor do new rows of a
    thread that was deleted altogether.
    """
    names = _names(settings)
    conn.execute(sql.SQL(EMPTY).format(**names))
    conn.execute(sql.SQL(NOTE_REMOVED).format(**names))
    _note_blobs(conn, names)


def is_noted(conn: Conn, settings: Settings) -> bool:
    """Whether `note_removed` has been done in this staging."""
    name = table(settings.staging_schema, "left_out_blobs").as_string(None)
    return conn.execute("SELECT to_regclass(%s) IS NOT NULL", (name,)).fetchone() == (True,)


def _note_blobs(conn: Conn, names: dict[str, Any]) -> None:
    conn.execute(sql.SQL("ANALYZE {left_out}").format(**names))
    conn.execute(sql.SQL(NOTE_BLOBS).format(**names))


def note_kept(conn: Conn, settings: Settings) -> int:
    """Note the keys whose live row stays: what hangs on it does not come in beside it.

    Returns how many live rows differ and stay.
    """
    names = _names(settings)
    kept = sum(count_rows(conn, differing(name, settings)) for name in KEYS)
    conn.execute(sql.SQL(NOTE_KEPT).format(differing=differing("checkpoints", settings), **names))
    _note_blobs(conn, names)
    return kept


def removed_rows(conn: Conn, name: str, settings: Settings) -> int:
    """How many staged rows of a table stay away because they were removed from live."""
    if name == "checkpoint_blobs":
        return count_rows(conn, staged(name, settings)) - count_rows(conn, wanted(name, settings))
    return count_rows(
        conn,
        sql.SQL("{staged} JOIN {left_out} AS o ON {on} WHERE o.why = 'removed'").format(
            staged=staged(name, settings),
            left_out=table(settings.staging_schema, "left_out"),
            on=on_key("checkpoints", "o", "s"),
        ),
    )


def removed_threads(conn: Conn, settings: Settings) -> tuple[str, ...]:
    """The first of the threads that rows were removed from."""
    statement = sql.SQL(REMOVED_THREADS).format(
        left_out=table(settings.staging_schema, "left_out"), limit=sql.Literal(SHOWN)
    )
    return tuple(row[0] for row in conn.execute(statement).fetchall())


def was_left_out(conn: Conn, settings: Settings, key: tuple[str, str, str]) -> bool:
    """Whether promote left a checkpoint out: removed from live before, or beside a row that is kept."""
    row = conn.execute(
        sql.SQL(
            "SELECT FROM {} WHERE (thread_id, checkpoint_ns, checkpoint_id) = (%s, %s, %s)"
        ).format(table(settings.staging_schema, "left_out")),
        key,
    ).fetchone()
    return row is not None
