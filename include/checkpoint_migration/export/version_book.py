"""Which content owns which version of a channel: one `(thread, ns, channel, version)` can hold several.

State that is mutated in place, forks under integer versions, and channels absent from a checkpoint
that has their version all give one version several contents. One of them keeps the plain version;
each other gets a version that is a function of the old one and of its own content alone.

The book is written in one pass over a shard and read in the next. It lies in a private SQLite file
in the run's folder, so that its size does not show in memory.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..convert.versions import ABSENT, Key, Own, Stored, digest, own_version
from ..scratch import open_scratch, scratch_errors

TOGETHER = 500  # states that are written down at once
NAME = "version book"

NOTE = "INSERT INTO states VALUES (?, ?, ?, ?, ?, ?, 0) ON CONFLICT DO UPDATE SET again = 1 WHERE NOT again"
# `repeated` is kept as rows come: made at the end it would be sorted, in files of SQLite's own.
TABLES = """
PRAGMA cache_size = -32768;
CREATE TABLE states (
    thread_id TEXT, ns TEXT, channel TEXT, version TEXT,
    digest BLOB, first INTEGER, again INTEGER,
    PRIMARY KEY (thread_id, ns, channel, version, digest)
) WITHOUT ROWID;
CREATE TABLE owners (
    thread_id TEXT, ns TEXT, channel TEXT, version TEXT, digest BLOB,
    PRIMARY KEY (thread_id, ns, channel, version)
) WITHOUT ROWID;
CREATE INDEX repeated ON states (thread_id, ns) WHERE again;
BEGIN;
"""
EXCEPTIONS = """
SELECT EXISTS (SELECT 1 FROM owners WHERE (thread_id, ns) = (?, ?))
    OR EXISTS (SELECT 1 FROM states WHERE (thread_id, ns) = (?, ?) AND again)
"""
CONTESTED = """
SELECT thread_id, ns, channel, version FROM states GROUP BY 1, 2, 3, 4 HAVING count(*) > 1
"""
STATE = """
SELECT digest FROM states WHERE (thread_id, ns, channel, version) = (?, ?, ?, ?)
"""
EARLIEST = STATE + "ORDER BY first, digest DESC LIMIT 1"
OWNER = """
SELECT digest FROM owners WHERE (thread_id, ns, channel, version) = (?, ?, ?, ?)
"""
FIRST = """
SELECT first FROM states WHERE (thread_id, ns, channel, version, digest) = (?, ?, ?, ?, ?)
"""


OwnerOf = Callable[[Key], "bytes | None"]
"""The digest of the content that is live under a plain version: None where nothing is."""


class VersionBook:
    """Every state of every version in a shard, and who owns the plain version.

    As a context it closes itself, and says by name where `folder` cannot take it. Without a folder
    it lies where SQLite keeps its temporary files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._db = open_scratch(folder, NAME, TABLES)
        self._place: tuple[str, str] | None = None
        self._last: dict[str, tuple[str, bytes | None, str]] = {}
        self._noted: list[tuple[Any, ...]] = []
        self._reading = False
        self._plain = False  # no version of this place is contested, no state comes again later

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        if isinstance(error, sqlite3.Error):
            with scratch_errors(self._folder, NAME):
                raise error

    def close(self) -> None:
        self._db.close()

    def turn_to(self, thread_id: str, checkpoint_ns: str) -> None:
        """Say whose versions come next."""
        place = (thread_id, checkpoint_ns)
        if self._place != place:
            self._place = place
            self._last.clear()
            if self._reading:
                (exceptions,) = self._db.execute(EXCEPTIONS, place * 2).fetchone()
                self._plain = not exceptions

    def rewind(self) -> None:
        """Begin the reading pass, once it is settled who owns what."""
        self._reading = True
        self._place = None
        self._last.clear()

    def _state(self, key: Key, kind: str, raw: bytes | None, stored: Stored | None) -> bytes:
        """The digest of what a state is stored as under the plain version."""
        if raw is None:
            return ABSENT
        return digest(kind, raw if stored is None else stored(key, raw))

    def _key(self, channel: str, version: str) -> Key:
        if self._place is None:
            raise LookupError("turn_to comes first")
        return Key(*self._place, channel, version)

    def note(
        self,
        ordinal: int,
        channel: str,
        version: str,
        kind: str,
        raw: bytes | None,
        stored: Stored | None = None,
    ) -> None:
        """Writing pass: the checkpoint at `ordinal` has this state of the channel."""
        last = self._last.get(channel)
        if last is not None and last[0] == version and last[1] == raw:
            return
        self._last[channel] = (version, raw, version)
        key = self._key(channel, version)
        self._noted.append((*key, self._state(key, kind, raw, stored), ordinal))
        if len(self._noted) == TOGETHER:
            self._write_down()

    def _write_down(self) -> None:
        self._db.executemany(NOTE, self._noted)
        self._noted.clear()

    def settle(self, owner_of: OwnerOf, occupied: Iterator[tuple[Key, bytes]]) -> None:
        """Decide who keeps each plain version that is contested.

        The content that is live already keeps it, else the one that came first. `occupied` lists
        the live blobs of the shard's threads: a version that is live with another content is
        contested too.
        """
        self._write_down()
        contested: list[tuple[str, str, str, str]] = self._db.execute(CONTESTED).fetchall()
        for key, live in occupied:
            row = self._db.execute(STATE, key).fetchone()
            if row is not None and row[0] != live:
                self._own(key, live)
        for place in contested:
            live_owner = owner_of(Key(*place))
            if live_owner is None:
                (live_owner,) = self._db.execute(EARLIEST, place).fetchone()
            self._own(Key(*place), live_owner)

    def _own(self, key: Key, state: bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO owners VALUES (?, ?, ?, ?, ?)", (*key, state))

    def resolve(
        self,
        ordinal: int,
        channel: str,
        version: str,
        kind: str,
        raw: bytes | None,
        stored: Stored | None = None,
        own: Own = own_version,
    ) -> tuple[str, bool]:
        """Reading pass: the version this state gets, and whether this checkpoint brings its blob.

        `own` spells the version of a state that does not keep the plain one.
        """
        last = self._last.get(channel)
        if last is not None and last[0] == version and last[1] == raw:
            return last[2], False
        if self._plain:  # this very checkpoint noted it, and no other did
            self._last[channel] = (version, raw, version)
            return version, True
        key = self._key(channel, version)
        state = self._state(key, kind, raw, stored)
        final = version
        row = self._db.execute(OWNER, key).fetchone()
        if row is not None and row[0] != state:
            final = own(version, state)
        (first,) = self._db.execute(FIRST, (*key, state)).fetchone()
        self._last[channel] = (version, raw, final)
        return final, first == ordinal
