"""The SQL that relates staging (`s`) to live (`l`): the same key, the same row, the rows to be live."""

from __future__ import annotations

from psycopg import sql

from ..every_table import KEYS
from ..settings import Settings
from ..store_tables import STORE, VECTORS
from ..tables import table

SAME_BLOB = "((l.type, l.blob) IS NOT DISTINCT FROM (s.type, s.blob))"
SAME_WRITE = """\
((l.task_path, l.channel, l.type, l.blob) IS NOT DISTINCT FROM
 (s.task_path, s.channel, s.type, s.blob))"""
# JSONB holds 1 and 1.0 for equal, so the envelope is compared by its stored bytes, which costs a quarter
# of comparing texts, and by text where these differ. A parent that the application has pruned from
# live reads NULL there.
SAME_CHECKPOINT = """\
((ROW(l.checkpoint)::record *= ROW(s.checkpoint)::record OR l.checkpoint::text = s.checkpoint::text)
 AND l.metadata = s.metadata AND l.type IS NULL
 AND (l.parent_checkpoint_id IS NOT DISTINCT FROM s.parent_checkpoint_id
      OR (l.parent_checkpoint_id IS NULL
          AND EXISTS (SELECT FROM {left_out} AS o
                       WHERE o.why = 'removed'
                         AND (o.thread_id, o.checkpoint_ns, o.checkpoint_id)
                           = (s.thread_id, s.checkpoint_ns, s.parent_checkpoint_id)))))"""
# A store's JSON is compared as text for the same reason; vectors too, for their bytes.
SAME_ITEM = """\
((l.value::text, l.created_at, l.updated_at, l.expires_at, l.ttl_minutes) IS NOT DISTINCT FROM
 (s.value::text, s.created_at, s.updated_at, s.expires_at, s.ttl_minutes))"""
SAME_VECTOR = """\
((l.embedding::text, l.created_at, l.updated_at) IS NOT DISTINCT FROM
 (s.embedding::text, s.created_at, s.updated_at))"""
SAME = {
    "checkpoint_blobs": SAME_BLOB,
    "checkpoints": SAME_CHECKPOINT,
    "checkpoint_writes": SAME_WRITE,
    STORE: SAME_ITEM,
    VECTORS: SAME_VECTOR,
}
# The table of staging that says which rows stay away, and the live table whose key it has.
LEFT_OUT = {
    "checkpoint_blobs": ("left_out_blobs", "checkpoint_blobs"),
    "checkpoints": ("left_out", "checkpoints"),
    "checkpoint_writes": ("left_out", "checkpoints"),
    STORE: ("left_out_items", STORE),
    VECTORS: ("left_out_items", STORE),
}


def on_key(name: str, left: str = "l", right: str = "s") -> sql.Composed:
    """The join condition of a live row and the staged row of the same key."""
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(left, column), sql.Identifier(right, column))
        for column in KEYS[name]
    )


def same_row(name: str, settings: Settings) -> sql.Composed:
    """Whether a live row is its staged row, key aside; never NULL."""
    return sql.SQL(SAME[name]).format(left_out=table(settings.staging_schema, "left_out"))


def is_left_out(name: str, settings: Settings) -> sql.Composed:
    """Whether a staged row is not to be live: removed there on purpose, or beside a row that is kept."""
    where, keyed_as = LEFT_OUT[name]
    return sql.SQL("EXISTS (SELECT FROM {left_out} AS o WHERE {on})").format(
        left_out=table(settings.staging_schema, where), on=on_key(keyed_as, "o", "s")
    )


def staged(name: str, settings: Settings) -> sql.Composed:
    return sql.SQL("{} AS s").format(table(settings.staging_schema, name))


def staged_and_live(name: str, settings: Settings) -> sql.Composed:
    return sql.SQL("{staged} JOIN {live} AS l ON {on}").format(
        staged=staged(name, settings), live=table(settings.live_schema, name), on=on_key(name)
    )


def identical(name: str, settings: Settings) -> sql.Composed:
    """FROM and WHERE of the staged rows that are live and equal."""
    return sql.SQL("{both} WHERE {same} AND NOT {left_out}").format(
        both=staged_and_live(name, settings),
        same=same_row(name, settings),
        left_out=is_left_out(name, settings),
    )


def differing(name: str, settings: Settings) -> sql.Composed:
    """FROM and WHERE of the staged rows whose key is live with other content."""
    return sql.SQL("{both} WHERE NOT {same} AND NOT {left_out}").format(
        both=staged_and_live(name, settings),
        same=same_row(name, settings),
        left_out=is_left_out(name, settings),
    )


def wanted(name: str, settings: Settings) -> sql.Composed:
    """FROM and WHERE of the staged rows that are to be live."""
    return sql.SQL("{staged} WHERE NOT {left_out}").format(
        staged=staged(name, settings), left_out=is_left_out(name, settings)
    )
