"""Says what an open database holds: whose layout, of which era, how many rows and threads."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Mapping
from typing import NamedTuple

from ..errors import SourceHasNoTables
from ..findings import Counts
from ..model import CheckpointRow, SourceInfo, WriteRow
from ..settings import ThreadFilter
from ..texts import printable, quoted
from . import thread_ts
from .failures import named, unreadable
from .rows import KEYS, columns_of, has_saver, indexed, key_index, raw, select
from .soundness import check_pages
from .store import has_store, longest_item, look_at_store, store_keys
from .store import other_columns as other_columns_of_store
from .threads import LENGTHS, thread_counts

COLUMNS = {"checkpoints": CheckpointRow._fields, "writes": WriteRow._fields}
OPTIONAL = {"task_path"}
KNOWN_TYPES = re.compile(r"(msgpack|json|pickle)(\+aes)?")
SAMPLE = 20
STORE_ALONE = "langgraph-checkpoint-sqlite store"
NAME_IT = "name the file that the application passes to its SqliteSaver."


def describe(
    conn: sqlite3.Connection,
    path: str,
    thread_filter: ThreadFilter,
    *,
    with_store: bool = True,
    thorough: bool = True,
) -> SourceInfo:
    """What the database holds of the threads taken, and of the store unless it is not asked for;
    `thorough` checks the pages of the tables too.

    Raises `SourceHasNoTables` for another layout, `SourceUnreadable` for a malformed file.
    """
    layout = check_layout(conn, path, with_store=with_store)
    if thorough:
        check_pages(conn, path, {**layout.keys, **(store_keys(conn) if with_store else {})})
    if layout.is_old:
        thread_ts.show_as_today(conn)
    checkpoints = writes = threads = 0
    for stat in thread_counts(conn, thread_filter):
        checkpoints += stat.checkpoints
        writes += stat.writes
        threads += 1
    has_task_path = "task_path" in layout.columns["writes"]
    alone = not layout.keys
    ids = (stat.thread_id for stat in thread_counts(conn, ThreadFilter()))
    return SourceInfo(
        uri=printable(os.fsencode(path)),
        format=_format_of(conn, layout),
        bytes=_size(conn),
        has_task_path=has_task_path,
        counts=Counts(checkpoints, writes),
        threads=threads,
        max_row_bytes=max(
            longest_item(conn) if with_store else 0,
            *(0 if alone else _longest(conn, table) for table in COLUMNS),
        ),
        unmatched_globs=thread_filter.unmatched(ids) if thread_filter.globs else (),
        other_tables=_other_tables(conn),
        other_columns=(
            *(
                f"{table}.{column}"
                for table in layout.keys
                for column in layout.columns[table]
                if column not in layout.known[table]
            ),
            *(other_columns_of_store(conn) if with_store else ()),
        ),
        store=look_at_store(conn) if with_store else None,
    )


def _other_tables(conn: sqlite3.Connection) -> tuple[str, ...]:
    rows = conn.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    names = [raw(name).decode("utf-8", "backslashreplace") for (name,) in rows]
    return tuple(n for n in names if n not in COLUMNS and not n.startswith("sqlite_"))


class Layout(NamedTuple):
    """Whose tables there are: their columns, the columns that are LangGraph's, and their keys.

    `is_old`: they are those of langgraph up to 0.1 (`thread_ts`). Where a store has a file of its own,
    there are no keys.
    """

    columns: dict[str, list[str]]
    known: Mapping[str, tuple[str, ...]]
    keys: Mapping[str, tuple[str, ...]]
    is_old: bool


def check_layout(conn: sqlite3.Connection, path: str, *, with_store: bool = True) -> Layout:
    """Return whose tables these are; raise `SourceHasNoTables` if they are not LangGraph's."""
    columns = {t: columns_of(conn, t) if _is_ordinary(conn, t) else [] for t in COLUMNS}
    thread_ts.refuse_one_row_a_thread(path, columns)
    is_old = thread_ts.is_old(columns)
    if is_old:
        there = thread_ts.tables_of(conn, columns)
        keys = {table: thread_ts.KEYS[table] for table in there}
        layout = Layout(columns, thread_ts.COLUMNS, keys, is_old)
    elif with_store and has_store(conn) and not has_saver(conn):
        layout = Layout(columns, COLUMNS, {}, is_old)
    else:
        layout = Layout(columns, COLUMNS, KEYS, is_old)
    for table in layout.keys:
        lack = _lack(conn, table, layout)
        if lack is not None:
            what, advice = lack
            (tables,) = conn.execute("SELECT count(*) FROM sqlite_master").fetchone()
            raise SourceHasNoTables(
                f"{named(path)} is an SQLite database, but not LangGraph's: {what}.",
                next=advice,
                path=printable(os.fsencode(path)),
                tables=tables,
            )
    (encoding,) = conn.execute("PRAGMA encoding").fetchone()
    if encoding != "UTF-8":
        raise unreadable(
            path,
            f"keeps its text in {encoding}, which no release of LangGraph makes",
            "make a copy in UTF-8 (`sqlite3 FILE .dump | sqlite3 NEW`) and name that.",
        )
    return layout


def _is_ordinary(conn: sqlite3.Connection, table: str) -> bool:
    """Whether there is such a table with pages of its own: no view, and no module's to answer for."""
    wanted = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ? AND rootpage > 0"
    return conn.execute(wanted, (table,)).fetchone() is not None


def _lack(conn: sqlite3.Connection, table: str, layout: Layout) -> tuple[str, str] | None:
    """What a table lacks to be the saver's own, and what to do about it.

    Without these, rows could be missed or doubled.
    """
    if not _is_ordinary(conn, table):
        alike = "SELECT name, type FROM sqlite_master WHERE lower(name) = ? AND type <> 'index'"
        found = conn.execute(alike, (table,)).fetchone()
        if found is None:
            return f"it has no table {table!r}", NAME_IT
        name = quoted(raw(found[0]))
        if name == quoted(table):
            kind = "virtual table" if found[1] == "table" else found[1]
            return f"it has no table {table!r}, but a {kind} of that name", NAME_IT
        rename = (
            "if that is the saver's own, rename it in a copy (`ALTER TABLE … RENAME TO renamed`, then "
            f"`ALTER TABLE renamed RENAME TO {table}`) and name the copy; else {NAME_IT}"
        )
        return f"it has no table {table!r}, though a {found[1]} {name}", rename
    lack = _lack_of_columns(conn, table, layout)
    return None if lack is None else (lack, NAME_IT)


def _lack_of_columns(conn: sqlite3.Connection, table: str, layout: Layout) -> str | None:
    optional = thread_ts.OPTIONAL if layout.is_old else OPTIONAL
    key, there = layout.keys[table], layout.columns[table]
    missing = [c for c in layout.known[table] if c not in there and c not in optional]
    if missing:
        return f"its table {table!r} lacks {', '.join(missing)}"
    declared = {
        name: (kind.upper(), notnull)
        for name, kind, notnull in conn.execute(
            "SELECT name, type, \"notnull\" FROM pragma_table_xinfo(?, 'main')", (table,)
        )
        if name in key
    }
    for column, (kind, notnull) in declared.items():
        wanted = "INTEGER" if column == "idx" else "TEXT"
        if kind != wanted or not notnull:
            return f"its column {table}.{column} is not declared {wanted} NOT NULL"
    if key_index(conn, table, layout.keys) is None:
        return f"nothing keeps ({', '.join(key)}) unique in its table {table!r}"
    return None


def _size(conn: sqlite3.Connection) -> int:
    """The database's bytes, those of its -wal included."""
    (pages,) = conn.execute("PRAGMA page_count").fetchone()
    (page_bytes,) = conn.execute("PRAGMA page_size").fetchone()
    return int(pages) * int(page_bytes)


def _longest(conn: sqlite3.Connection, table: str) -> int:
    longest = select(f"max({LENGTHS[table]})", f"{table} NOT INDEXED")
    (bytes_,) = conn.execute(longest).fetchone()
    return bytes_ or 0


def _format_of(conn: sqlite3.Connection, layout: Layout) -> str:
    if not layout.keys:
        return STORE_ALONE
    if layout.is_old:
        return thread_ts.format_of(conn, tuple(layout.keys))
    return _format(conn, "task_path" in layout.columns["writes"])


def _format(conn: sqlite3.Connection, has_task_path: bool) -> str:
    """A name of the format, from the first and last checkpoints; LangGraph.js is told elsewhere."""
    order = ", ".join(f"{column} DESC" for column in KEYS["checkpoints"])
    first = select("type", "checkpoints NOT INDEXED", f"LIMIT {SAMPLE}")
    last = select("type", indexed(conn, "checkpoints"), f"ORDER BY {order} LIMIT {SAMPLE}")
    rows = conn.execute(first).fetchall() + conn.execute(last).fetchall()
    types = {t if isinstance(t, str) and KNOWN_TYPES.fullmatch(t) else "other" for (t,) in rows}
    name = f"langgraph-checkpoint-sqlite ({', '.join(sorted(types)) or 'empty'})"
    return name if has_task_path else f"{name} without task_path"
