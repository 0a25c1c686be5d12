"""Stores as applications make them: written by the real `SqliteStore`, read by both real stores."""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langgraph.store.base import GetOp, ListNamespacesOp, PutOp, SearchOp
from langgraph.store.postgres import PostgresStore
from langgraph.store.sqlite import SqliteStore
from psycopg.rows import dict_row

DIMENSIONS = 8
WORDS = ("tee", "kaffee", "Straße", "東京", "naïve", "🍵", "x'y", 'quo"te', "back\\slash", "%_like")
Key = tuple[tuple[str, ...], str]


def embed(texts: list[str]) -> list[list[float]]:
    """Vectors that say nothing of meaning, and are the same for the same text."""
    found = []
    for text in texts:
        numbers = [byte - 128 for byte in hashlib.sha256(text.encode()).digest()[:DIMENSIONS]]
        length = math.sqrt(sum(n * n for n in numbers)) or 1.0
        found.append([n / length for n in numbers])
    return found


def index_config(dimensions: int = DIMENSIONS) -> Any:
    return {"dims": dimensions, "embed": embed, "fields": ["text"]}


@contextmanager
def sqlite_store(path: Path, **options: Any) -> Iterator[SqliteStore]:
    """The application's own store; what it writes is there once the block ends."""
    conn = _module(options).connect(path, check_same_thread=False, isolation_level=None)
    try:
        conn.execute("PRAGMA synchronous=OFF")
        store = SqliteStore(conn, **options)
        store.setup()
        yield store
    finally:
        conn.close()


def _module(options: dict[str, Any]) -> Any:
    """Python's sqlite3, or one like it where Python was built without what loads sqlite-vec."""
    if "index" not in options or hasattr(sqlite3.Connection, "enable_load_extension"):
        return sqlite3
    return pytest.importorskip("pysqlite3", reason="this Python's sqlite3 loads no extensions")


@contextmanager
def postgres_store(dsn: str, schema: str = "public", **options: Any) -> Iterator[PostgresStore]:
    """The application's own store on PostgreSQL."""
    with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as conn:
        conn.execute(f'SET search_path = "{schema}", public'.encode())
        yield PostgresStore(conn, **options)


def write_many(store: SqliteStore, number: int) -> None:
    """Items in nested namespaces, with unicode in every part, some of which expire."""
    ops = [_put(n) for n in range(number)]
    for start in range(0, number, 500):
        store.batch(ops[start : start + 500])


def _put(n: int) -> PutOp:
    word = WORDS[n % len(WORDS)]
    namespace = ("users", f"u{n % 97}", *((word,) if n % 3 else ()), *(("deep", "er") * (n % 2)))
    value: dict[str, Any] = {
        "n": n,
        "text": f"{word} {n}",
        "kind": "even" if n % 2 == 0 else "odd",
        "ok": n % 5 == 0,
        "nested": {"list": [n, None, word, {"deep": -n / 4}], "empty": {}},
        word: None,
    }
    return PutOp(namespace, f"{word}/{n}", value, ttl=float(n % 7 + 1) * 60 if n % 7 < 3 else None)


def keys_of(path: Path) -> list[Key]:
    with sqlite3.connect(path) as conn:
        rows = conn.execute("SELECT prefix, key FROM store ORDER BY 1, 2").fetchall()
    return [(tuple(prefix.split(".")), key) for prefix, key in rows]


def everything_in(store: SqliteStore | PostgresStore, keys: list[Key]) -> dict[Key, Any]:
    """Each item as the store gives it: types of JSON count, moments are in UTC."""
    found: dict[Key, Any] = {}
    for start in range(0, len(keys), 500):
        ops = [GetOp(namespace, key, refresh_ttl=False) for namespace, key in keys[start:][:500]]
        for item in store.batch(ops):
            if item is not None:
                found[item.namespace, item.key] = (  # type: ignore[union-attr]
                    json.dumps(item.value, sort_keys=True),  # type: ignore[union-attr]
                    _utc(item.created_at),  # type: ignore[union-attr]
                    _utc(item.updated_at),  # type: ignore[union-attr]
                )
    return found


def asked(store: SqliteStore | PostgresStore, op: SearchOp | ListNamespacesOp) -> Any:
    """The answer to one question, in an order of its own: both stores sort by other rules."""
    (answer,) = store.batch([op])
    if isinstance(op, ListNamespacesOp):
        return sorted(answer)  # type: ignore[type-var, arg-type]
    return sorted((i.namespace, i.key, json.dumps(i.value, sort_keys=True)) for i in answer)  # type: ignore[union-attr]


def moments_of_sqlite(path: Path) -> dict[tuple[str, str], Any]:
    """When each item expires, and its minutes, from SQLite's own columns."""
    with sqlite3.connect(path) as conn:
        rows = conn.execute("SELECT prefix, key, expires_at, ttl_minutes FROM store").fetchall()
    return {
        (prefix, key): (None if at is None else _utc(datetime.fromisoformat(at)), minutes)
        for prefix, key, at, minutes in rows
    }


def moments_of_postgres(dsn: str, schema: str = "public") -> dict[tuple[str, str], Any]:
    with psycopg.connect(dsn) as conn:
        rows = conn.execute(
            f'SELECT prefix, key, expires_at, ttl_minutes FROM "{schema}".store'.encode()
        ).fetchall()
    return {
        (prefix, key): (None if at is None else at.astimezone(UTC), minutes)
        for prefix, key, at, minutes in rows
    }


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
