"""Looks at what the frozen source holds besides: other tables, and rows that nothing leads to.

Nothing here decides about a migration: what cannot be read, or takes too long, is left unsaid.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, Timer

from ..model import Beside, OtherTable
from ..settings import ThreadFilter
from ..texts import printable, quoted
from .failures import code_of
from .rows import KEYS, columns_of, has_saver, indexed, raw, select
from .soundness import CHECK, OF_VALUES
from .threads import thread_counts

COUNTING, CHECKING, SEARCHING = 5.0, 15.0, 60.0  # seconds at most
STEPS = 10_000  # of SQLite's machine between two looks at the clock
EXAMPLES = 10
MOST_FAULTS = 5
STORE = ("store", "store_migrations", "store_vectors", "vector_migrations")
STORE_COLUMNS = {"prefix", "key", "value"}
MODULE = re.compile(
    r"\s*CREATE\s+VIRTUAL\s+TABLE\b.*?\bUSING\s+\W?(\w+)", re.IGNORECASE | re.DOTALL
)
# The names that the modules people use give to the tables they keep their rows in.
SHADOW = re.compile(
    r"(data|idx|content|docsize|config|stat|segments|segdir|node|parent|rowid|info|chunks|rowids"
    r"|index|auxiliary|(vector_chunks|metadatachunks|metadatatext)\d+)"
)
ROWS_OF = ("docsize", "rowids", "rowid", "content")  # of which each holds a row for each row


def look_beside(conn: sqlite3.Connection, thread_filter: ThreadFilter) -> Beside:
    """What else the frozen source holds; counts are of the threads taken."""
    tables = _other_tables(conn)
    plain = [table.name for table in tables if not table.module]
    has_store = "store" in plain and STORE_COLUMNS.issubset(columns_of(conn, "store"))
    store = tuple(t for t in tables if has_store and t.name in STORE)
    orphans = _orphan_writes(conn, thread_filter) if has_saver(conn) else []
    alone = [s.thread_id for s in thread_counts(conn, thread_filter) if not s.checkpoints]
    return Beside(
        tables=tuple(t for t in tables if t not in store),
        store=store,
        objects=_objects(conn),
        faults=tuple(_faults(conn, plain)),
        orphan_writes=sum(rows for _, rows in orphans),
        orphan_threads=tuple(dict.fromkeys(thread for thread, _ in orphans))[:EXAMPLES],
        lone_threads=len(alone),
        lone_examples=tuple(map(printable, alone[:EXAMPLES])),
    )


@contextmanager
def _at_most(conn: sqlite3.Connection, seconds: float) -> Iterator[None]:
    """What the connection is asked within ends with an error once the time is up.

    SQLite asks what is no Python code: what a signal raises in a callback of its own is lost.
    """
    over = Lock()
    timer = Timer(seconds, over.acquire)
    timer.daemon = True
    timer.start()
    conn.set_progress_handler(over.locked, STEPS)
    try:
        yield
    finally:
        conn.set_progress_handler(None, 0)
        timer.cancel()


def _other_tables(conn: sqlite3.Connection) -> list[OtherTable]:
    """Every table but the two and SQLite's own; what a virtual table keeps its rows in goes with it."""
    found = conn.execute(
        "SELECT name, rootpage, sql FROM sqlite_master WHERE type = 'table' ORDER BY name"
    ).fetchall()
    modules = {_text(name): _module(sql) for name, page, sql in found if not page}
    ordinary = [_text(name) for name, page, _ in found if page]
    ordinary = [name for name in ordinary if name not in KEYS and not name.startswith("sqlite_")]
    owners = {name: owner for name in ordinary if (owner := _owner(name, modules)) is not None}
    with _at_most(conn, COUNTING):
        tables = [OtherTable(n, _count(conn, n)) for n in ordinary if n not in owners]
        for owner, module in modules.items():
            shadows = tuple(name for name in ordinary if owners.get(name) == owner)
            rows_of = next((n for e in ROWS_OF if (n := f"{owner}_{e}") in shadows), None)
            # counted without the module, which this worker may not have
            rows = None if rows_of is None else _count(conn, rows_of)
            tables.append(OtherTable(owner, rows, module, shadows))
    return sorted(tables, key=lambda table: table.name)


def _text(name: str | bytes) -> str:
    return raw(name).decode("utf-8", "backslashreplace")


def _module(sql: str | bytes | None) -> str:
    found = MODULE.match(_text(sql or ""))
    return found[1].lower() if found else "virtual"


def _owner(name: str, modules: dict[str, str]) -> str | None:
    """The virtual table that keeps its rows in this one: that of the longest name which fits."""
    fitting = [
        owner
        for owner in modules
        if name.startswith(f"{owner}_") and SHADOW.fullmatch(name[len(owner) + 1 :])
    ]
    return max(fitting, key=len, default=None)


def _count(conn: sqlite3.Connection, table: str) -> int | None:
    name = '"' + table.replace('"', '""') + '"'
    for source in (name, f"{name} NOT INDEXED"):  # an index may need a collation that is not here
        try:
            (rows,) = conn.execute(select("count(*)", source)).fetchone()
        except (sqlite3.Error, ValueError):
            continue
        return int(rows)
    return None


def _objects(conn: sqlite3.Connection) -> tuple[str, ...]:
    found = conn.execute(
        "SELECT type, name FROM sqlite_master WHERE type IN ('trigger', 'view') ORDER BY type, name"
    )
    return tuple(f"{kind} {quoted(_text(name))}" for kind, name in found)


def _faults(conn: sqlite3.Connection, others: list[str]) -> Iterator[str]:
    """What SQLite's own check says of the file, the two tables apart, which were judged before."""
    lines: list[str] = []
    with _at_most(conn, CHECKING):
        try:
            lines = [str(line) for (line,) in conn.execute(f"PRAGMA quick_check({MOST_FAULTS})")]
        except sqlite3.Error as error:
            if code_of(error) != sqlite3.SQLITE_INTERRUPT:  # a table that needs what is not here
                lines = [line for table in others for line in _faults_of(conn, table)]
    for line in lines[:MOST_FAULTS]:
        text = line.removeprefix("*** in database main ***").strip()
        if text != "ok" and not (OF_VALUES.match(text) and _is_of_ours(text)):
            yield quoted(text, 120)


def _faults_of(conn: sqlite3.Connection, table: str) -> list[str]:
    try:
        return [str(line) for (line,) in conn.execute(CHECK, (table,)) if line != "ok"]
    except sqlite3.Error as error:
        corrupt = code_of(error) & 0xFF == sqlite3.SQLITE_CORRUPT
        return [f"the table {table} cannot be read"] if corrupt else []


def _is_of_ours(line: str) -> bool:
    return any(f" value in {table}." in line for table in KEYS)


def _orphan_writes(conn: sqlite3.Connection, thread_filter: ThreadFilter) -> list[tuple[str, int]]:
    """How many pending writes of each thread have no checkpoint."""
    same = " AND ".join(f"checkpoints.{column} = writes.{column}" for column in KEYS["checkpoints"])
    checkpoint = select("1", indexed(conn, "checkpoints"), f"WHERE {same}")
    rest = f"WHERE NOT EXISTS ({checkpoint}) GROUP BY thread_id ORDER BY thread_id"
    wanted = select("thread_id, count(*)", indexed(conn, "writes"), rest)
    try:
        with _at_most(conn, SEARCHING):
            found = conn.execute(wanted).fetchall()
    except sqlite3.OperationalError as error:
        if code_of(error) != sqlite3.SQLITE_INTERRUPT:
            raise
        return []
    return [(printable(thread), rows) for thread, rows in found if thread_filter.takes(thread)]
