"""A shard's checkpoints, place by place and taken apart: who owns each version is settled before the
first checkpoint of a place is handed on.

Places that fit are read once, and stay in memory until they are settled, many of them together, so
that the target is asked seldom. A larger one is read twice, and its book lies in a file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import chain, groupby
from typing import Any, NamedTuple

import psycopg

from .. import source
from ..convert import javascript
from ..convert.blockers import Problem, Unconvertible, key_problems
from ..convert.encryption import Sealer, key_missing, sealed_type
from ..convert.formats import SPLITTERS, Split, Splitter
from ..convert.older_pickles import split_older_pickle
from ..convert.pickles import split_pickle
from ..convert.rows import Resolve, channel_states, take_apart
from ..convert.thread_ts import with_id
from ..model import CheckpointRow, Shard, SourceText
from ..postgres import Connect, transaction
from ..settings import Settings
from ..storage import RunFolder
from .live_lookups import Lookups
from .past import Lineage
from .place_book import Apart, OwnerOf, PlaceBook, State
from .version_book import VersionBook

KEPT_BYTES = 8 << 20  # of checkpoints in memory until they are settled
KEPT_EACH = 3_000  # bytes that one taken apart needs beside its own


class Ready(NamedTuple):
    """A checkpoint whose versions are settled; its row has the bytes no more that were taken apart."""

    row: CheckpointRow
    apart: Apart | None
    problems: tuple[Problem, ...]
    resolve: Resolve


class _Read(NamedTuple):
    """A checkpoint that is read ahead."""

    row: CheckpointRow
    apart: Apart | None
    problems: tuple[Problem, ...]
    first: set[str]
    book: PlaceBook


class Places:
    """The checkpoints of a shard with their versions settled."""

    def __init__(
        self,
        connect: Connect,
        settings: Settings,
        folder: RunFolder,
        shard: Shard,
        frozen: sqlite3.Connection,
        sealer: Sealer | None,
    ) -> None:
        self._connect, self._settings, self._folder = connect, settings, folder
        self._shard, self._frozen, self._sealer = shard, frozen, sealer
        # a rehearsal, too, asks the real tables, so that versions become what they would be
        self._lookups = Lookups(connect, settings.target_schema)
        self._is_old = source.has_old_layout(frozen)
        self._splitters = _splitters(settings, sealer, is_old=self._is_old)
        self._lineage = Lineage(frozen, self._splitters, sealer)

    def checkpoints(self) -> Iterator[Ready]:
        """Every checkpoint of the shard in key order."""
        together: list[_Read] = []
        room = KEPT_BYTES
        rows = source.iter_checkpoints(
            self._frozen, self._shard, self._settings.threads, alone=True
        )
        for (thread_id, ns), group in groupby(rows, key=_place):
            of_place = iter(group)
            if key_problems(CheckpointRow(thread_id, ns, "", None, None, None, None)):
                yield from self._settled(together)
                yield from map(self._unplaced, of_place)
                together, room = [], KEPT_BYTES
                continue
            here, size = self._as_fits(PlaceBook(str(thread_id), str(ns)), of_place)
            if size > room:
                yield from self._settled(together)
                together, room = [], KEPT_BYTES
            if size > KEPT_BYTES:
                yield from self._large(here, of_place)
            else:
                together += here
                room -= size
        yield from self._settled(together)

    def _as_fits(self, book: PlaceBook, rows: Iterator[CheckpointRow]) -> tuple[list[_Read], int]:
        """The rows of a place up to the one that is too much, and their size."""
        here: list[_Read] = []
        size = 0
        for row in rows:
            here.append(self._read(row, book))
            size += _bytes_of(row.checkpoint) + _bytes_of(row.metadata) + KEPT_EACH
            if size > KEPT_BYTES:
                break
        return here, size

    def _read(self, row: CheckpointRow, book: PlaceBook) -> _Read:
        apart, problems = self._taken_apart(row)
        first = book.note(apart) if apart else set()
        return _Read(_without_bytes(row), apart, problems, first, book)

    def _unplaced(self, row: CheckpointRow) -> Ready:
        """A row whose thread or namespace has no place; what else is wrong with it is told all the same."""
        return Ready(_without_bytes(row), *self._taken_apart(row), _unresolved)

    def _taken_apart(self, row: CheckpointRow) -> tuple[Apart | None, tuple[Problem, ...]]:
        """A row taken apart, unless its key has no place: then just what else is wrong with it."""
        try:
            split = take_apart(
                row,
                self._splitters,
                lambda value_type: self._lineage.sends_before(row, value_type),
                lambda: self._lineage.edges(row),
            )
        except Unconvertible as error:
            return None, error.problems
        if key_problems(row):
            return None, ()
        if self._is_old:
            split = with_id(split, str(row.checkpoint_id))
        if sealed_type(row.type) and self._sealer is not None:
            return Apart(split, str(row.type), self._sealer.seal), ()
        return Apart(split, split.value_type, None), ()

    def _settled(self, together: list[_Read]) -> Iterator[Ready]:
        books = {read.book.place: read.book for read in together}
        live = list(dict.fromkeys(str(t) for t, _ in books if t in self._live_threads))
        for key, found in self._lookups.occupied(live):
            if key[:2] in books:
                books[key[:2]].occupy(key, found)
        contested = [book for book in books.values() if book.is_contested]
        if contested:
            self._settle(contested, live)
        for row, apart, problems, first, book in together:
            yield Ready(row, apart, problems, _resolving(book, apart, first))

    def _settle(self, books: Iterable[PlaceBook], live: list[str]) -> None:
        if not live:
            for book in books:
                book.settle(lambda _: None)
            return
        with transaction(self._connect, "reading live versions", read_only=True) as conn:
            owner_of = self._owner_in(conn, live)
            for book in books:
                book.settle(owner_of)

    def _owner_in(self, conn: psycopg.Connection[Any], live: list[str]) -> OwnerOf:
        known = frozenset(live)
        return lambda key: self._lookups.owner(conn, key) if key.thread_id in known else None

    @cached_property
    def _live_threads(self) -> frozenset[SourceText]:
        threads = source.thread_ids(self._frozen, self._shard, self._settings.threads)
        return frozenset(self._lookups.live_threads(t for t in threads if "\0" not in t))

    def _large(self, here: list[_Read], rest: Iterator[CheckpointRow]) -> Iterator[Ready]:
        """A place that is too large for memory: every state in one pass, row after row in the next."""
        thread_id, ns = map(str, _place(here[0].row))
        live = [thread_id] if thread_id in self._live_threads else []
        with VersionBook(self._folder.path) as book:
            book.turn_to(thread_id, ns)
            begun = (read.apart for read in here)
            more = (self._taken_apart(row)[0] for row in rest)
            for ordinal, apart in enumerate(chain(begun, more)):
                if apart is not None:
                    split, kind, stored = apart
                    for channel, version, raw in channel_states(split):
                        book.note(ordinal, channel, version, kind, raw, stored)
            here.clear()
            with transaction(self._connect, "reading live versions", read_only=True) as conn:
                occupied = (found for found in self._lookups.occupied(live) if found[0][1] == ns)
                book.settle(self._owner_in(conn, live), occupied)
            book.rewind()
            book.turn_to(thread_id, ns)
            for ordinal, row in enumerate(source.iter_place(self._frozen, thread_id, ns)):
                apart, problems = self._taken_apart(row)
                resolve = _from_file(book, ordinal, apart)
                yield Ready(_without_bytes(row), apart, problems, resolve)


def _place(row: CheckpointRow) -> tuple[SourceText, SourceText]:
    return row[:2]


def _without_bytes(row: CheckpointRow) -> CheckpointRow:
    """The row without its checkpoint, whose bytes are kept in parts or not at all."""
    return CheckpointRow(*row[:5], None, row[6])


def _bytes_of(value: object) -> int:
    return len(value) if isinstance(value, str | bytes) else 0  # SQLite takes a number anywhere


def _resolving(book: PlaceBook, apart: Apart | None, first: set[str]) -> Resolve:
    if apart is None:
        return _unresolved
    if not book.has_moved:
        return lambda channel, version, _: (version, channel in first)
    kind = apart.kind

    def resolve(channel: str, version: str, raw: bytes | None) -> tuple[str, bool]:
        return book.version_of(channel, version, State(kind, raw)), channel in first

    return resolve


def _from_file(book: VersionBook, ordinal: int, apart: Apart | None) -> Resolve:
    if apart is None:
        return _unresolved
    _, kind, stored = apart
    return lambda channel, version, raw: book.resolve(
        ordinal, channel, version, kind, raw, stored, apart.own
    )


def _unresolved(*_: object) -> tuple[str, bool]:
    raise LookupError("a row that is not taken apart has no versions")


def _splitters(settings: Settings, sealer: Sealer | None, *, is_old: bool) -> dict[str, Splitter]:
    """How each type of checkpoint is taken apart, as far as this run is allowed to."""
    splitters = {**SPLITTERS, "json": javascript.split_either}
    for plain, split in SPLITTERS.items():
        splitters[f"{plain}+aes"] = _opening(split, sealer)
    if settings.allow_pickle:
        splitters["pickle"] = split_older_pickle if is_old else split_pickle
    return splitters


def _opening(split: Splitter, sealer: Sealer | None) -> Splitter:
    def opened(blob: bytes) -> Split:
        if sealer is None:
            raise key_missing()
        return split(sealer.open(blob))

    return opened
