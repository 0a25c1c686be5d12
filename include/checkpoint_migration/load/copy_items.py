"""A batch of the store into staging: one transaction that copies its rows and leaves its receipt, once."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from ..errors import ExportCorrupted, StagingLost
from ..findings import Counts
from ..model import BatchEntry, Receipt
from ..postgres import Connect, transaction
from ..run import ledger, store_ledger
from ..settings import Settings
from ..store_model import TargetItem
from ..store_tables import COLUMNS, KEYS, STORE, VECTORS, as_counts, is_there, key_order
from ..tables import columns, table
from .staging import holds_sentinel

FLUSH_BYTES = 16 << 20
COPY = "COPY {staged} ({columns}) FROM STDIN (FORMAT BINARY)"
MAKE_TABLE = "CREATE UNLOGGED TABLE {staged} (LIKE {live} INCLUDING DEFAULTS)"
MAKE_KEY = "CREATE UNIQUE INDEX ON {staged} ({key})"

# JSONB's binary form is a version byte and the text; a vector comes in pgvector's own form already
JSONB_HEADER = b"\x01"
_TYPES = {
    STORE: ["text", "text", "bytea", *["timestamptz"] * 3, "int4"],
    VECTORS: ["text", "text", "text", "bytea", *["timestamptz"] * 2],
}


def copy_items(
    connect: Connect,
    settings: Settings,
    shard: int,
    number: int,
    batch: BatchEntry,
    rows: Iterable[TargetItem],
) -> Receipt:
    """Copy one batch of the store into staging with its receipt, in one transaction, once.

    `rows` is not read where the receipt is there already.
    """
    with transaction(connect, f"loading batch {number} of export {shard:04}") as conn:
        if not holds_sentinel(conn, settings.staging_schema):
            raise StagingLost(
                "staging is not there any more: the server lost it in a crash, or it was dropped.",
                next="clear plan_batches: it makes staging anew, and the batches are loaded again.",
            )
        ledger.take_turn(conn, settings.key, shard, number)
        found = store_ledger.find_receipt(conn, settings.key, shard, number, batch.sha256)
        if found is not None:
            return found
        names = (STORE, VECTORS) if batch.vectors else (STORE,)
        missing = [name for name in names if not is_there(conn, settings.staging_schema, name)]
    if missing:
        _prepare(connect, settings, missing)
    with transaction(connect, f"loading batch {number} of export {shard:04}") as conn:
        ledger.take_turn(conn, settings.key, shard, number)
        found = store_ledger.find_receipt(conn, settings.key, shard, number, batch.sha256)
        if found is not None:
            return found
        counts = _copy(conn, settings, rows)
        if counts != Counts(0, 0, 0, batch.items, batch.vectors):
            raise ExportCorrupted(
                f"batch {number} of export {shard:04} holds other counts than its manifest says.",
                safe="the source is untouched; nothing of this batch reached PostgreSQL.",
                next=f"clear export_threads[{shard}] to export it again.",
            )
        ledger.hold(conn, settings.key)
        store_ledger.write_receipt(conn, settings.key, shard, number, batch.sha256, counts)
        return Receipt(shard, number, counts)


def _prepare(connect: Connect, settings: Settings, names: list[str]) -> None:
    """Make the store's tables in staging where they are not there; they hang on the sentinel as all do."""
    with transaction(connect, "making staging of the store") as conn:
        ledger.hold(conn, settings.key)
        for name in names:
            if is_there(conn, settings.staging_schema, name):
                continue
            # a rehearsal's is made after the real table, so that it has what a team added to it
            real = is_there(conn, settings.target_schema, name)
            like = settings.target_schema if real else settings.live_schema
            staged = table(settings.staging_schema, name)
            conn.execute(sql.SQL(MAKE_TABLE).format(staged=staged, live=table(like, name)))
            conn.execute(sql.SQL(MAKE_KEY).format(staged=staged, key=key_order(name)))


def _copy(conn: psycopg.Connection[Any], settings: Settings, rows: Iterable[TargetItem]) -> Counts:
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
        place = (row.prefix, row.key)
        moments = (_moment(row.created_at), _moment(row.updated_at), _moment(row.expires_at))
        waiting[STORE].append((*place, JSONB_HEADER + row.value, *moments, row.ttl_minutes))
        size += len(row.value)
        if row.original_minutes is not None:
            store_ledger.keep_original(conn, settings.key, row)
        for name, embedding, created, updated in row.vectors:
            waiting[VECTORS].append((*place, name, embedding, _moment(created), _moment(updated)))
            size += len(embedding)
        if size >= FLUSH_BYTES:
            flush()
            size = 0
    flush()
    return as_counts(copied)


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _copy_table(
    conn: psycopg.Connection[Any], schema: str, name: str, rows: list[tuple[Any, ...]]
) -> int:
    statement = sql.SQL(COPY).format(staged=table(schema, name), columns=columns(COLUMNS[name]))
    with conn.cursor() as cursor:
        with cursor.copy(statement) as copy:
            copy.set_types(_TYPES[name])
            for row in rows:
                copy.write_row(row)
        return cursor.rowcount
