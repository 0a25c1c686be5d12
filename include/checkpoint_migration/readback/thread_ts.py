"""Lets today's `SqliteSaver` read a database of langgraph up to 0.1 (`thread_ts`).

Views of the connection's own stand before the tables; ids for timestamps are worked out here once
more, with LangGraph's own UUID, for a witness that leans on nobody.
"""

from __future__ import annotations

import hashlib
import sqlite3
from datetime import UTC, datetime
from typing import Any

from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.base.id import UUID

CLOCK = 0x01B21DD213814000  # ticks of 100 ns from 1582 to 1970, as LangGraph's uuid6 has it
NO_METADATA = """'{"step": -2}'"""

VIEW = """
CREATE TEMP VIEW checkpoints AS
SELECT thread_id, '' AS checkpoint_ns, {id} AS checkpoint_id, {parent} AS parent_checkpoint_id,
       iif(hex(substr(checkpoint, 1, 1)) = '80', 'pickle', 'json') AS type,
       checkpoint, {metadata} AS metadata
  FROM main.checkpoints
"""
WRITES = """
CREATE TEMP VIEW writes AS
SELECT thread_id, '' AS checkpoint_ns, {id} AS checkpoint_id, task_id,
       '' AS task_path, idx, channel,
       iif(hex(substr(value, 1, 1)) = '80', 'pickle', 'json') AS type, value
  FROM {writes}
"""
# as bytes, because a text may be no UTF-8; what is no time stays as it is
ID = """
       iif({0} GLOB '[0-9][0-9][0-9][0-9]-*',
           ifnull(id_of_time(CAST(thread_id AS BLOB), CAST({0} AS BLOB)), {0}), {0})"""
NONE = "(SELECT '' AS task_id, 0 AS idx, '' AS channel, NULL AS value, * FROM main.checkpoints WHERE 0)"


def show_as_today(conn: sqlite3.Connection) -> bool:
    """Give the connection today's tables, and say so, where the database is of that time."""
    columns = _columns(conn, "checkpoints")
    if "thread_ts" not in columns or "checkpoint_id" in columns:
        return False
    conn.create_function("id_of_time", 2, id_of_time, deterministic=True)
    ids = {"id": ID.format("thread_ts"), "parent": ID.format("parent_ts")}
    metadata = f"ifnull(metadata, {NO_METADATA})" if "metadata" in columns else NO_METADATA
    conn.execute(VIEW.format(metadata=metadata, **ids))
    has_writes = "thread_ts" in _columns(conn, "writes")
    conn.execute(WRITES.format(writes="main.writes" if has_writes else NONE, **ids))
    return True


def _columns(conn: sqlite3.Connection, table: str) -> set[Any]:
    rows = conn.execute("SELECT CAST(name AS TEXT) FROM pragma_table_xinfo(?, 'main')", (table,))
    return {name.decode() if isinstance(name, bytes) else name for (name,) in rows}


def id_of_time(thread_id: bytes, moment: bytes | None) -> str | None:
    """What became of a time; None for what is none."""
    if moment is None or moment[4:5] != b"-":
        return None
    try:
        time = datetime.fromisoformat(moment.decode())
    except ValueError:
        return None
    since = (time if time.tzinfo else time.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    seconds = since.days * 86_400 + since.seconds
    ticks = seconds * 10_000_000 + since.microseconds * 10 + CLOCK
    digest = hashlib.sha256(len(thread_id).to_bytes(8) + thread_id + moment).digest()
    number = (ticks >> 12 << 80) | (ticks % 4096 << 64) | (int.from_bytes(digest[:8]) >> 2)
    return str(UUID(int=number, version=6))


def with_id(found: CheckpointTuple) -> CheckpointTuple:
    """A checkpoint of when its time was its id, with its id."""
    checkpoint: Any = found.checkpoint  # a pickle stays closed, and is none
    if not isinstance(checkpoint, dict) or "id" in checkpoint:
        return found
    checkpoint_id = str(found.config["configurable"]["checkpoint_id"])
    return found._replace(checkpoint={**checkpoint, "id": checkpoint_id})  # type: ignore[typeddict-item]
