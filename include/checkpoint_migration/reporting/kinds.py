"""The kinds of rows that a report counts: what each is called, its figures, and its drift. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .report_json import BlobStages, ChangeFigures, Report, Stages

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
