"""Each checkpoint of a shard with its pending writes, and in their place the writes that have none."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import groupby

from .. import source
from ..model import CheckpointRow, Shard, SourceText, WriteRow
from ..settings import ThreadFilter

RowKey = tuple[SourceText, SourceText, SourceText]


def with_writes(
    frozen: sqlite3.Connection, shard: Shard, thread_filter: ThreadFilter
) -> Iterator[tuple[int, CheckpointRow | None, list[WriteRow]]]:
    """Each checkpoint with its writes, and in their place writes that have no checkpoint.

    Both streams come in key order by bytes. A checkpoint's ordinal is its place in the stream.
    """
    grouped = (
        (key, list(rows))
        for key, rows in groupby(source.iter_writes(frozen, shard, thread_filter), key=row_key)
    )
    pending = next(grouped, None)
    for ordinal, row in enumerate(source.iter_checkpoints(frozen, shard, thread_filter)):
        key = row_key(row)
        while pending is not None and _order(pending[0]) < _order(key):
            yield -1, None, pending[1]
            pending = next(grouped, None)
        if pending is not None and pending[0] == key:
            yield ordinal, row, pending[1]
            pending = next(grouped, None)
        else:
            yield ordinal, row, []
    while pending is not None:
        yield -1, None, pending[1]
        pending = next(grouped, None)


def row_key(row: CheckpointRow | WriteRow) -> RowKey:
    return row.thread_id, row.checkpoint_ns, row.checkpoint_id


def _order(key: RowKey) -> tuple[tuple[int, bytes], ...]:
    return tuple(source.sort_key(part) for part in key)
