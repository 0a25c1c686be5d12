"""The saver's tables as PostgreSQL has them: columns, keys, and the few statements all stages share.

The oracle (`verify/`) keeps facts of its own: it is not to share an error with those who load.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from .findings import Counts
from .postgres import Connect, transaction

MIGRATIONS = "checkpoint_migrations"

# As PostgresSaver.setup() leaves them at version 9; a test holds this against the real setup().
# A trailing "!" marks NOT NULL.
DECLARED: dict[str, dict[str, str]] = {
    MIGRATIONS: {"v": "integer!"},
    "checkpoint_blobs": {
        "thread_id": "text!",
        "checkpoint_ns": "text!",
        "channel": "text!",
        "version": "text!",
        "type": "text!",
        "blob": "bytea",
    },
    "checkpoints": {
        "thread_id": "text!",
        "checkpoint_ns": "text!",
        "checkpoint_id": "text!",
        "parent_checkpoint_id": "text",
        "type": "text",
        "checkpoint": "jsonb!",
        "metadata": "jsonb!",
    },
    "checkpoint_writes": {
        "thread_id": "text!",
        "checkpoint_ns": "text!",
        "checkpoint_id": "text!",
        "task_id": "text!",
        "idx": "integer!",
        "task_path": "text!",
        "channel": "text!",
        "type": "text",
        "blob": "bytea!",
    },
}

# In the order in which `put` writes them, so that nobody waits for us in a circle: blobs come first.
KEYS = {
    "checkpoint_blobs": ("thread_id", "checkpoint_ns", "channel", "version"),
    "checkpoints": ("thread_id", "checkpoint_ns", "checkpoint_id"),
    "checkpoint_writes": ("thread_id", "checkpoint_ns", "checkpoint_id", "task_id", "idx"),
}

PRIMARY_KEYS = {MIGRATIONS: ("v",), **KEYS}

# What a migration writes. The saver itself leaves `checkpoints.type` NULL.
COLUMNS = {
    name: tuple(c for c in DECLARED[name] if (name, c) != ("checkpoints", "type")) for name in KEYS
}


def table(schema: str, name: str) -> sql.Identifier:
    """The qualified, quoted name of a table."""
    return sql.Identifier(schema, name)


def columns(names: tuple[str, ...], alias: str | None = None) -> sql.Composed:
    """Columns, quoted and joined by commas."""
    prefix = () if alias is None else (alias,)
    return sql.SQL(", ").join(sql.Identifier(*prefix, name) for name in names)


def count_rows(conn: psycopg.Connection[Any], from_where: sql.Composable) -> int:
    """How many rows `FROM … WHERE …` has."""
    row = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(from_where)).fetchone()
    return int(row[0]) if row else 0


def count(conn: psycopg.Connection[Any], schema: str) -> Counts:
    """The rows of the three tables of a schema."""
    return as_counts({name: count_rows(conn, table(schema, name)) for name in KEYS})


def as_counts(found: dict[str, int]) -> Counts:
    """Rows by table as counts; a table that is not named has none."""
    names = ("checkpoints", "checkpoint_writes", "checkpoint_blobs", "store", "store_vectors")
    return Counts(*(found.get(name, 0) for name in names))


BYTES_OF_SCHEMAS = """
SELECT coalesce((SELECT sum(pg_total_relation_size(c.oid))
                   FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                  WHERE n.nspname = asked.name AND c.relkind = 'r'), 0)
  FROM unnest(%s::text[]) WITH ORDINALITY AS asked (name, place)
 ORDER BY asked.place
"""


def by_table(counts: Counts) -> dict[str, int]:
    """Counts as rows by table, the store's too."""
    return {
        "checkpoint_blobs": counts.blobs or 0,
        "checkpoints": counts.checkpoints,
        "checkpoint_writes": counts.writes,
        "store": counts.items,
        "store_vectors": counts.vectors,
    }


def are_there(conn: psycopg.Connection[Any], schema: str) -> bool:
    """Whether a schema has all three tables."""
    names = [table(schema, name).as_string(None) for name in KEYS]
    row = conn.execute(
        "SELECT bool_and(to_regclass(name) IS NOT NULL) FROM unnest(%s::text[]) AS t (name)",
        (names,),
    ).fetchone()
    return row == (True,)


def analyze(connect: Connect, schema: str) -> None:
    """Let the planner know the tables' sizes before they are joined, or after they grew.

    The columns of keys suffice, and a small sample of them: values would be fetched for nothing.
    """
    with transaction(connect, "analyzing tables", lock_timeout_ms=0) as conn:
        conn.execute("SET LOCAL default_statistics_target = 10")
        for name, key in KEYS.items():
            statement = sql.SQL("ANALYZE {} ({})")
            conn.execute(statement.format(table(schema, name), columns(key)))


def bytes_of_schemas(connect: Connect, *schemas: str) -> list[int]:
    """What the tables of each schema take with their indexes and TOAST; 0 for one that is not there."""
    with transaction(connect, "asking for the tables' sizes", read_only=True) as conn:
        found = conn.execute(BYTES_OF_SCHEMAS, (list(schemas),)).fetchall()
    return [int(size) for (size,) in found]
