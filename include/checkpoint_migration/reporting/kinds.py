"""The kinds of rows that a report counts: what each is called, its figures, and its drift. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..findings import Blocker, Difference
from ..texts import quoted
from .report_json import BlobStages, ChangeFigures, Report, Stages

STORE_TABLES = ("store", "store_vectors")
OTHER_HISTORIES = "other_histories"  # the warning that counts the threads that `keep` left out


class Kind(NamedTuple):
    """`name` is plural; `drift` is None where SQLite does not have the kind."""

    name: str
    noun: str
    stages: Stages | BlobStages
    drift: ChangeFigures | None


def kinds(report: Report) -> Iterator[Kind]:
    """The kinds in the order of the report; the store's only where the run takes one."""
    counts, drift = report.counts, report.drift
    yield Kind("checkpoints", "checkpoint", counts.checkpoints, drift.checkpoints)
    yield Kind("pending writes", "pending write", counts.writes, drift.writes)
    yield Kind("blobs", "blob", counts.blobs, None)
    if counts.store is not None:
        yield Kind("store items", "store item", counts.store, drift.store)
    if counts.store_vectors is not None:
        yield Kind("store vectors", "store vector", counts.store_vectors, drift.store_vectors)


def in_sqlite(report: Report) -> Iterator[tuple[Kind, Stages]]:
    """The kinds that SQLite has rows of, each with its figures."""
    for kind in kinds(report):
        if isinstance(kind.stages, Stages):
            yield kind, kind.stages


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
