"""The ledger: which run owns a target, what its batches committed, what was promoted.

It lives in the target database, in the schema `checkpoint_migration`, so that a receipt commits or
vanishes together with the rows that it is about. It is no record of how a step went or what it
found: that is the journal's, in the run's folder. A run is *superseded* once another took over: its
row is locked and looked at in every transaction that commits, so a zombie's commit has no effect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import msgspec
import psycopg
from psycopg import sql

from ..errors import RunSuperseded
from ..postgres import Connect, transaction
from . import receipts, store_ledger, undo_ledger

RunState = Literal["running", "promoted", "done", "superseded", "undone"]

TABLES = """
CREATE SCHEMA IF NOT EXISTS checkpoint_migration;
CREATE TABLE IF NOT EXISTS checkpoint_migration.runs (
    run_key text PRIMARY KEY,
    dag_id text NOT NULL,
    run_id text NOT NULL,
    source text NOT NULL,
    live_schema text NOT NULL,
    staging_schema text NOT NULL,
    fence bigint NOT NULL,
    state text NOT NULL CHECK (state IN ({states})),
    started timestamptz NOT NULL DEFAULT now(),
    finished timestamptz,
    promotion jsonb,
    result jsonb
);
CREATE TABLE IF NOT EXISTS checkpoint_migration.leases (
    live_schema text PRIMARY KEY,
    run_key text NOT NULL,
    fence bigint NOT NULL,
    until timestamptz NOT NULL,
    beats bigint NOT NULL DEFAULT 0,
    owner text
);
CREATE TABLE IF NOT EXISTS checkpoint_migration.batches (
    run_key text NOT NULL,
    shard integer NOT NULL,
    batch integer NOT NULL,
    sha256 text NOT NULL,
    checkpoints bigint NOT NULL,
    writes bigint NOT NULL,
    blobs bigint NOT NULL,
    loaded timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_key, shard, batch)
);
CREATE TABLE IF NOT EXISTS checkpoint_migration.verified (
    run_key text NOT NULL,
    shard integer NOT NULL,
    manifest_sha256 text NOT NULL,
    verified timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_key, shard)
);
CREATE TABLE IF NOT EXISTS checkpoint_migration.originals (
    run_key text NOT NULL,
    thread_id text NOT NULL,
    checkpoint_ns text NOT NULL,
    checkpoint_id text NOT NULL,
    column_name text NOT NULL,
    original bytea NOT NULL,
    PRIMARY KEY (run_key, thread_id, checkpoint_ns, checkpoint_id, column_name)
);
CREATE TABLE IF NOT EXISTS checkpoint_migration.promoted (
    live_schema text NOT NULL,
    thread_id text NOT NULL,
    checkpoint_ns text NOT NULL,
    checkpoint_id text NOT NULL,
    run_key text NOT NULL,
    source text NOT NULL,
    orphan boolean NOT NULL,
    digest bytea,
    PRIMARY KEY (live_schema, thread_id, checkpoint_ns, checkpoint_id)
);
""".format(states=", ".join(f"'{state}'" for state in get_args(RunState)))


class Original(NamedTuple):
    """What a value was before it was sanitised; of an item of the store, namespace and key say which."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    column: str
    value: bytes


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as the ledger knows it."""

    run_key: str
    fence: int
    state: RunState
    promotion: dict[str, Any] | None
    result: dict[str, Any] | None


Conn = psycopg.Connection[Any]

FIND_RUN = """
SELECT run_key, fence, CASE WHEN {undone} THEN 'undone' ELSE state END, promotion, result
  FROM checkpoint_migration.runs
 WHERE run_key = %s
""".format(undone=undo_ledger.IS_UNDONE.format("runs.run_key"))
KEEP_ORIGINAL = """
INSERT INTO checkpoint_migration.originals (run_key, thread_id, checkpoint_ns, checkpoint_id,
                                            column_name, original)
VALUES (%s, %s, %s, %s, %s, %s)
    ON CONFLICT (run_key, thread_id, checkpoint_ns, checkpoint_id, column_name)
    DO UPDATE SET original = excluded.original
"""
ORIGINALS = """
SELECT thread_id, checkpoint_ns, checkpoint_id, original
  FROM checkpoint_migration.originals
 WHERE run_key = %s AND column_name = 'metadata'
"""
MARK_VERIFIED = """\
INSERT INTO checkpoint_migration.verified (run_key, shard, manifest_sha256) VALUES (%s, %s, %s)
    ON CONFLICT (run_key, shard) DO UPDATE
   SET manifest_sha256 = excluded.manifest_sha256, verified = now()
"""
MARK_PROMOTED = """\
UPDATE checkpoint_migration.runs SET state = 'promoted', promotion = %s WHERE run_key = %s
"""
FINISH = """
UPDATE checkpoint_migration.runs
   SET finished = now(), result = %s,
       state = CASE WHEN state = 'promoted' AND %s THEN 'done' ELSE state END
 WHERE run_key = %s AND state <> 'superseded'
"""
LET_GO = """
UPDATE checkpoint_migration.leases SET until = '-infinity', owner = NULL WHERE run_key = %s
"""


def find_in(conn: Conn, key: str) -> RunRow | None:
    """The same over a connection that is open."""
    row = conn.execute(FIND_RUN, (key,)).fetchone()
    return RunRow(*row) if row else None


def is_there(conn: Conn) -> bool:
    """Whether this target has a ledger yet, of this release or a later one."""
    return conn.execute("SELECT to_regclass('checkpoint_migration.undone')").fetchone() != (None,)


def find_run(connect: Connect, key: str) -> RunRow | None:
    """The run's row, or None where the ledger does not know it."""
    with transaction(connect, "reading the ledger", read_only=True) as conn:
        return find_in(conn, key) if is_there(conn) else None


def is_promoted(connect: Connect, key: str) -> bool:
    """Whether rows of the run are live; a COMMIT that is still at work is waited for.

    A task may have been interrupted or killed in it, and its answer tell nobody.
    """
    with transaction(connect, "asking whether the run is live") as conn:
        row = conn.execute(FIND_RUN + "FOR SHARE", (key,)).fetchone() if is_there(conn) else None
    return row is not None and row[2] in ("promoted", "done")


def hold(conn: Conn, key: str) -> RunRow:
    """Lock the run's row for the rest of this transaction; raise where the run may not commit."""
    row = conn.execute(FIND_RUN + "FOR UPDATE", (key,)).fetchone()
    if row is None or row[2] == "superseded":
        raise RunSuperseded(
            "a newer run took over this target.",
            safe="the source is untouched; nothing of this run is live.",
            next="look at the newer run; trigger a new one if there is none.",
            run=key,
        )
    undo_ledger.refuse_undone(row[2], key)
    return RunRow(*row)


def take_turn(conn: Conn, key: str, shard: int, batch: int) -> None:
    """Wait, to the end of this transaction, for another try of the same batch: one of both copies it."""
    conn.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended(%s, %s))", (f"{key}/{shard}", batch)
    )


def void_receipts(conn: Conn, key: str) -> None:
    """Forget every receipt of a run, and what was verified: its staging is not there any more."""
    receipts.CHECKPOINTS.void(conn, key)
    conn.execute("DELETE FROM checkpoint_migration.verified WHERE run_key = %s", (key,))
    if store_ledger.is_there(conn):
        receipts.ITEMS.void(conn, key)


def keep_original(conn: Conn, key: str, original: Original) -> None:
    """Keep the bytes of a value that had to be sanitised."""
    conn.execute(KEEP_ORIGINAL, (key, *original))


def originals_of(conn: Conn, key: str) -> dict[tuple[str, str, str], bytes]:
    """The metadata that was sanitised, by thread, namespace and checkpoint."""
    rows = conn.execute(ORIGINALS, (key,))
    return {(thread, ns, checkpoint): bytes(original) for thread, ns, checkpoint, original in rows}


def mark_verified(connect: Connect, key: str, shard: int, manifest_sha256: str) -> None:
    """Record that a shard in staging was proven equal, as its manifest claims it."""
    with transaction(connect, "recording a verified shard") as conn:
        hold(conn, key)
        conn.execute(MARK_VERIFIED, (key, shard, manifest_sha256))


def verified_shards(conn: Conn, key: str) -> dict[int, str]:
    """The shards that were proven, each with its manifest's SHA-256."""
    rows = conn.execute(
        "SELECT shard, manifest_sha256 FROM checkpoint_migration.verified WHERE run_key = %s",
        (key,),
    )
    return dict(rows.fetchall())


def mark_promoted(conn: Conn, key: str, promotion: Any) -> None:
    """Within the promoting transaction: keep what it did."""
    conn.execute(MARK_PROMOTED, (msgspec.json.encode(promotion).decode(), key))


def analyze_promoted(connect: Connect) -> None:
    """Let the planner know how much is recorded: guessing it to be little, it would join row by row."""
    with transaction(connect, "analyzing the ledger") as conn:
        conn.execute("ANALYZE checkpoint_migration.promoted")
        if store_ledger.is_there(conn):
            conn.execute("ANALYZE checkpoint_migration.promoted_items")


def finish(connect: Connect, key: str, result: Any, *, done: bool) -> None:
    """Let go of the lease and keep the result; `done` closes a promoted run for good.

    A run that failed may still be gone on with, by clearing its tasks, until another takes over.
    """
    with transaction(connect, "closing the run in the ledger") as conn:
        if not is_there(conn):  # the run was refused before it had a ledger
            return
        conn.execute(FINISH, (msgspec.json.encode(result).decode(), done, key))
        conn.execute(LET_GO, (key,))


def drop_schema(connect: Connect, name: str) -> None:
    """Drop one of our own schemas, staging or scratch; a name that is not ours is an error."""
    if not name.startswith(("checkpoint_migration_", "checkpoint_rehearsal_")):
        raise ValueError("not a schema of ours")
    with transaction(connect, "dropping staging") as conn:
        conn.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)))
