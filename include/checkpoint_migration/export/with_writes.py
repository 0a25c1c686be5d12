"""Each checkpoint of a shard with its pending writes, and in their place the writes that have none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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
    rest = iter(writes)
    pending = next(rest, None)
    for ready in checkpoints:
        key = row_key(ready.row)
        while pending is not None and pending[:3] != key and _order(pending[:3]) < _order(key):
            of_it, pending = _taken(pending[:3], pending, rest)
            yield None, of_it
        of_it, pending = _taken(key, pending, rest)
        yield ready, of_it
    while pending is not None:
        of_it, pending = _taken(pending[:3], pending, rest)
        yield None, of_it


def _taken(
    key: RowKey, pending: WriteRow | None, rest: Iterator[WriteRow]
) -> tuple[list[WriteRow], WriteRow | None]:
    """The writes that have this key, and the one after them."""
    taken: list[WriteRow] = []
    while pending is not None and pending[:3] == key:
        taken.append(pending)
        pending = next(rest, None)
    return taken, pending


def row_key(row: CheckpointRow | WriteRow) -> RowKey:
    return row[:3]


def _order(key: RowKey) -> tuple[tuple[int, bytes], ...]:
    return tuple(source.sort_key(part) for part in key)
