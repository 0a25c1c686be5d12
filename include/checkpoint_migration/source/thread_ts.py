"""Shows the tables of langgraph up to 0.1 (`thread_ts`, `parent_ts`) as today's two.

Views of one connection's own stand before the tables and have today's names and columns, so that
whoever reads rows reads both layouts alike. Nothing is written: they live as long as the connection.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence

from ..errors import SourceHasNoTables
from ..settings import ThreadFilter
from ..texts import printable, quoted
from .failures import named
from .rows import columns_of, raw, select

KEYS = {
    "checkpoints": ("thread_id", "thread_ts"),
    "writes": ("thread_id", "thread_ts", "task_id", "idx"),
}
COLUMNS = {
    "checkpoints": (*KEYS["checkpoints"], "parent_ts", "checkpoint", "metadata"),
    "writes": (*KEYS["writes"], "channel", "value"),
}
OPTIONAL = {"metadata"}  # before langgraph 0.0.45 there was none

IdOf = Callable[[bytes, bytes], "str | None"]
"""(thread_id, thread_ts) -> the checkpoint id that a timestamp stands for; None if it is none."""

A_TIME = "GLOB '[0-9][0-9][0-9][0-9]-*'"  # a uuid6 has no hyphen there
# As the serializer of that time tells them apart.
TYPE = "CASE CAST(substr({0}, 1, 1) AS BLOB) WHEN x'80' THEN 'pickle' ELSE 'json' END"
CHECKPOINTS = """
CREATE TEMP VIEW checkpoints AS
SELECT thread_id, '' AS checkpoint_ns, {id} AS checkpoint_id, {parent} AS parent_checkpoint_id,
       {type} AS type, checkpoint, {metadata} AS metadata
  FROM main.checkpoints
"""
WRITES = """
CREATE TEMP VIEW writes AS
SELECT thread_id, '' AS checkpoint_ns, {id} AS checkpoint_id, task_id, idx, channel,
       {type} AS type, value
  FROM main.writes
"""
NO_WRITES = """
CREATE TEMP VIEW writes AS
SELECT thread_id, checkpoint_ns, checkpoint_id, '' AS task_id, 0 AS idx, '' AS channel,
       type, NULL AS value
  FROM temp.checkpoints
 WHERE 0
"""
OF_JAVASCRIPT = re.compile(rb'\{"v":\d')  # Python's json writes a space after the colon


def is_old(columns: Mapping[str, Sequence[str]]) -> bool:
    """Whether a table `checkpoints` with these columns is of that time."""
    names = columns["checkpoints"]
    return "thread_ts" in names and "checkpoint_id" not in names


def has_old_layout(conn: sqlite3.Connection) -> bool:
    """Whether an open database is of that time."""
    return is_old({"checkpoints": columns_of(conn, "checkpoints")})


def show_as_today(conn: sqlite3.Connection, id_of: IdOf | None = None) -> None:
    """Let `checkpoints` and `writes` of this connection be today's; nothing where they are already.

    Without `id_of`, or where there are no timestamps, `thread_ts` is the checkpoint id as it stands.
    """
    if not has_old_layout(conn):
        return
    has_writes = _has_writes(conn)
    if id_of is not None and _has_timestamps(conn, has_writes):
        conn.create_function("checkpoint_id_of", 2, id_of, deterministic=True)
        ids = {"id": _id("thread_ts"), "parent": _id("parent_ts")}
    else:
        ids = {"id": "thread_ts", "parent": "parent_ts"}
    has_metadata = "metadata" in columns_of(conn, "checkpoints")
    checkpoints = CHECKPOINTS.format(
        type=TYPE.format("checkpoint"), metadata="metadata" if has_metadata else "NULL", **ids
    )
    writes = WRITES.format(type=TYPE.format("value"), **ids) if has_writes else NO_WRITES
    conn.execute("PRAGMA query_only=0")  # it would forbid a view of our own; the file is read-only
    try:
        for view in ("writes", "checkpoints"):
            conn.execute(f"DROP VIEW IF EXISTS temp.{view}")
        conn.execute(checkpoints)
        conn.execute(writes)
    finally:
        conn.execute("PRAGMA query_only=1")


def _has_writes(conn: sqlite3.Connection) -> bool:
    """Whether there is a table `writes` of that layout: an application's view is not asked."""
    ordinary = "WHERE type = 'table' AND name = 'writes' AND rootpage > 0"
    found = conn.execute(select("1", "main.sqlite_master", ordinary)).fetchone()
    return found is not None and "thread_ts" in columns_of(conn, "writes")


def _id(column: str) -> str:
    """A timestamp's id; what is none stays what it is. As bytes: a text may be no UTF-8."""
    given = f"CAST(thread_id AS BLOB), CAST({column} AS BLOB)"
    return (
        f"CASE WHEN {column} {A_TIME} THEN ifnull(checkpoint_id_of({given}), {column})"
        f" ELSE {column} END"
    )


def _has_timestamps(conn: sqlite3.Connection, has_writes: bool) -> bool:
    times = f"thread_ts {A_TIME}"
    asked = [select("1", "main.checkpoints", f"WHERE {times} OR parent_ts {A_TIME} LIMIT 1")]
    if has_writes:
        asked.append(select("1", "main.writes", f"WHERE {times} LIMIT 1"))
    return any(conn.execute(question).fetchone() for question in asked)


def tables_of(conn: sqlite3.Connection, columns: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The tables of that layout that there are: `writes` came with 0.1.7.

    A later saver that once opened the file leaves a `writes` of its own beside it, an empty one.
    """
    names = columns["writes"]
    later = "checkpoint_id" in names and "thread_ts" not in names
    if not names or (later and not conn.execute(select("1", "main.writes", "LIMIT 1")).fetchone()):
        return ("checkpoints",)
    return ("checkpoints", "writes")


def refuse_one_row_a_thread(path: str, columns: Mapping[str, Sequence[str]]) -> None:
    """Raise `SourceHasNoTables` for what came before: a thread's last checkpoint alone, pickled."""
    if set(columns["checkpoints"]) == {"thread_id", "checkpoint"}:
        raise SourceHasNoTables(
            f"{named(path)} has the layout of langgraph before 0.0.30 (one pickled row a thread, without a "
            "history), which is not supported.",
            next="keep the file, and let these threads begin anew.",
            path=printable(os.fsencode(path)),
        )


def refuse_javascript(conn: sqlite3.Connection, path: str, thread_filter: ThreadFilter) -> None:
    """Raise `SourceHasNoTables` where LangGraph.js wrote such a thread: nothing of it was tried."""
    if not has_old_layout(conn):
        return
    starts = conn.execute(select("thread_id, substr(checkpoint, 1, 16)", "main.checkpoints"))
    for thread_id, start in starts:
        is_js = start is not None and OF_JAVASCRIPT.match(raw(start))
        if is_js and thread_filter.takes(thread_id):
            raise SourceHasNoTables(
                f"{named(path)} has the thread_ts layout, and LangGraph.js wrote checkpoints in it (such as "
                f"those of thread {quoted(thread_id)}), which is not supported.",
                next="leave these threads out with the param `threads` (such as `!js-*`): what Python wrote "
                "migrates; and keep the file.",
                path=printable(os.fsencode(path)),
            )


def format_of(conn: sqlite3.Connection, tables: Sequence[str]) -> str:
    """A name for the generation, as `docs/formats.md` has it."""
    ids = []
    for name, condition in (("timestamps", A_TIME), ("ids", f"NOT {A_TIME}")):
        what = select("1", "main.checkpoints", f"WHERE thread_ts {condition} LIMIT 1")
        ids += [name] if conn.execute(what).fetchone() else []
    types = conn.execute(select("DISTINCT type", "temp.checkpoints", "ORDER BY type")).fetchall()
    writes = "writes" if "writes" in tables else "no writes"
    held = ", ".join(kind for (kind,) in types) or "empty"
    return f"langgraph up to 0.1, thread_ts ({' and '.join(ids) or 'no rows'}; {writes}; {held})"
