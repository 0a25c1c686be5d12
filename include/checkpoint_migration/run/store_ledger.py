"""The store's part of the ledger: its tables, for receipts of its batches and for items that were promoted.

Items are told apart by a digest of what was live when they were promoted: so a later run knows what the
application has removed since.
"""

from __future__ import annotations

from typing import Any

import psycopg

TABLES = """
CREATE TABLE IF NOT EXISTS checkpoint_migration.store_batches (
    run_key text NOT NULL,
    shard integer NOT NULL,
    batch integer NOT NULL,
    sha256 text NOT NULL,
    items bigint NOT NULL,
    vectors bigint NOT NULL,
    loaded timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_key, shard, batch)
);
CREATE TABLE IF NOT EXISTS checkpoint_migration.promoted_items (
    live_schema text NOT NULL,
    prefix text NOT NULL,
    key text NOT NULL,
    run_key text NOT NULL,
    source text NOT NULL,
    expires_at timestamptz,
    digest bytea NOT NULL,
    PRIMARY KEY (live_schema, prefix, key)
);
"""
Conn = psycopg.Connection[Any]


def is_there(conn: Conn) -> bool:
    """Whether the ledger has the store's part: one that an earlier release made lacks it for a while."""
    found = conn.execute("SELECT to_regclass('checkpoint_migration.promoted_items')").fetchone()
    return found != (None,)


def forget_schema(conn: Conn, live_schema: str) -> None:
    """Forget which items were promoted into a schema: it was a rehearsal's, and is gone."""
    if not is_there(conn):
        return
    conn.execute(
        "DELETE FROM checkpoint_migration.promoted_items WHERE live_schema = %s", (live_schema,)
    )
