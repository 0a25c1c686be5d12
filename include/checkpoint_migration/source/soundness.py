"""Judges the pages of the saver's and the store's tables and their indexes, and of no other table."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ..errors import SourceUnreadable
from .failures import malformed, unreadable
from .rows import KEYS, indexed, raw, select

CHECK = "SELECT * FROM pragma_quick_check(?)"
# Said of values that break what a column declares. Pages are sound, and every row is read.
OF_VALUES = re.compile(r"(NULL|NUMERIC|TEXT|non-\w+) value in ")
OF_INDEX = re.compile(
    r"wrong # of entries in index |row \d+ missing from index |non-unique entry in "
)
NO_KEY = re.compile(r"NULL value in (\w+)\.(\w+)$")
COLLATIONS = """
SELECT DISTINCT i.coll
  FROM pragma_index_list(?) AS l, pragma_index_xinfo(l.name) AS i
 WHERE upper(i.coll) NOT IN ('BINARY', 'NOCASE', 'RTRIM')  -- SQLite's own
"""


def check_pages(
    conn: sqlite3.Connection, path: str, keys: Mapping[str, tuple[str, ...]] = KEYS
) -> None:
    """Refuse what SQLite's own check finds, and an index that would hide rows from a reader."""
    for table, key in keys.items():
        with _stand_ins(conn, table):
            lines = [str(line) for (line,) in conn.execute(CHECK, (table,))]
        for line in lines:
            if OF_INDEX.match(line):
                raise _stale_index(path, table)
            if line != "ok" and not OF_VALUES.match(line):
                raise malformed(path, table)
            null = NO_KEY.match(line)
            if null is not None and null[2] in key:
                raise unreadable(
                    path,
                    f"has rows in its table {table!r} whose {null[2]} is NULL, which no LangGraph "
                    "writes or reads",
                    f"look at them (`WHERE typeof({null[2]}) = 'null'`), delete them in a copy and name "
                    "the copy.",
                )
        (rows,) = conn.execute(select("count(*)", f"{table} NOT INDEXED")).fetchone()
        # count(*) would take the smallest index there is, whatever INDEXED BY says
        first = select(f"count({key[0]})", indexed(conn, table, keys))
        (entries,) = conn.execute(first).fetchone()
        if rows != entries:  # an older SQLite's quick check does not count an index's entries
            raise _stale_index(path, table)


def _stale_index(path: str, table: str) -> SourceUnreadable:
    return unreadable(
        path,
        f"is malformed: an index on its table {table!r} does not have the table's rows",
        f"make a copy, run `sqlite3 COPY 'REINDEX {table}'` and name the copy.",
        malformed=True,
    )


@contextmanager
def _stand_ins(conn: sqlite3.Connection, table: str) -> Iterator[None]:
    """Have every collation that an application's index on the table names, as long as it takes.

    The check wants them to be there and does not use them; a reader must not have them, for it
    would trust an order that is not theirs.
    """
    lacking = [
        raw(name).decode("utf-8", "replace") for (name,) in conn.execute(COLLATIONS, (table,))
    ]
    for name in lacking:
        conn.create_collation(name, _no_order)
    try:
        yield
    finally:
        for name in lacking:
            conn.create_collation(name, None)


def _no_order(a: str, b: str) -> int:
    return (a > b) - (a < b)
