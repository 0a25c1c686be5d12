"""Streams the rows of an open SQLite database in its own key order, at a constant cost in memory.

SQLite sorts keys by their bytes, a TEXT before every BLOB. An id should be TEXT; one that is a
BLOB is still read, because the export must be able to name it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from ..model import CheckpointRow, Shard, SourceText, WriteRow
from ..settings import ThreadFilter
from .failures import code_of

CHECKPOINT_KEY = ("thread_id", "checkpoint_ns", "checkpoint_id")
WRITE_KEY = (*CHECKPOINT_KEY, "task_id", "idx")
KEYS = {"checkpoints": CHECKPOINT_KEY, "writes": WRITE_KEY}
STORE_KEYS = {"store": ("prefix", "key"), "store_vectors": ("prefix", "key", "field_name")}
ALL_KEYS = {**KEYS, **STORE_KEYS}


class InvalidText(bytes):
    """A TEXT that is not UTF-8; any other `bytes` of a row is a BLOB."""


class Kind(NamedTuple):
    """TEXT ids or BLOB ids: the rows that have them, and how a bound of their type is spelled."""

    rows: str
    bound: str


# A TEXT bound travels as bytes and is cast, since Python cannot bind a TEXT that is not UTF-8.
TEXT_IDS = Kind("thread_id < x''", "CAST(? AS TEXT)")
BLOB_IDS = Kind("thread_id >= x''", "?")


def decode_text(raw: bytes) -> SourceText:
    """The `text_factory` of every connection of this room."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return InvalidText(raw)


def raw(value: SourceText) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def sort_key(value: Any) -> tuple[int, Any]:
    """Where SQLite sorts a key's column: numbers, then TEXT, then BLOB, each by value or bytes."""
    if isinstance(value, str):
        return (1, value.encode())
    if isinstance(value, bytes):
        return (1 if isinstance(value, InvalidText) else 2, bytes(value))
    return (0, value)


def iter_checkpoints(
    conn: sqlite3.Connection, shard: Shard, thread_filter: ThreadFilter, *, alone: bool = False
) -> Iterator[CheckpointRow]:
    """The shard's rows of `checkpoints` by (thread_id, checkpoint_ns, checkpoint_id).

    `alone`: while it goes on, no other thread uses the connection. Then it is quicker.
    """
    columns = ", ".join(CheckpointRow._fields)
    bounds = (bytes.fromhex(shard.first), bytes.fromhex(shard.last))
    rows = _stream(conn, "checkpoints", columns, thread_filter, bounds, alone=alone)
    return map(CheckpointRow._make, rows)


def iter_place(
    conn: sqlite3.Connection, thread_id: str, checkpoint_ns: str
) -> Iterator[CheckpointRow]:
    """The rows of `checkpoints` of one thread in one namespace, by checkpoint_id."""
    columns = ", ".join(CheckpointRow._fields)
    within = "WHERE (thread_id, checkpoint_ns) = (?, ?) ORDER BY checkpoint_id"
    sql = select(columns, indexed(conn, "checkpoints"), within)
    return map(CheckpointRow._make, conn.execute(sql, (thread_id, checkpoint_ns)))


def thread_ids(
    conn: sqlite3.Connection, shard: Shard, thread_filter: ThreadFilter
) -> Iterator[str]:
    """The shard's threads that have checkpoints and an id that is a text."""
    bounds = (bytes.fromhex(shard.first), bytes.fromhex(shard.last))
    within = f"thread_id BETWEEN {TEXT_IDS.bound} AND {TEXT_IDS.bound}"
    for thread in _threads(conn, indexed(conn, "checkpoints"), TEXT_IDS, within, bounds):
        if isinstance(thread, str) and thread_filter.takes(thread):
            yield thread


def iter_writes(
    conn: sqlite3.Connection, shard: Shard, thread_filter: ThreadFilter, *, alone: bool = False
) -> Iterator[WriteRow]:
    """The shard's rows of `writes` by (thread_id, checkpoint_ns, checkpoint_id, task_id, idx).

    `alone` as in `iter_checkpoints`.
    """
    bounds = (bytes.fromhex(shard.first), bytes.fromhex(shard.last))
    rows = _stream(conn, "writes", write_columns(conn), thread_filter, bounds, alone=alone)
    return map(WriteRow._make, rows)


def all_checkpoints(
    conn: sqlite3.Connection, thread_filter: ThreadFilter
) -> Iterator[CheckpointRow]:
    """Every row of `checkpoints` of the threads taken, in SQLite's order."""
    columns = ", ".join(CheckpointRow._fields)
    return map(CheckpointRow._make, _stream(conn, "checkpoints", columns, thread_filter))


def all_writes(conn: sqlite3.Connection, thread_filter: ThreadFilter) -> Iterator[WriteRow]:
    """Every row of `writes` of the threads taken, in SQLite's order."""
    return map(WriteRow._make, _stream(conn, "writes", write_columns(conn), thread_filter))


def columns_of(conn: sqlite3.Connection, table: str) -> list[str]:
    """The names of a table's columns, generated ones included; none for no table."""
    rows = conn.execute("SELECT name FROM pragma_table_xinfo(?, 'main')", (table,))
    return [raw(name).decode("utf-8", "backslashreplace") for (name,) in rows]


def has_saver(conn: sqlite3.Connection) -> bool:
    """Whether the file has one of the saver's tables: a store may have a file of its own."""
    return any(columns_of(conn, table) for table in KEYS)


def write_columns(conn: sqlite3.Connection) -> str:
    names = list(WriteRow._fields)
    if "task_path" not in columns_of(conn, "writes"):
        names[names.index("task_path")] = "''"
    return ", ".join(names)


def key_index(
    conn: sqlite3.Connection, table: str, keys: Mapping[str, tuple[str, ...]] = ALL_KEYS
) -> str | None:
    """The unique index on the table's key, or None where nothing holds the key unique."""
    for name, unique, partial in conn.execute(
        "SELECT name, \"unique\", partial FROM pragma_index_list(?, 'main')", (table,)
    ).fetchall():
        columns = conn.execute(
            "SELECT name FROM pragma_index_xinfo(?, 'main') WHERE key AND coll = 'BINARY'", (name,)
        ).fetchall()
        if unique and not partial and tuple(c for (c,) in columns) == keys[table]:
            return str(name)
    return None


def indexed(
    conn: sqlite3.Connection, table: str, keys: Mapping[str, tuple[str, ...]] = ALL_KEYS
) -> str:
    """The table with its key's index forced, whatever the statistics of an ANALYZE say."""
    index = key_index(conn, table, keys)
    if index is None:
        return table
    name = index.replace('"', '""')
    forced = f'{table} INDEXED BY "{name}"'
    try:
        conn.execute(select("1", forced, "LIMIT 0"))
    except sqlite3.OperationalError:  # WITHOUT ROWID: the table is its own index
        return table
    return forced


def select(what: str, table: str, rest: str = "") -> str:
    """The one place where SQL is put together: from names of this package, never from values."""
    return f"SELECT {what} FROM {table} {rest}"  # noqa: S608 - its callers are in this folder


def has_blob_ids(conn: sqlite3.Connection, table: str) -> bool:
    rest = f"WHERE {BLOB_IDS.rows} LIMIT 1"
    found = conn.execute(select("1", indexed(conn, table), rest)).fetchone()
    return found is not None


def _stream(
    conn: sqlite3.Connection,
    table: str,
    columns: str,
    thread_filter: ThreadFilter,
    bounds: tuple[bytes, bytes] | None = None,
    *,
    alone: bool = False,
) -> Iterator[tuple[Any, ...]]:
    if not has_saver(conn):
        return
    rows_of = _rows_alone if alone else _rows
    source = indexed(conn, table)
    # without the namespace where it is always the same: its index's order is seen only so
    is_today = "checkpoint_ns" in columns_of(conn, table)
    order = ", ".join(c for c in KEYS[table] if is_today or c != "checkpoint_ns")
    for kind in (TEXT_IDS, BLOB_IDS):
        if kind is BLOB_IDS and not has_blob_ids(conn, table):
            continue
        within = kind.rows if bounds is None else f"thread_id BETWEEN {kind.bound} AND {kind.bound}"
        if not thread_filter.globs:
            sql = select(columns, source, f"WHERE {within} ORDER BY {order}")
            yield from rows_of(conn, sql, bounds or ())
            continue
        sql = select(columns, source, f"WHERE thread_id = {kind.bound} ORDER BY {order}")
        for thread in _threads(conn, source, kind, within, bounds or ()):
            if thread_filter.takes(thread):
                yield from rows_of(conn, sql, (raw(thread),))


def _rows(conn: sqlite3.Connection, sql: str, values: tuple[bytes, ...]) -> Iterator[Any]:
    # not `yield from`: given up half-way, it would close a cursor whose connection may be gone
    for row in conn.execute(sql, values):  # noqa: UP028
        yield row


def _rows_alone(conn: sqlite3.Connection, sql: str, values: tuple[bytes, ...]) -> Iterator[Any]:
    """The same, texts decoded by SQLite's module itself, twice as fast, up to one that is no UTF-8."""
    cursor, done = conn.execute(sql, values), 0
    while True:
        conn.text_factory = str  # for this row: others use the connection between two of them
        try:
            row = next(cursor, None)
        except sqlite3.OperationalError as error:
            if code_of(error):
                raise
            break
        finally:
            conn.text_factory = decode_text
        if row is None:
            return
        yield row
        done += 1
    for row in islice(conn.execute(sql, values), done, None):
        yield row


def _threads(
    conn: sqlite3.Connection, source: str, kind: Kind, within: str, bounds: tuple[bytes, ...]
) -> Iterator[SourceText]:
    """The distinct ids, one seek each, so that threads not taken cost nothing."""
    first = select("thread_id", source, f"WHERE {within} ORDER BY thread_id LIMIT 1")
    beyond = f"WHERE {within} AND thread_id > {kind.bound} ORDER BY thread_id LIMIT 1"
    after = select("thread_id", source, beyond)
    found = conn.execute(first, bounds).fetchone()
    while found is not None:
        yield found[0]
        found = conn.execute(after, (*bounds, raw(found[0]))).fetchone()
