"""Tells checkpoints of LangGraph.js from those of LangGraph for Python, and refuses them by name."""

from __future__ import annotations

import re
import sqlite3

from ..errors import SourceHasNoTables
from ..model import SourceInfo, SourceText
from ..settings import ThreadFilter
from ..texts import printable, quoted
from .rows import raw, select

# JSON.stringify leaves no spaces, and a Date ends in Z; Python's json and isoformat do neither.
START = re.compile(rb'\{"v":\d+,(?:"id":"[^"]*",)?"ts":"[^"]*Z"')
MAYBE = "type = 'json' AND CAST(substr(checkpoint, 1, 5) AS BLOB) = CAST('{\"v\":' AS BLOB)"
EXAMPLES = 5
LATER = "keep the file; a later release of this package may read it."


def refuse_javascript(
    conn: sqlite3.Connection, info: SourceInfo, thread_filter: ThreadFilter
) -> None:
    """Raise `SourceHasNoTables` where a checkpoint of the threads taken is LangGraph.js's."""
    found = 0
    threads: dict[SourceText, None] = {}
    what = "thread_id, substr(checkpoint, 1, 200)"
    rows = select(what, "checkpoints NOT INDEXED", f"WHERE {MAYBE}")
    for thread, start in conn.execute(rows):
        if START.match(raw(start)) and thread_filter.takes(thread):
            found += 1
            if len(threads) <= EXAMPLES:
                threads[thread] = None
    if not found:
        return
    uri = quoted(info.uri, 200)
    if found == info.counts.checkpoints:
        raise SourceHasNoTables(
            f"{uri} was written by LangGraph.js, whose checkpoints are not supported yet.",
            next=LATER,
            path=info.uri,
        )
    names = [quoted(thread) for thread in list(threads)[:EXAMPLES]]
    more = ", …" if len(threads) > EXAMPLES else ""
    raise SourceHasNoTables(
        f"LangGraph.js wrote {found:,} of the {info.counts.checkpoints:,} checkpoints that {uri} holds, "
        f"LangGraph for Python the others. Those of LangGraph.js are not supported yet; they are in "
        f"threads {', '.join(names)}{more}.",
        next="leave these threads out with the param `threads` (such as `!js-*`): the others migrate; "
        f"{LATER}",
        path=info.uri,
        threads=[printable(thread) for thread in threads],
    )
