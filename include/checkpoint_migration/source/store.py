"""The long-term store that a file may hold: `SqliteStore`'s tables, told apart, counted, streamed.

A vector whose item is gone is nothing to a reader, which joins both; it is counted apart, and not
streamed. SQLite leaves such vectors behind, for `SqliteStore` does not ask it to enforce the key.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

from ..findings import Counts
from ..store_model import ItemRow, StoreInfo, VectorRow
from .rows import STORE_KEYS, columns_of, indexed, key_index, select

STORE, VECTORS = STORE_KEYS
KNOWN = {STORE: ItemRow._fields, VECTORS: VectorRow._fields}
MOST_DIMENSIONS = 5
BYTES_OF_FLOAT = 4
OF_AN_ITEM = """\
WHERE EXISTS (SELECT 1 FROM store WHERE store.prefix = store_vectors.prefix
                 AND store.key = store_vectors.key)"""


def has_store(conn: sqlite3.Connection) -> bool:
    """Whether the file holds the table of a `SqliteStore`; every release made the same one."""
    return _is_ours(conn, STORE)


def _has_vectors(conn: sqlite3.Connection) -> bool:
    return has_store(conn) and _is_ours(conn, VECTORS)


def _is_ours(conn: sqlite3.Connection, table: str) -> bool:
    ordinary = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ? AND rootpage > 0"
    return (
        conn.execute(ordinary, (table,)).fetchone() is not None
        and set(KNOWN[table]).issubset(columns_of(conn, table))
        and key_index(conn, table) is not None
    )


def store_keys(conn: sqlite3.Connection) -> dict[str, tuple[str, ...]]:
    """The store's tables that the file holds, each with its key."""
    there = {STORE: has_store, VECTORS: _has_vectors}
    return {name: key for name, key in STORE_KEYS.items() if there[name](conn)}


def look_at_store(conn: sqlite3.Connection) -> StoreInfo | None:
    """What the store holds, or None where the file has none."""
    if not has_store(conn):
        return None
    (items,) = conn.execute(select("count(*)", "store NOT INDEXED")).fetchone()
    if not _has_vectors(conn):
        return StoreInfo(items)
    vectors = _count_vectors(conn)
    (all_of_them,) = conn.execute(select("count(*)", "store_vectors NOT INDEXED")).fetchone()
    rest = f"{OF_AN_ITEM} LIMIT {MOST_DIMENSIONS}"
    lengths = conn.execute(select("DISTINCT length(embedding)", VECTORS, rest)).fetchall()
    dimensions = sorted((length or 0) // BYTES_OF_FLOAT for (length,) in lengths)
    return StoreInfo(items, vectors, all_of_them - vectors, tuple(dimensions))


def longest_item(conn: sqlite3.Connection) -> int:
    """The bytes of the longest value."""
    if not has_store(conn):
        return 0
    (longest,) = conn.execute(select("max(length(value))", "store NOT INDEXED")).fetchone()
    return longest or 0


def count_store(conn: sqlite3.Connection, tables: tuple[str, ...]) -> Counts:
    """The rows of those of the store's tables that are taken."""
    if STORE not in tables or not has_store(conn):
        return Counts()
    (items,) = conn.execute(select("count(*)", "store NOT INDEXED")).fetchone()
    vectors = _count_vectors(conn) if VECTORS in tables and _has_vectors(conn) else 0
    return Counts(items=items, vectors=vectors)


def _count_vectors(conn: sqlite3.Connection) -> int:
    (vectors,) = conn.execute(
        select("count(*)", indexed(conn, VECTORS), OF_AN_ITEM),
    ).fetchone()
    return int(vectors)


def all_items(conn: sqlite3.Connection) -> Iterator[ItemRow]:
    """Every item by (prefix, key), in SQLite's order; none where the file has no store."""
    if has_store(conn):
        names = ", ".join(ItemRow._fields)
        yield from map(ItemRow._make, _stream(conn, STORE, names, ""))


def all_vectors(conn: sqlite3.Connection) -> Iterator[VectorRow]:
    """Every vector of an item by (prefix, key, field_name), in SQLite's order."""
    if _has_vectors(conn):
        names = ", ".join(VectorRow._fields)
        yield from map(VectorRow._make, _stream(conn, VECTORS, names, OF_AN_ITEM))


def _stream(conn: sqlite3.Connection, table: str, columns: str, where: str) -> Iterator[Any]:
    order = ", ".join(STORE_KEYS[table])
    # not `yield from`: given up half-way, it would close a cursor whose connection may be gone
    for row in conn.execute(select(columns, indexed(conn, table), f"{where} ORDER BY {order}")):  # noqa: UP028
        yield row


def items_with_vectors(
    conn: sqlite3.Connection, tables: tuple[str, ...]
) -> Iterator[tuple[ItemRow, list[VectorRow]]]:
    """Each item with its vectors, where these are taken."""
    vectors = all_vectors(conn) if VECTORS in tables else iter(())
    waiting = next(vectors, None)
    for item in all_items(conn):
        found: list[VectorRow] = []
        while waiting is not None and waiting[:2] == item[:2]:
            found.append(waiting)
            waiting = next(vectors, None)
        yield item, found
    if waiting is not None:
        raise AssertionError("a vector came without its item")


def other_columns(conn: sqlite3.Connection) -> list[str]:
    """The columns of the store's tables that no release of `SqliteStore` makes."""
    return [
        f"{table}.{column}"
        for table in store_keys(conn)
        for column in columns_of(conn, table)
        if column not in KNOWN[table]
    ]


def namespaces(conn: sqlite3.Connection) -> Iterator[tuple[Any, int]]:
    """Each namespace as its text, with its items."""
    if has_store(conn):
        rest = "GROUP BY prefix ORDER BY prefix"
        yield from conn.execute(select("prefix, count(*)", indexed(conn, STORE), rest))
