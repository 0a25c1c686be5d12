"""The oracle of the store: every item and vector of the frozen source is in staging, and nothing else.

It shares no rule with the conversion: moments are counted in microseconds, by hand on this side and by the
server on the other; JSON is compared by the value of its numbers; a vector's text is made floats again.
"""

from __future__ import annotations

import calendar
import sqlite3
import struct
from collections.abc import Callable, Iterable, Iterator
from decimal import InvalidOperation
from functools import partial
from typing import Any

import psycopg
from psycopg import sql

from ..findings import Counts, Difference, ShardVerdict
from ..source import all_items, all_vectors
from ..texts import printable
from .metadata import by_value

LIMIT = 100
AHEAD = 50  # rows that come at once: values may be large
MICROSECONDS = """\
(extract(epoch FROM date_trunc('second', {0}))::bigint * 1000000
 + extract(microseconds FROM {0})::bigint % 1000000)"""
ITEMS = """
SELECT prefix, key, value::text, {created_at}, {updated_at}, {expires_at}, ttl_minutes
  FROM {table} ORDER BY prefix COLLATE "C", key COLLATE "C"
"""
VECTORS = """
SELECT prefix, key, field_name, embedding::text, {created_at}, {updated_at}
  FROM {table} ORDER BY prefix COLLATE "C", key COLLATE "C", field_name COLLATE "C"
"""
MOMENTS = ("created_at", "updated_at", "expires_at")
Row = tuple[Any, ...]
Found = tuple[str, str]  # a column, and why


def verify_store(
    frozen: sqlite3.Connection,
    target: psycopg.Connection[Any],
    schema: str,
    tables: tuple[str, ...],
    shard: int,
    progress: Callable[[int], None] | None = None,
    *,
    sanitized: bool = False,
) -> ShardVerdict:
    """Prove that `schema` holds exactly those of the store's `tables` that were taken.

    `sanitized`: a part of a minute became the next whole one. Each side is read once, in key order;
    memory is bounded by the largest few rows. The verdict counts
    the target's rows, holds the first differences and counts all.
    """
    oracle = _Oracle(target, schema)
    if "store" in tables:
        items = all_items(frozen)
        compare = partial(_item_differs, sanitized=sanitized)
        oracle.table("store", ITEMS, 2, items, compare, progress)
    if "store_vectors" in tables:
        oracle.table("store_vectors", VECTORS, 3, all_vectors(frozen), _vector_differs, None)
    counts = Counts(0, 0, 0, oracle.counted.get("store", 0), oracle.counted.get("store_vectors", 0))
    return ShardVerdict(shard, counts, oracle.found, tuple(oracle.differences))


class _Oracle:
    """A look at both sides, and what it finds."""

    def __init__(self, target: psycopg.Connection[Any], schema: str) -> None:
        self._target, self._schema = target, schema
        self.counted: dict[str, int] = {}
        self.found = 0
        self.differences: list[Difference] = []

    def table(
        self,
        name: str,
        query: str,
        width: int,
        source: Iterable[Row],
        compare: Callable[[Row, Row], Iterator[Found]],
        progress: Callable[[int], None] | None,
    ) -> None:
        """Walk both sides in the order of their key, which has so many columns."""
        olds, news = iter(source), self._rows(name, query)
        old, new = next(olds, None), next(news, None)
        while old is not None or new is not None:
            place_of_old = _place(old, width)
            place_of_new = _place(new, width)
            if new is None or (old is not None and place_of_old < place_of_new):
                assert old is not None
                self._note(name, old, "", "the row is not there")
                old = next(olds, None)
            elif old is None or place_of_new < place_of_old:
                self._note(name, new, "", "the source has no such row")
                new = next(news, None)
            else:
                for column, why in compare(old, new):
                    self._note(name, old, column, why)
                old, new = next(olds, None), next(news, None)
            if progress is not None:
                progress(1)

    def _rows(self, name: str, query: str) -> Iterator[Row]:
        table = sql.Identifier(self._schema, name)
        self.counted[name] = 0
        there = self._target.execute("SELECT to_regclass(%s)", (table.as_string(None),)).fetchone()
        if there == (None,):
            return
        micro = {m: sql.SQL(MICROSECONDS).format(sql.Identifier(m)) for m in MOMENTS}
        with self._target.cursor(name=f"oracle_{name}") as cursor:
            cursor.itersize = AHEAD
            cursor.execute(sql.SQL(query).format(table=table, **micro))
            for row in cursor:
                self.counted[name] += 1
                yield row

    def _note(self, name: str, row: Row, column: str, why: str) -> None:
        self.found += 1
        if len(self.differences) < LIMIT:
            prefix, key = (printable(p) if isinstance(p, str | bytes) else str(p) for p in row[:2])
            self.differences.append(Difference("", prefix, key, name, column, why))


def _place(row: Row | None, width: int) -> tuple[bytes, ...]:
    """Where a row's key sorts, on both sides: by the bytes of its texts."""
    if row is None:
        return ()
    return tuple(p.encode() if isinstance(p, str) else bytes(str(p), "utf-8") for p in row[:width])


def _item_differs(source: Row, target: Row, *, sanitized: bool) -> Iterator[Found]:
    if why := _json_differs(source[2], target[2]):
        yield "value", why
    yield from _moments_differ(MOMENTS, source[3:6], target[3:6])
    theirs, ours = source[6], target[6]
    if theirs is None or ours is None:
        same = theirs is ours
    else:
        same = theirs == ours or (sanitized and 0 < ours - theirs < 1)
    if not same:
        yield "ttl_minutes", "it is not equal"


def _vector_differs(source: Row, target: Row) -> Iterator[Found]:
    blob, text = source[3], target[3]
    try:
        floats = [float(part) for part in text.strip("[]").split(",")]
        same = isinstance(blob, bytes) and struct.pack(f"<{len(floats)}f", *floats) == blob
    except (ValueError, AttributeError, OverflowError):
        same = False
    if not same:
        yield "embedding", "the floats are not equal"
    yield from _moments_differ(MOMENTS[:2], source[4:6], target[4:6])


def _json_differs(source: Any, target: str) -> str | None:
    try:
        text = source if isinstance(source, str) else bytes(source).decode()
        return None if by_value(text) == by_value(target) else "the value is not equal"
    except RecursionError:
        return "the value is nested too deep to compare"
    except (TypeError, ValueError, InvalidOperation) as error:
        return f"the value is no JSON ({type(error).__name__})"


def _moments_differ(columns: Iterable[str], source: Row, target: Row) -> Iterator[Found]:
    for column, theirs, ours in zip(columns, source, target, strict=True):
        if theirs is None and ours is None:
            continue
        if theirs is None or ours is None or _microseconds(theirs) != ours:
            yield column, "it is another moment"


def _microseconds(text: Any) -> int | None:
    """Microseconds since 1970 of a moment that SQLite's text names; one without an offset is in UTC."""
    try:
        day, clock = text[:10], text[11:].removesuffix("Z")
        ahead = 0
        if clock[-6:-5] in ("+", "-"):
            clock, zone = clock[:-6], clock[-6:]
            hours, minutes = zone[1:].split(":")
            ahead = (int(hours) * 60 + int(minutes)) * (60 if zone[0] == "+" else -60)
        whole, _, fraction = clock.partition(".")
        numbers = [*map(int, day.split("-")), *map(int, whole.split(":"))]
        seconds = calendar.timegm((*numbers, 0, 0, 0)) - ahead
        return seconds * 1_000_000 + int(fraction.ljust(6, "0") if fraction else 0)
    except (TypeError, ValueError):
        return None
