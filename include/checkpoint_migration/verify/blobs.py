"""The target's blobs: each read about once, and none that no checkpoint refers to goes unseen."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from ..model import Shard
from ..scratch import open_scratch
from .compare import Blob
from .pairs import Row, TargetRows

KEPT_BYTES = 8 << 20
NAME = "list of blobs"
FOUND = """
PRAGMA cache_size = -16384;
CREATE TABLE found (
    thread_id TEXT, checkpoint_ns TEXT, channel TEXT, version TEXT,
    PRIMARY KEY (thread_id, checkpoint_ns, channel, version)
) WITHOUT ROWID;
BEGIN;
"""
KEYS_IN_BYTE_ORDER = """
SELECT count(*)
  FROM pg_index AS i
  JOIN pg_class AS c ON c.oid = i.indrelid
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = %s AND c.relname = 'checkpoint_blobs' AND i.indnkeyatts >= 4
   AND i.indcollation[0] = '"C"'::regcollation
"""
LOOK_UP = """
SELECT k.n, b.type, b.blob
  FROM jsonb_array_elements(%s::jsonb) WITH ORDINALITY AS k (key, n)
  JOIN {blobs} AS b ON {on}
"""
KEY = ("thread_id", "checkpoint_ns", "channel", "version")

Place = tuple[str, str]
"""A thread and a namespace."""
BlobKey = tuple[str, str]
"""A channel and the text of its version."""
FoundKey = tuple[str, str, str, str]
"""A place, and the key of a blob that lies there."""


class Fetched(NamedTuple):
    """Blobs by place and key, None where there is none; `found` are those read for the first time now."""

    by_place: Mapping[Place, Mapping[BlobKey, Blob | None]]
    found: list[FoundKey]


class Blobs:
    """The blobs of a schema, fetched in groups by key.

    The keys that were found lie in a private SQLite file in `scratch`, so that their number does not
    show in memory.
    """

    def __init__(self, conn: psycopg.Connection[Any], schema: str, scratch: Path | None) -> None:
        self.there = 0
        self._conn = conn
        self._table = sql.Identifier(schema, "checkpoint_blobs")
        self._kept: dict[Place, dict[BlobKey, Blob | None]] = {}
        self._query = self._lookup(schema)
        self._found = open_scratch(scratch, NAME, FOUND)

    def close(self) -> None:
        self._found.close()

    def _lookup(self, schema: str) -> sql.Composed:
        # staging's index has byte order, the saver's own has the database's: each helps alone
        row = self._conn.execute(KEYS_IN_BYTE_ORDER, (schema,)).fetchone()
        collated = sql.SQL(' COLLATE "C"' if row and row[0] else "")
        return sql.SQL(LOOK_UP).format(
            blobs=self._table,
            on=sql.SQL(" AND ").join(
                sql.SQL("{}{} = k.key ->> {}").format(sql.Identifier("b", name), collated, at)
                for at, name in enumerate(KEY)
            ),
        )

    def fetch(self, wanted: Sequence[tuple[Place, Iterable[BlobKey]]]) -> Fetched:
        """Return these blobs; what was found is to be noted.

        Those of the last checkpoint are kept, while they are small: the next one is likely to share them.
        """
        fetched: dict[Place, dict[BlobKey, Blob | None]] = {}
        missing: list[FoundKey] = []
        for place, keys in wanted:
            at_hand = fetched.setdefault(place, self._kept.get(place, {}))
            for key in keys:
                if key not in at_hand:
                    at_hand[key] = None
                    missing.append((*place, *key))
        found = self._look_up(missing, fetched) if missing else []
        if wanted:
            place, keys = wanted[-1]
            kept = {key: fetched[place][key] for key in keys}
            size = sum(len(blob.bytes or b"") for blob in kept.values() if blob is not None)
            self._kept = {place: kept} if size <= KEPT_BYTES else {}
        return Fetched(fetched, found)

    def _look_up(
        self,
        missing: list[FoundKey],
        fetched: dict[Place, dict[BlobKey, Blob | None]],
    ) -> list[FoundKey]:
        found = []
        asked = (json.dumps(missing, ensure_ascii=False),)
        rows = self._conn.execute(self._query, asked, binary=True, prepare=False).fetchall()
        for n, kind, blob in rows:
            key = missing[n - 1]
            fetched[key[:2]][key[2:]] = Blob(kind, blob)
            found.append(key)
        return found

    def note(self, found: Iterable[FoundKey]) -> None:
        """Keep which blobs were found."""
        self._found.executemany("INSERT OR IGNORE INTO found VALUES (?, ?, ?, ?)", found)

    def unreferenced(self, shard: Shard) -> Iterator[Row]:
        """Yield the keys of the shard's blobs that were never fetched; counts all in `there`."""
        names = sql.SQL(", ").join(map(sql.Identifier, KEY))
        rows = TargetRows(self._conn, self._table, names, KEY, shard)
        self.there = self._found.execute("SELECT count(*) FROM found").fetchone()[0]
        if rows.count() == self.there:  # all that were fetched are there, so no others are
            return
        rows.ahead = 2000
        known = self._found.execute(
            "SELECT * FROM found ORDER BY thread_id, checkpoint_ns, channel, version"
        )
        expected = next(known, None)
        for row in rows:
            if row == expected:
                expected = next(known, None)
            else:
                yield row
        self.there = rows.read
