"""The store's tables as PostgreSQL has them: columns, keys, and which of them a staging schema has.

They are `PostgresStore`'s, LangGraph's long-term memory; `tables.py` has the saver's. A run whose source
has no store has none of them in staging.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from .findings import Counts
from .postgres import Connect, transaction
from .tables import as_counts, columns, count_rows, table

STORE, VECTORS = "store", "store_vectors"

# As PostgresStore.setup() leaves them; a test holds this against the real setup(). A trailing "!" marks
# NOT NULL. The type of `embedding` is pgvector's.
DECLARED: dict[str, dict[str, str]] = {
    STORE: {
        "prefix": "text!",
        "key": "text!",
        "value": "jsonb!",
        "created_at": "timestamp with time zone",
        "updated_at": "timestamp with time zone",
        "expires_at": "timestamp with time zone",
        "ttl_minutes": "integer",
    },
    VECTORS: {
        "prefix": "text!",
        "key": "text!",
        "field_name": "text!",
        "embedding": "vector",
        "created_at": "timestamp with time zone",
        "updated_at": "timestamp with time zone",
    },
}

# In this order, for the vectors refer to their items.
KEYS = {STORE: ("prefix", "key"), VECTORS: ("prefix", "key", "field_name")}
COLUMNS = {name: tuple(DECLARED[name]) for name in KEYS}


def staged_tables(conn: psycopg.Connection[Any], schema: str) -> tuple[str, ...]:
    """Those of the store's tables that a staging schema has."""
    return tuple(name for name in KEYS if is_there(conn, schema, name))


def readable_tables(conn: psycopg.Connection[Any], schema: str) -> tuple[str, ...]:
    """Those of the store's tables that a schema has and this role may read."""
    asked = "SELECT has_table_privilege(to_regclass(%s), 'SELECT')"  # NULL where there is none
    names = {name: table(schema, name).as_string(None) for name in KEYS}
    return tuple(
        n for n, quoted in names.items() if conn.execute(asked, (quoted,)).fetchone() == (True,)
    )


def is_there(conn: psycopg.Connection[Any], schema: str, name: str) -> bool:
    qualified = table(schema, name).as_string(None)
    return conn.execute("SELECT to_regclass(%s)", (qualified,)).fetchone() != (None,)


def count(conn: psycopg.Connection[Any], schema: str) -> Counts:
    """The rows of the store's tables that a staging schema has."""
    there = staged_tables(conn, schema)
    return as_counts({name: count_rows(conn, table(schema, name)) for name in there})


def analyze(connect: Connect, schema: str) -> None:
    """Let the planner know the sizes of the staging tables before they are joined."""
    with transaction(connect, "analyzing the store's tables", lock_timeout_ms=0) as conn:
        for name in staged_tables(conn, schema):
            keys = columns(KEYS[name])
            conn.execute(sql.SQL("ANALYZE {} ({})").format(table(schema, name), keys))
