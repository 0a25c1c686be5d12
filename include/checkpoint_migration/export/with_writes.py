"""Each checkpoint of a shard with its pending writes, and in their place the writes that have none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from .. import source
from ..model import CheckpointRow, SourceText, WriteRow
from .places import Ready

RowKey = tuple[SourceText, SourceText, SourceText]


def with_writes(
    checkpoints: Iterable[Ready], writes: Iterable[WriteRow]
) -> Iterator[tuple[Ready | None, list[WriteRow]]]:
    """Each checkpoint with its writes, and in their place writes that have no checkpoint.

    Both streams come in key order by bytes.
    """
    grouped = ((key, list(rows)) for key, rows in groupby(writes, key=row_key))
    pending = next(grouped, None)
    for ready in checkpoints:
        key = row_key(ready.row)
        while pending is not None and pending[0] != key and _order(pending[0]) < _order(key):
            yield None, pending[1]
            pending = next(grouped, None)
        if pending is not None and pending[0] == key:
            yield ready, pending[1]
            pending = next(grouped, None)
        else:
            yield ready, []
    while pending is not None:
        yield None, pending[1]
        pending = next(grouped, None)


def row_key(row: CheckpointRow | WriteRow) -> RowKey:
    return row[:3]


def _order(key: RowKey) -> tuple[tuple[int, bytes], ...]:
    return tuple(source.sort_key(part) for part in key)
