"""A batch into staging: one transaction that copies its rows and leaves its receipt, once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import chain
from typing import Any

import psycopg
from psycopg import sql

from ..ahead import ahead
from ..errors import ExportCorrupted
from ..findings import Counts
from ..model import BatchEntry, Receipt
from ..postgres import Connect, transaction
from ..run import ledger
from ..settings import Settings
from ..tables import as_counts, columns, table
from .kinds import Kind, Portion
from .staging import refuse_lost

PORTION_BYTES = 512 << 10  # of rows that are read while the last ones are copied
HELD_BYTES = 2 << 20  # of rows of other tables than the largest
LARGEST_BYTES = 8 << 20  # of one COPY: a client may hold what the server has not taken yet
COPY = "COPY {staged} ({columns}) FROM STDIN (FORMAT BINARY)"


def copy_batch(
    connect: Connect,
    settings: Settings,
    kind: Kind,
    shard: int,
    number: int,
    batch: BatchEntry,
    rows: Iterable[Any],
) -> Receipt:
    """Copy one batch into staging with its receipt, in one transaction, once.

    `rows` is not read where the receipt is there already.
    """
    with transaction(connect, f"loading batch {number} of export {shard:04}") as conn:
        refuse_lost(conn, settings.staging_schema)
        ledger.take_turn(conn, settings.key, shard, number)
        found = kind.receipts.find(conn, settings.key, shard, number, batch.sha256)
        if found is not None:
            return found
        counts = _copy(conn, settings, kind, rows)
        claimed = (batch.checkpoints, batch.writes, batch.blobs, batch.items, batch.vectors)
        if counts != Counts(*claimed):
            raise ExportCorrupted(
                f"batch {number} of export {shard:04} holds other counts than its manifest says.",
                safe="the source is untouched; nothing of this batch reached PostgreSQL.",
                next=f"clear export_threads[{shard}] to export it again.",
            )
        ledger.hold(conn, settings.key)
        kind.receipts.write(conn, settings.key, shard, number, batch.sha256, counts)
        return Receipt(shard, number, counts)


def _copy(
    conn: psycopg.Connection[Any], settings: Settings, kind: Kind, rows: Iterable[Any]
) -> Counts:
    """COPY rows into their tables; memory is bounded by the largest row.

    To begin a COPY takes as long as to copy a hundred rows. So one for the largest table takes portion
    after portion, the next one read meanwhile, and rows of the other tables are held until they are many.
    """
    copied = dict.fromkeys(kind.columns, 0)

    def copy(name: str, rows: Iterable[tuple[Any, ...]]) -> None:
        copied[name] += _copy_table(conn, settings.staging_schema, kind, name, rows)

    with closing(ahead(_portions(kind, rows))) as portions:
        for first in portions:
            held = Portion.of(kind)
            copy(kind.largest, _holding(held, kind.largest, chain([first], portions)))
            for original in held.originals:
                ledger.keep_original(conn, settings.key, original)
            for name, ready in held.rows.items():
                copy(name, ready)
    return as_counts(copied)


def _holding(held: Portion, largest: str, portions: Iterable[Portion]) -> Iterator[tuple[Any, ...]]:
    """The rows for the largest table, until they or what is held of the others are many."""
    for portion in portions:
        yield from portion.rows.pop(largest)
        held.take(portion)
        if held.beside >= HELD_BYTES or held.size >= LARGEST_BYTES:
            return


def _portions(kind: Kind, rows: Iterable[Any]) -> Iterator[Portion]:
    portion = Portion.of(kind)
    for row in rows:
        kind.add(portion, row)
        if portion.size >= PORTION_BYTES:
            yield portion
            portion = Portion.of(kind)
    yield portion


def _copy_table(
    conn: psycopg.Connection[Any],
    schema: str,
    kind: Kind,
    name: str,
    rows: Iterable[tuple[Any, ...]],
) -> int:
    statement = sql.SQL(COPY).format(
        staged=table(schema, name), columns=columns(kind.columns[name])
    )
    left = iter(rows)
    first = next(left, None)
    if first is None:
        return 0
    with conn.cursor() as cursor:
        with cursor.copy(statement) as copy:
            copy.set_types(kind.types[name])
            for row in chain([first], left):
                copy.write_row(row)
        return cursor.rowcount
