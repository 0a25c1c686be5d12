"""The store read back: a sample of its items through `SqliteStore` and `PostgresStore`, held together.

Reading refreshes nothing: both are asked not to, and what PostgreSQL is asked in is rolled back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from langgraph.store.base import Item
from langgraph.store.postgres import PostgresStore
from langgraph.store.sqlite import SqliteStore
from psycopg import sql

from ..findings import Difference
from ..postgres import Connect, transaction
from .equality import first_difference
from .sample import Draw

DOING = "reading the store back"
SAMPLE = 200
LIMIT = 100
PORTION = 20  # items of one transaction

Removed = Callable[[str, str], bool]


@dataclass(frozen=True, slots=True)
class StoreReadBack:
    """What the stores said of the items of the sample; `found` counts all differences."""

    items: int
    found: int
    differences: tuple[Difference, ...]


def read_store_back(
    frozen_path: Path,
    connect: Connect,
    schema: str,
    *,
    seed: str,
    sample: int = SAMPLE,
    removed: Removed | None = None,
) -> StoreReadBack:
    """Compare `sample` items, drawn by `seed` and the items alone, as both stores give them.

    Neither side is changed, and memory does not grow with the store. An item that is missing on live and
    of which `removed(prefix, key)` is true is no difference. What no store can address, such as an item
    whose namespace has an empty label, is left to the comparison of rows.
    """
    with (
        closing(_opened(frozen_path)) as rows,
        closing(_opened(frozen_path)) as conn,
    ):
        rows.text_factory = bytes
        source = SqliteStore(conn)
        source.is_setup = (
            True  # else it would want to make its tables in a file that cannot be written
        )
        draw = Draw(seed, sample)
        for prefix, key in _keys(rows):
            draw.offer((prefix, key, ""))
        reader = _Reader(source, removed)
        drawn = [(prefix, key) for prefix, key, _ in draw.drawn()]
        for start in range(0, len(drawn), PORTION):
            reader.compare(connect, schema, drawn[start : start + PORTION])
    return StoreReadBack(reader.items, reader.found, tuple(reader.differences))


def _opened(frozen: Path) -> sqlite3.Connection:
    uri = f"file:{quote(str(frozen))}?mode=ro&immutable=1"
    return sqlite3.connect(uri, uri=True, isolation_level=None)


def _keys(rows: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """The keys that a store can address: its labels are texts, and none of them is empty."""
    for prefix, key in rows.execute("SELECT prefix, key FROM store ORDER BY prefix, key"):
        try:
            named, keyed = prefix.decode(), key.decode()
        except (AttributeError, UnicodeDecodeError):
            continue
        if all(named.split(".")):
            yield named, keyed


class _Reader:
    """Compares items, and keeps what it found."""

    def __init__(self, source: SqliteStore, removed: Removed | None) -> None:
        self._source = source
        self._removed = removed
        self.items = self.found = 0
        self.differences: list[Difference] = []

    def compare(self, connect: Connect, schema: str, keys: list[tuple[str, str]]) -> None:
        # nothing that a read may have changed is kept
        with transaction(connect, DOING) as conn, conn.transaction(force_rollback=True):
            path = sql.SQL("SET LOCAL search_path = {}").format(sql.Identifier(schema))
            conn.execute(path)
            found = [_get(PostgresStore(conn), *key) for key in keys]
        for (prefix, key), there in zip(keys, found, strict=True):
            self.items += 1
            for column, why in self._differs(prefix, key, there):
                self.found += 1
                if len(self.differences) < LIMIT:
                    self.differences.append(Difference("", prefix, key, "store", column, why))

    def _differs(self, prefix: str, key: str, there: Item | None) -> Iterator[tuple[str, str]]:
        ours = _get(self._source, prefix, key)
        if ours is None:
            yield "", "SqliteStore does not find the item"
        elif there is None:
            if self._removed is None or not self._removed(prefix, key):
                yield "", "PostgresStore does not find the item"
        else:
            if why := first_difference(ours.value, there.value, by_value=True):
                yield "value", f"read through both stores: {why}"
            for column in ("created_at", "updated_at"):
                if _in_utc(getattr(ours, column)) != _in_utc(getattr(there, column)):
                    yield column, "read through both stores, it is another moment"


def _get(store: SqliteStore | PostgresStore, prefix: str, key: str) -> Item | None:
    return store.get(tuple(prefix.split(".")), key, refresh_ttl=False)


def _in_utc(moment: datetime | None) -> datetime | None:
    """SqliteStore's moments say no zone, and mean UTC."""
    if moment is None:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
