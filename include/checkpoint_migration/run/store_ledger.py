"""The store's part of the ledger: what its batches committed, and which of its items were promoted.

A receipt commits or vanishes together with its rows. Items are told apart by a digest of what was live
when they were promoted: so a later run knows what the application has removed since.
"""

from __future__ import annotations

from typing import Any

import psycopg

from ..findings import Counts
from ..model import Receipt
from ..store_model import TargetItem

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
WRITE_RECEIPT = """\
INSERT INTO checkpoint_migration.store_batches (run_key, shard, batch, sha256, items, vectors)
VALUES (%s, %s, %s, %s, %s, %s)
"""
FIND_RECEIPT = """
SELECT items, vectors
  FROM checkpoint_migration.store_batches
 WHERE run_key = %s AND shard = %s AND batch = %s AND sha256 = %s
"""
TOTAL = """
SELECT coalesce(sum(items), 0)::bigint, coalesce(sum(vectors), 0)::bigint
  FROM checkpoint_migration.store_batches
 WHERE run_key = %s
"""
KEEP_ORIGINAL = """
INSERT INTO checkpoint_migration.originals (run_key, thread_id, checkpoint_ns, checkpoint_id,
                                            column_name, original)
VALUES (%s, '', %s, %s, 'store.ttl_minutes', convert_to(%s, 'UTF8'))
    ON CONFLICT (run_key, thread_id, checkpoint_ns, checkpoint_id, column_name)
    DO UPDATE SET original = excluded.original
"""
Conn = psycopg.Connection[Any]


def is_there(conn: Conn) -> bool:
    """Whether the ledger has the store's part: one that an earlier release made lacks it for a while."""
    found = conn.execute("SELECT to_regclass('checkpoint_migration.promoted_items')").fetchone()
    return found != (None,)


def write_receipt(
    conn: Conn, key: str, shard: int, batch: int, sha256: str, counts: Counts
) -> None:
    conn.execute(WRITE_RECEIPT, (key, shard, batch, sha256, counts.items, counts.vectors))


def find_receipt(conn: Conn, key: str, shard: int, batch: int, sha256: str) -> Receipt | None:
    """The receipt of a batch with this content, if it was committed."""
    row = conn.execute(FIND_RECEIPT, (key, shard, batch, sha256)).fetchone()
    return Receipt(shard, batch, Counts(0, 0, 0, *row), already_done=True) if row else None


def receipts_total(conn: Conn, key: str) -> Counts:
    """What all receipts of a run's store say together."""
    row = conn.execute(TOTAL, (key,)).fetchone()
    assert row is not None
    return Counts(0, 0, 0, *row)


def keep_original(conn: Conn, key: str, row: TargetItem) -> None:
    """Keep the minutes that had to be rounded."""
    conn.execute(KEEP_ORIGINAL, (key, row.prefix, row.key, row.original_minutes))


def void_receipts(conn: Conn, key: str) -> None:
    """Forget every receipt of a run's store: its staging is not there any more."""
    if not is_there(conn):
        return
    conn.execute("DELETE FROM checkpoint_migration.store_batches WHERE run_key = %s", (key,))


def forget_schema(conn: Conn, live_schema: str) -> None:
    """Forget which items were promoted into a schema: it was a rehearsal's, and is gone."""
    if not is_there(conn):
        return
    conn.execute(
        "DELETE FROM checkpoint_migration.promoted_items WHERE live_schema = %s", (live_schema,)
    )
