"""Where a finding lies, in words: a checkpoint of a thread, or an item of the store. Pure."""

from __future__ import annotations

from .findings import Blocker, Difference
from .texts import quoted

STORE_TABLES = ("store", "store_vectors")


def is_of_store(place: Difference | Blocker) -> bool:
    """Whether a finding is about the store: its namespace and key stand where a checkpoint's do."""
    table = place.table if isinstance(place, Difference) else place.column.partition(".")[0]
    return not place.thread_id and table in STORE_TABLES


def place_of(place: Difference | Blocker) -> str:
    """Where a finding is: a thread, with its checkpoint if there is one, or an item of the store."""
    if is_of_store(place):
        prefix, key = quoted(place.checkpoint_ns), quoted(place.checkpoint_id)
        return f"item {key} of the store's namespace {prefix}"
    checkpoint = f", checkpoint {quoted(place.checkpoint_id)}" if place.checkpoint_id else ""
    return f"thread {quoted(place.thread_id)}{checkpoint}"
