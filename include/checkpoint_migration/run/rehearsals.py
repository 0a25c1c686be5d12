"""What a rehearsal leaves behind: its record, a row of the ledger, for those that come after it."""

from __future__ import annotations

from typing import Any

import msgspec
import psycopg

from ..postgres import Connect, transaction
from ..rehearsal import Rehearsal
from ..settings import Settings
from . import ledger, store_ledger, undo_ledger

TABLE = """
CREATE TABLE IF NOT EXISTS checkpoint_migration.rehearsals (
    run_key text PRIMARY KEY,
    source text NOT NULL,
    target_schema text NOT NULL,
    started timestamptz NOT NULL,
    record jsonb NOT NULL
);
"""
KEEP = """
INSERT INTO checkpoint_migration.rehearsals (run_key, source, target_schema, started, record)
VALUES (%s, %s, %s, %s, %s)
    ON CONFLICT (run_key) DO UPDATE SET started = excluded.started, record = excluded.record
"""
PAST = """
SELECT record
  FROM checkpoint_migration.rehearsals
 WHERE source = %s AND target_schema = %s AND run_key <> %s
 ORDER BY started DESC
 LIMIT %s
"""
FORGET_LEASE = """
DELETE FROM checkpoint_migration.leases AS l
 USING checkpoint_migration.runs AS r
 WHERE l.live_schema = %s AND r.run_key = %s AND r.state = 'done'
"""
RECORD = "SELECT record FROM checkpoint_migration.rehearsals WHERE run_key = %s"
LOOKED_BACK = 52  # a year of weeks


def keep_record(connect: Connect, settings: Settings, rehearsal: Rehearsal) -> None:
    """Keep a rehearsal's record, where the target has a ledger; one that is written again stays one."""
    with transaction(connect, "keeping the rehearsal's record") as conn:
        if _is_there(conn):
            record = msgspec.json.encode(rehearsal).decode()
            place = (settings.key, settings.source, settings.target_schema, rehearsal.started)
            conn.execute(KEEP, (*place, record))


def past_rehearsals(connect: Connect, settings: Settings) -> tuple[Rehearsal, ...]:
    """Other rehearsals of the same source into the same tables, the oldest first, a year of weeks at most."""
    with transaction(connect, "looking for past rehearsals", read_only=True) as conn:
        if not _is_there(conn):
            return ()
        asked = (settings.source, settings.target_schema, settings.key, LOOKED_BACK)
        found = conn.execute(PAST, asked).fetchall()
    return tuple(msgspec.convert(record, Rehearsal) for (record,) in reversed(found))


def recorded_rehearsal(connect: Connect, settings: Settings) -> Rehearsal | None:
    """What is recorded of this very run, if anything."""
    with transaction(connect, "looking for this rehearsal's record", read_only=True) as conn:
        found = conn.execute(RECORD, (settings.key,)).fetchone() if _is_there(conn) else None
    return None if found is None else msgspec.convert(found[0], Rehearsal)


def drop_rehearsal(connect: Connect, key: str, live_schema: str) -> None:
    """Drop a rehearsal's scratch schema, and the rows of the ledger that speak of its rows.

    A rehearsal that is done keeps nobody waiting any more: its place in the queue goes, too.
    """
    ledger.drop_schema(connect, live_schema)
    with transaction(connect, "forgetting what was rehearsed") as conn:
        if not ledger.is_there(conn):
            return
        conn.execute(
            "DELETE FROM checkpoint_migration.promoted WHERE live_schema = %s", (live_schema,)
        )
        conn.execute("DELETE FROM checkpoint_migration.originals WHERE run_key = %s", (key,))
        ledger.void_receipts(conn, key)
        store_ledger.forget_schema(conn, live_schema)
        undo_ledger.forget(conn, key)
        conn.execute(FORGET_LEASE, (live_schema, key))


def _is_there(conn: psycopg.Connection[Any]) -> bool:
    found = conn.execute("SELECT to_regclass('checkpoint_migration.rehearsals')").fetchone()
    return found != (None,)
