"""Keys that may be longer than an index row of the target takes: found here, tried on the server."""

from __future__ import annotations

from collections.abc import Iterator

from ..findings import Blocker
from ..model import TargetCheckpoint
from .live_lookups import LONG_KEY, Lookups

LongKey = tuple[tuple[str, str, str], tuple[str, ...]]


def long_keys(row: TargetCheckpoint) -> Iterator[tuple[str, ...]]:
    """The keys of a row that are long enough to be tried on the server."""
    place = (row.thread_id, row.checkpoint_ns)
    base = len(row.thread_id) + len(row.checkpoint_ns)
    if (
        base + len(row.checkpoint_id) + max([len(w.task_id) for w in row.writes], default=0)
        > LONG_KEY // 4
    ):
        yield from (
            key
            for key in {(*place, row.checkpoint_id, w.task_id) for w in row.writes}
            | {(*place, row.checkpoint_id)}
            if _bytes_of(key) > LONG_KEY
        )
    for blob in row.blobs:
        if base + len(blob.channel) + len(blob.version) > LONG_KEY // 4:
            key = (*place, blob.channel, blob.version)
            if _bytes_of(key) > LONG_KEY:
                yield key


def _bytes_of(key: tuple[str, ...]) -> int:
    return sum(len(part.encode()) for part in key)


def keys_too_long(lookups: Lookups, keys: list[LongKey]) -> Iterator[Blocker]:
    if not keys:
        return
    refused = lookups.too_long(key for _, key in keys)
    for (row, _), is_refused in zip(keys, refused, strict=True):
        if is_refused:
            yield Blocker(*row, "key", "its key is longer than a row of PostgreSQL's index takes")
