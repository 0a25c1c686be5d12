"""Walks both sides of a comparison in key order, in groups that bound what memory holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

import psycopg
from psycopg import sql

from ..model import CheckpointRow, Shard, WriteRow

GROUP_ROWS = 200
GROUP_BYTES = 16 << 20

S = TypeVar("S", CheckpointRow, WriteRow)
Row = tuple[Any, ...]
Key = Callable[[Row], Row]
"""What both sides are ordered by, of a row of either."""


class TargetRows:
    """A shard's rows of a target table in byte order, through a server-side cursor.

    `ahead` is how many rows the next fetch brings: as many as the source's next group has, so that
    large rows come in few.
    """

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        table: sql.Identifier,
        columns: sql.Composable,
        key: tuple[str, ...],
        shard: Shard,
    ) -> None:
        self.ahead = 1
        self.read = 0
        self._conn = conn
        self._first, self._last = bytes.fromhex(shard.first), bytes.fromhex(shard.last)
        first, last = _beginning(self._first), _beginning(self._last)
        self._exact = (first.encode(), last.encode()) == (self._first, self._last)
        conditions = [sql.SQL('thread_id COLLATE "C" >= {}').format(sql.Literal(first))]
        if self._exact:
            conditions.append(sql.SQL('thread_id COLLATE "C" <= {}').format(sql.Literal(last)))
        self._from = sql.SQL("FROM {} WHERE {}").format(table, sql.SQL(" AND ").join(conditions))
        self._query = sql.SQL("SELECT {} {} ORDER BY {}").format(
            columns,
            self._from,
            sql.SQL(", ").join(
                sql.SQL("{}" if name == "idx" else '{} COLLATE "C"').format(sql.Identifier(name))
                for name in key
            ),
        )

    def __iter__(self) -> Iterator[Row]:
        with self._conn.cursor(f"oracle_{id(self):x}") as cursor:
            cursor.execute(self._query, binary=True)
            while rows := cursor.fetchmany(self.ahead):
                if not self._exact:
                    rows = [row for row in rows if self._within(row)]
                self.read += len(rows)
                yield from rows

    def _within(self, row: Row) -> bool:
        return bool(self._first <= row[0].encode() <= self._last)

    def count(self) -> int | None:
        """Count the rows without reading them, None where the server cannot tell the shard's."""
        if not self._exact:
            return None
        row = self._conn.execute(sql.SQL("SELECT count(*) {}").format(self._from)).fetchone()
        return int(row[0]) if row else None


def _beginning(bound: bytes) -> str:
    """The longest beginning of a bound that PostgreSQL can hold as text."""
    beginning = bound.partition(b"\0")[0]
    try:
        return beginning.decode()
    except UnicodeDecodeError as error:
        return beginning[: error.start].decode()


class Pairs(Generic[S]):
    """Pairs groups of the source's rows with the target's by key; one that the other side lacks with None.

    The key is the first `head` columns (0: it is not the first ones). Each side is read once. Rows out
    of order are never paired wrongly: they show as missing.
    """

    def __init__(self, target: TargetRows, key_of: Key, *, head: int) -> None:
        self._target, self._key_of, self._head = target, key_of, head
        self._rows: Iterator[Row] | None = None
        self._row: Row | None = None

    def of(self, group: list[S]) -> Iterator[list[tuple[S | None, Row | None]]]:
        """Yield the pairs up to the group's last row, an empty group's up to the target's last."""
        self._target.ahead = len(group) or GROUP_ROWS
        if self._rows is None:
            self._rows = iter(self._target)
            self._row = next(self._rows, None)
        rows, row, key_of, head = self._rows, self._row, self._key_of, self._head
        pairs: list[tuple[S | None, Row | None]] = []
        for wanted in group:
            if not (wanted == row or (head and row and wanted[:head] == row[:head])):
                key = key_of(wanted)
                while row is not None and key_of(row) < key:
                    pairs.append((None, row))
                    row = next(rows, None)
                    if len(pairs) >= 2 * GROUP_ROWS:
                        yield pairs
                        pairs = []
                if row is None or key_of(row) != key:
                    pairs.append((wanted, None))
                    continue
            pairs.append((wanted, row))
            row = next(rows, None)
        while row is not None and not group:
            pairs.append((None, row))
            row = next(rows, None)
            if len(pairs) >= GROUP_ROWS:
                yield pairs
                pairs = []
        self._row = row
        yield pairs


def grouped(source: Iterable[S], weight_at: int) -> Iterator[list[S]]:
    """Yield the source's rows in groups, the bytes at `weight_at` bounding each; at last an empty one."""
    group: list[S] = []
    size = 0
    for row in source:
        weight = len(row[weight_at] or b"")
        if group and (len(group) >= GROUP_ROWS or size + weight > GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(row)
        size += weight
    if group:
        yield group
    yield []
