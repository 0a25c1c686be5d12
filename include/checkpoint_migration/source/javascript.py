"""Says which of both languages wrote the threads of a database; refuses a thread that both wrote."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

from ..errors import SourceHasNoTables
from ..languages import LANGGRAPH_JS, LOOKED_AT, is_javascript
from ..model import SourceInfo, SourceText
from ..settings import ThreadFilter
from ..texts import printable, quoted
from .rows import indexed, raw, select

MAYBE = "type = 'json' AND CAST(substr(checkpoint, 1, 5) AS BLOB) = CAST('{\"v\":' AS BLOB)"
EXAMPLES = 5


def format_by_language(
    conn: sqlite3.Connection, info: SourceInfo, thread_filter: ThreadFilter
) -> str:
    """The format of the threads taken, where LangGraph.js wrote any of them; else the one known.

    Raises `SourceHasNoTables` for a thread that LangGraph for Python wrote to as well: neither
    language's saver could read all of it.
    """
    found = _count(conn, thread_filter)
    if not found:
        return info.format
    if found == info.counts.checkpoints:
        return LANGGRAPH_JS
    if mixed := _mixed(conn, thread_filter):
        raise _of_both(info, mixed)
    return f"{LANGGRAPH_JS} beside threads of LangGraph for Python"


def _count(conn: sqlite3.Connection, thread_filter: ThreadFilter) -> int:
    what = f"thread_id, substr(checkpoint, 1, {LOOKED_AT})"
    rows = conn.execute(select(what, "checkpoints NOT INDEXED", f"WHERE {MAYBE}"))
    return sum(is_javascript(raw(start)) and thread_filter.takes(thread) for thread, start in rows)


def _mixed(conn: sqlite3.Connection, thread_filter: ThreadFilter) -> list[SourceText]:
    """The first threads taken that have checkpoints of both languages."""
    what = f"thread_id, CASE WHEN {MAYBE} THEN substr(checkpoint, 1, {LOOKED_AT}) END"
    rows: Iterator[tuple[Any, Any]] = conn.execute(
        select(what, indexed(conn, "checkpoints"), "ORDER BY thread_id")
    )
    mixed: list[SourceText] = []
    for thread, of_thread in groupby(rows, itemgetter(0)):
        if not thread_filter.takes(thread):
            continue
        languages = {start is not None and is_javascript(raw(start)) for _, start in of_thread}
        if len(languages) > 1:
            mixed.append(thread)
            if len(mixed) > EXAMPLES:
                break
    return mixed


def _of_both(info: SourceInfo, mixed: list[SourceText]) -> SourceHasNoTables:
    names = [quoted(thread) for thread in mixed[:EXAMPLES]]
    more = ", …" if len(mixed) > EXAMPLES else ""
    return SourceHasNoTables(
        f"{quoted(info.uri, 200)} has threads to which both LangGraph.js and LangGraph for Python "
        f"wrote, which neither language reads whole: {', '.join(names)}{more}.",
        next="leave these threads out with the param `threads` (such as `!js-*`): the others migrate.",
        path=info.uri,
        threads=[printable(thread) for thread in mixed],
    )
