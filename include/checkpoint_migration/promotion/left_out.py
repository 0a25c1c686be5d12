"""The staged rows that stay away from live: removed there on purpose, or beside a row that is kept."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from ..load.staging import KEYS
from ..postgres import table
from ..settings import Settings
from .relations import differing, on_key, staged, wanted

SHOWN = 100
Conn = psycopg.Connection[Any]


def count_rows(conn: Conn, from_where: sql.Composed) -> int:
    row = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(from_where)).fetchone()
    return int(row[0]) if row else 0


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


def note_left_out(conn: Conn, settings: Settings) -> None:
    """Note in staging which keys stay away because the application removed them from live.

    An earlier run promoted them and they are gone: they do not come back, nor do new rows of a
    thread that was deleted altogether. A blob stays away with the last checkpoint that needs it.
    """
    names = _names(settings)
    for statement in (
        "DROP TABLE IF EXISTS {left_out}, {left_out_blobs}",
        (
            "CREATE UNLOGGED TABLE {left_out} (thread_id text, checkpoint_ns text, checkpoint_id text,"
            " why text, PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id))"
        ),
        (
            "CREATE UNLOGGED TABLE {left_out_blobs} (thread_id text, checkpoint_ns text, channel text,"
            " version text, PRIMARY KEY (thread_id, checkpoint_ns, channel, version))"
        ),
        (
            "INSERT INTO {left_out} WITH gone AS MATERIALIZED ("
            "  SELECT p.thread_id, p.checkpoint_ns, p.checkpoint_id FROM checkpoint_migration.promoted p"
            "  LEFT JOIN {live} l USING (thread_id, checkpoint_ns, checkpoint_id)"
            "  WHERE p.live_schema = {schema} AND l.thread_id IS NULL AND NOT (p.orphan AND EXISTS ("
            "   SELECT 1 FROM {live_writes} w WHERE w.thread_id = p.thread_id"
            "   AND w.checkpoint_ns = p.checkpoint_ns AND w.checkpoint_id = p.checkpoint_id))),"
            " deleted AS MATERIALIZED (SELECT DISTINCT thread_id FROM gone g"
            "  WHERE NOT EXISTS (SELECT 1 FROM {live} l WHERE l.thread_id = g.thread_id)"
            "  AND NOT EXISTS (SELECT 1 FROM {live_writes} l WHERE l.thread_id = g.thread_id))"
            " SELECT thread_id, checkpoint_ns, checkpoint_id, 'removed' FROM ("
            "  SELECT thread_id, checkpoint_ns, checkpoint_id FROM {staged}"
            "  UNION SELECT thread_id, checkpoint_ns, checkpoint_id FROM {staged_writes}) k"
            " WHERE (thread_id, checkpoint_ns, checkpoint_id) IN (SELECT * FROM gone)"
            " OR thread_id IN (SELECT thread_id FROM deleted)"
        ),
    ):
        conn.execute(sql.SQL(statement).format(**names))
    _note_blobs_left_out(conn, names)


def _note_blobs_left_out(conn: Conn, names: dict[str, Any]) -> None:
    conn.execute(sql.SQL("ANALYZE {left_out}").format(**names))
    conn.execute(
        sql.SQL(
            "INSERT INTO {left_out_blobs} SELECT b.thread_id, b.checkpoint_ns, b.channel, b.version"
            " FROM {staged_blobs} b WHERE EXISTS (SELECT 1 FROM {left_out} o"
            "  WHERE o.thread_id = b.thread_id AND o.checkpoint_ns = b.checkpoint_ns)"
            " EXCEPT SELECT s.thread_id, s.checkpoint_ns, v.key, v.value FROM {staged} s"
            " CROSS JOIN LATERAL jsonb_each_text(s.checkpoint -> 'channel_versions') v"
            " WHERE EXISTS (SELECT 1 FROM {left_out} o WHERE o.thread_id = s.thread_id"
            "   AND o.checkpoint_ns = s.checkpoint_ns)"
            " AND NOT EXISTS (SELECT 1 FROM {left_out} o WHERE o.thread_id = s.thread_id"
            "   AND o.checkpoint_ns = s.checkpoint_ns AND o.checkpoint_id = s.checkpoint_id)"
            " ON CONFLICT DO NOTHING"
        ).format(**names)
    )


def keep_live(conn: Conn, settings: Settings) -> int:
    """Leave live rows that differ; what hangs on a checkpoint that stays does not come in beside it."""
    names = _names(settings)
    kept = sum(count_rows(conn, differing(name, settings)) for name in KEYS)
    conn.execute(
        sql.SQL(
            "INSERT INTO {left_out} SELECT s.thread_id, s.checkpoint_ns, s.checkpoint_id, 'kept'"
            " FROM {differing} ON CONFLICT DO NOTHING"
        ).format(differing=differing("checkpoints", settings), **names)
    )
    _note_blobs_left_out(conn, names)
    return kept


def removed_rows(conn: Conn, name: str, settings: Settings) -> int:
    if name == "checkpoint_blobs":
        return count_rows(conn, staged(name, settings)) - count_rows(conn, wanted(name, settings))
    return count_rows(
        conn,
        sql.SQL("{} JOIN {} o ON {} WHERE o.why = 'removed'").format(
            staged(name, settings),
            table(settings.staging_schema, "left_out"),
            on_key("checkpoints", "o", "s"),
        ),
    )


def removed_threads(conn: Conn, settings: Settings) -> tuple[str, ...]:
    rows = conn.execute(
        sql.SQL(
            "SELECT DISTINCT thread_id FROM {} WHERE why = 'removed' ORDER BY 1 LIMIT {}"
        ).format(table(settings.staging_schema, "left_out"), sql.Literal(SHOWN))
    ).fetchall()
    return tuple(row[0] for row in rows)
