"""Staging: this run's own schema, where batches are copied before anything is live."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg import sql

from ..errors import ExportCorrupted, StagingLost
from ..model import BatchEntry, Counts, Receipt, TargetCheckpoint
from ..postgres import Connect, connection, table, transaction
from ..run import ledger
from ..settings import Settings

FLUSH_BYTES = 16 << 20
JSONB_HEADER = b"\x01"

KEYS = {
    "checkpoint_blobs": ("thread_id", "checkpoint_ns", "channel", "version"),
    "checkpoints": ("thread_id", "checkpoint_ns", "checkpoint_id"),
    "checkpoint_writes": ("thread_id", "checkpoint_ns", "checkpoint_id", "task_id", "idx"),
}
COLUMNS = {
    "checkpoint_blobs": (*KEYS["checkpoint_blobs"], "type", "blob"),
    "checkpoints": (*KEYS["checkpoints"], "parent_checkpoint_id", "checkpoint", "metadata"),
    "checkpoint_writes": (*KEYS["checkpoint_writes"], "task_path", "channel", "type", "blob"),
}
# JSONB's binary form is a version byte and the text, so bytes of ours go in unparsed on this side
_TYPES = {
    "checkpoint_blobs": ("text",) * 5 + ("bytea",),
    "checkpoints": ("text",) * 4 + ("bytea", "bytea"),
    "checkpoint_writes": ("text",) * 4 + ("int4", "text", "text", "text", "bytea"),
}
_NUMBERS = {"idx"}


def key_order(name: str, alias: str = "") -> sql.Composed:
    """The columns of a table's key, for ORDER BY, in byte order whatever the database's collation."""
    parts = [
        sql.SQL("{}" if column in _NUMBERS else '{} COLLATE "C"').format(
            sql.Identifier(alias, column) if alias else sql.Identifier(column)
        )
        for column in KEYS[name]
    ]
    return sql.SQL(", ").join(parts)


def prepare(connect: Connect, settings: Settings) -> None:
    """Make this run's staging where it is not there or was lost; receipts of a lost one are void.

    Unlogged tables are emptied when the server crashes, and receipts are not: the sentinel row, in
    an unlogged table too, is missing then.
    """
    schema = settings.staging_schema
    with transaction(connect, "making staging") as conn:
        ledger.hold(conn, settings.key)
        if _is_whole(conn, schema):
            return
        ledger.void_receipts(conn, settings.key)
        conn.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))
        conn.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        lz4 = _has_lz4(conn)
        for name in KEYS:
            conn.execute(
                sql.SQL("CREATE UNLOGGED TABLE {} (LIKE {} INCLUDING DEFAULTS)").format(
                    table(schema, name), table(settings.live_schema, name)
                )
            )
            conn.execute(
                sql.SQL("CREATE UNIQUE INDEX ON {} ({})").format(
                    table(schema, name), key_order(name)
                )
            )
            if lz4:
                for column in {"blob", "checkpoint", "metadata"} & set(COLUMNS[name]):
                    conn.execute(
                        sql.SQL("ALTER TABLE {} ALTER COLUMN {} SET COMPRESSION lz4").format(
                            table(schema, name), sql.Identifier(column)
                        )
                    )
        conn.execute(
            sql.SQL("CREATE UNLOGGED TABLE {} AS SELECT 1 AS whole").format(
                table(schema, "sentinel")
            )
        )


def _has_lz4(conn: psycopg.Connection[Any]) -> bool:
    row = conn.execute(
        "SELECT 'lz4' = ANY(enumvals) FROM pg_settings WHERE name = 'default_toast_compression'"
    ).fetchone()
    return bool(row and row[0])


def _is_whole(conn: psycopg.Connection[Any], schema: str) -> bool:
    name = table(schema, "sentinel")
    if conn.execute("SELECT to_regclass(%s)", (name.as_string(None),)).fetchone() == (None,):
        return False
    found = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(name)).fetchone()
    return found == (1,)


def is_whole(connect: Connect, settings: Settings) -> bool:
    """Whether staging is there and was not emptied by a crash."""
    with connection(connect, "looking at staging") as conn:
        return _is_whole(conn, settings.staging_schema)


def load(
    connect: Connect,
    settings: Settings,
    shard: int,
    number: int,
    batch: BatchEntry,
    rows: Iterable[TargetCheckpoint],
) -> Receipt:
    """Copy one batch into staging with its receipt, in one transaction, once.

    `rows` is not read where the receipt is there already.
    """
    with transaction(connect, f"loading batch {number} of export {shard:04}") as conn:
        if not _is_whole(conn, settings.staging_schema):
            raise StagingLost(
                "staging is not there any more: the server lost it in a crash, or it was dropped.",
                next="clear plan_batches: it makes staging anew, and the batches are loaded again.",
            )
        ledger.take_turn(conn, settings.key, shard, number)
        found = ledger.find_receipt(conn, settings.key, shard, number, batch.sha256)
        if found is not None:
            return found
        counts = _copy(conn, settings, rows)
        if counts != Counts(batch.checkpoints, batch.writes, batch.blobs):
            raise ExportCorrupted(
                f"batch {number} of export {shard:04} holds other counts than its manifest says.",
                safe="the source is untouched; nothing of this batch reached PostgreSQL.",
                next=f"clear export_threads[{shard}] to export it again.",
            )
        ledger.hold(conn, settings.key)
        ledger.write_receipt(conn, settings.key, shard, number, batch.sha256, counts)
        return Receipt(shard, number, counts)


def _copy(
    conn: psycopg.Connection[Any], settings: Settings, rows: Iterable[TargetCheckpoint]
) -> Counts:
    """COPY rows in portions of about 16 MiB, so that memory is bounded by the largest row."""
    waiting: dict[str, list[tuple[Any, ...]]] = {name: [] for name in KEYS}
    copied = dict.fromkeys(KEYS, 0)
    size = 0

    def flush() -> None:
        for name, ready in waiting.items():
            if ready:
                copied[name] += _copy_table(conn, settings.staging_schema, name, ready)
                ready.clear()

    for row in rows:
        place = (row.thread_id, row.checkpoint_ns)
        for blob in row.blobs:
            waiting["checkpoint_blobs"].append((*place, *blob))
            size += len(blob.blob)
        if row.checkpoint is not None and row.metadata is not None:
            waiting["checkpoints"].append(
                (
                    *place,
                    row.checkpoint_id,
                    row.parent_checkpoint_id,
                    JSONB_HEADER + row.checkpoint,
                    JSONB_HEADER + row.metadata,
                )
            )
            size += len(row.checkpoint) + len(row.metadata)
        if row.original_metadata is not None:
            ledger.keep_original(conn, settings.key, row)
        for task_id, task_path, idx, channel, kind, value in row.writes:
            waiting["checkpoint_writes"].append(
                (*place, row.checkpoint_id, task_id, idx, task_path, channel, kind, value)
            )
            size += len(value)
        if size >= FLUSH_BYTES:
            flush()
            size = 0
    flush()
    return as_counts(copied)


def _copy_table(
    conn: psycopg.Connection[Any], schema: str, name: str, rows: list[tuple[Any, ...]]
) -> int:
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        table(schema, name), sql.SQL(", ").join(map(sql.Identifier, COLUMNS[name]))
    )
    with conn.cursor() as cursor:
        with cursor.copy(statement) as copy:
            copy.set_types(_TYPES[name])
            for row in rows:
                copy.write_row(row)
        return cursor.rowcount


def as_counts(found: dict[str, int]) -> Counts:
    """Rows by table as counts."""
    return Counts(found["checkpoints"], found["checkpoint_writes"], found["checkpoint_blobs"])


def count(conn: psycopg.Connection[Any], schema: str) -> Counts:
    """The rows of the three tables of a schema."""
    found = {}
    for name in KEYS:
        row = conn.execute(
            sql.SQL("SELECT count(*) FROM {}").format(table(schema, name))
        ).fetchone()
        found[name] = int(row[0]) if row else 0
    return as_counts(found)


def analyze(connect: Connect, schema: str) -> None:
    """Let the planner know the tables' sizes before they are joined, or after they grew."""
    with connection(connect, "analyzing tables") as conn:
        for name in KEYS:
            conn.execute(sql.SQL("ANALYZE {}").format(table(schema, name)))
