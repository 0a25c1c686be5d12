"""A batch into staging: one transaction that copies its rows and leaves its receipt, once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from ..ahead import ahead
from ..errors import ExportCorrupted, StagingLost
from ..findings import Counts
from ..model import BatchEntry, Receipt, TargetCheckpoint
from ..postgres import Connect, transaction
from ..run import ledger
from ..settings import Settings
from ..tables import COLUMNS, DECLARED, KEYS, as_counts, columns, table
from .staging import holds_sentinel

PORTION_BYTES = 2 << 20
COPY = "COPY {staged} ({columns}) FROM STDIN (FORMAT BINARY)"

# JSONB's binary form is a version byte and the text, so bytes of ours go in unparsed on this side
JSONB_HEADER = b"\x01"
_AS_SENT = {"jsonb": "bytea", "integer": "int4"}
_TYPES = {
    name: [_AS_SENT.get(kind := DECLARED[name][c].rstrip("!"), kind) for c in COLUMNS[name]]
    for name in KEYS
}


def copy_batch(
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
        if not holds_sentinel(conn, settings.staging_schema):
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


@dataclass(slots=True)
class _Portion:
    """Rows of each table as COPY takes them, and what the ledger keeps of them."""

    rows: dict[str, list[tuple[Any, ...]]] = field(
        default_factory=lambda: {name: [] for name in KEYS}
    )
    sanitized: list[TargetCheckpoint] = field(default_factory=list)
    size: int = 0


def _copy(
    conn: psycopg.Connection[Any], settings: Settings, rows: Iterable[TargetCheckpoint]
) -> Counts:
    """COPY rows in portions, the next one read meanwhile; memory is bounded by the largest row."""
    copied = dict.fromkeys(KEYS, 0)
    for portion in ahead(_portions(rows)):
        for row in portion.sanitized:
            ledger.keep_original(conn, settings.key, row)
        for name, ready in portion.rows.items():
            if ready:
                copied[name] += _copy_table(conn, settings.staging_schema, name, ready)
    return as_counts(copied)


def _portions(rows: Iterable[TargetCheckpoint]) -> Iterator[_Portion]:
    portion = _Portion()
    for row in rows:
        _add(portion, row)
        if portion.size >= PORTION_BYTES:
            yield portion
            portion = _Portion()
    yield portion


def _add(portion: _Portion, row: TargetCheckpoint) -> None:
    place = (row.thread_id, row.checkpoint_ns)
    blobs, writes = portion.rows["checkpoint_blobs"], portion.rows["checkpoint_writes"]
    for blob in row.blobs:
        blobs.append((*place, *blob))
        portion.size += len(blob.blob)
    if row.checkpoint is not None and row.metadata is not None:
        envelope = (JSONB_HEADER + row.checkpoint, JSONB_HEADER + row.metadata)
        key = (*place, row.checkpoint_id, row.parent_checkpoint_id)
        portion.rows["checkpoints"].append((*key, *envelope))
        portion.size += len(row.checkpoint) + len(row.metadata)
    if row.original_metadata is not None:
        portion.sanitized.append(row)
    for task_id, task_path, idx, channel, kind, value in row.writes:
        writes.append((*place, row.checkpoint_id, task_id, idx, task_path, channel, kind, value))
        portion.size += len(value)


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
