"""Receipts: what each batch committed, together with its rows; of checkpoints and of the store alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from ..findings import Counts
from ..model import Receipt

Conn = psycopg.Connection[Any]

WRITE = """\
INSERT INTO {table} (run_key, shard, batch, sha256, {counts})
VALUES (%s, %s, %s, %s, {places})
"""
FIND = """
SELECT {counts} FROM {table} WHERE run_key = %s AND shard = %s AND batch = %s AND sha256 = %s
"""
TOTAL = "SELECT {totals} FROM {table} WHERE run_key = %s"


@dataclass(frozen=True, slots=True)
class Receipts:
    """A table of the ledger, and which counts it has columns of."""

    table: LiteralString
    counts: tuple[str, ...]

    def write(
        self, conn: Conn, key: str, shard: int, batch: int, sha256: str, counts: Counts
    ) -> None:
        figures = [getattr(counts, name) or 0 for name in self.counts]
        conn.execute(self._say(WRITE), (key, shard, batch, sha256, *figures))

    def find(self, conn: Conn, key: str, shard: int, batch: int, sha256: str) -> Receipt | None:
        """The receipt of a batch with this content, if it was committed."""
        row = conn.execute(self._say(FIND), (key, shard, batch, sha256)).fetchone()
        return Receipt(shard, batch, self._counts(row), already_done=True) if row else None

    def total(self, conn: Conn, key: str) -> Counts:
        """What all receipts of a run say together."""
        row = conn.execute(self._say(TOTAL), (key,)).fetchone()
        assert row is not None
        return self._counts(row)

    def void(self, conn: Conn, key: str) -> None:
        """Forget every receipt of a run."""
        conn.execute(self._say("DELETE FROM {table} WHERE run_key = %s"), (key,))

    def _counts(self, row: tuple[int, ...]) -> Counts:
        return Counts(**{"blobs": 0, **dict(zip(self.counts, row, strict=True))})

    def _say(self, template: str) -> sql.Composed:
        comma = sql.SQL(", ")
        names = [sql.Identifier(name) for name in self.counts]
        return sql.SQL(template).format(
            table=sql.SQL(self.table),
            counts=comma.join(names),
            places=comma.join(sql.Placeholder() for _ in names),
            totals=comma.join(
                sql.SQL("coalesce(sum({}), 0)::bigint").format(name) for name in names
            ),
        )


CHECKPOINTS = Receipts("checkpoint_migration.batches", ("checkpoints", "writes", "blobs"))
ITEMS = Receipts("checkpoint_migration.store_batches", ("items", "vectors"))
