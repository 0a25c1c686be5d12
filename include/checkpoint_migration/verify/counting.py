"""Counts a shard's rows in the target, where counts are all that a run compares."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from ..findings import Counts
from ..model import Shard
from .pairs import TargetRows

KEYS = {
    "checkpoints": ("thread_id", "checkpoint_ns", "checkpoint_id"),
    "checkpoint_writes": ("thread_id", "checkpoint_ns", "checkpoint_id", "task_id", "idx"),
    "checkpoint_blobs": ("thread_id", "checkpoint_ns", "channel", "version"),
}
AHEAD = 5_000


def count_shard(target: psycopg.Connection[Any], schema: str, shard: Shard) -> Counts:
    """The rows of each table of `schema` within the shard's range of threads, counted by the server."""
    with target.transaction():
        return Counts(*(_count(target, schema, name, shard) for name in KEYS))


def _count(target: psycopg.Connection[Any], schema: str, name: str, shard: Shard) -> int:
    rows = TargetRows(target, sql.Identifier(schema, name), sql.SQL("thread_id"), KEYS[name], shard)
    found = rows.count()
    if found is not None:
        return found
    rows.ahead = (
        AHEAD  # a range that no text of PostgreSQL bounds: each row says whether it is within
    )
    return sum(1 for _ in rows)
