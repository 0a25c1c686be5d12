"""What an export has to ask the target: who is live under a version, and whether a key fits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg import sql

from ..convert.versions import ABSENT, Key
from ..postgres import Connect, transaction
from ..tables import are_there, table

LONG_KEY = 1_500  # bytes from which a key may exceed what an index row holds

# As `convert.versions.digest` has it: the type, a zero byte, the bytes.
OCCUPIED = r"""
SELECT thread_id, checkpoint_ns, channel, version,
       sha256(convert_to(type, 'UTF8') || '\x00'::bytea || blob)
  FROM {blobs}
 WHERE thread_id = ANY(%s) AND blob IS NOT NULL
"""
DIGEST = r"""
SELECT sha256(convert_to(type, 'UTF8') || '\x00'::bytea || blob)
  FROM {blobs}
 WHERE (thread_id, checkpoint_ns, channel, version) = (%s, %s, %s, %s)
"""
LIVE = """
SELECT t.id
  FROM unnest(%s::text[]) AS t (id)
 WHERE EXISTS (SELECT FROM {checkpoints} AS c WHERE c.thread_id = t.id)
    OR EXISTS (SELECT FROM {blobs} AS b WHERE b.thread_id = t.id)
"""
NAMES_VERSION = """
SELECT 1
  FROM {checkpoints}
 WHERE thread_id = %s AND checkpoint_ns = %s AND checkpoint -> 'channel_versions' ->> %s = %s
 LIMIT 1
"""
TRIAL = """
CREATE TEMP TABLE keys (a text, b text, c text, d text, e text) ON COMMIT DROP;
CREATE INDEX ON keys (a COLLATE "C", b COLLATE "C", c COLLATE "C", d COLLATE "C", e);
"""


class Lookups:
    """Read-only questions about the live tables, over one connection that opens when it is needed."""

    def __init__(self, connect: Connect, schema: str) -> None:
        self._connect = connect
        self._schema = schema

    def occupied(self, threads: Iterable[str]) -> Iterator[tuple[Key, bytes]]:
        """The live blobs of these threads: each version with the digest of its content."""
        ids = list(threads)
        if not ids:
            return
        with (
            transaction(self._connect, "reading live versions", read_only=True) as conn,
            conn.cursor(name="occupied") as cursor,
        ):
            cursor.itersize = 5_000
            cursor.execute(self._say(OCCUPIED), (ids,))
            for thread_id, ns, channel, version, digest in cursor:
                yield Key(thread_id, ns, channel, version), bytes(digest)

    def live_threads(self, threads: Iterable[str]) -> list[str]:
        """Those of the threads that have a live checkpoint or blob."""
        ids = list(threads)
        with transaction(self._connect, "reading live threads", read_only=True) as conn:
            found: list[str] = []
            if not are_there(conn, self._schema):  # a rehearsal, before the real tables are made
                return found
            for start in range(0, len(ids), 5_000):
                rows = conn.execute(self._say(LIVE), (ids[start : start + 5_000],))
                found += [row[0] for row in rows.fetchall()]
            return found

    def owner(self, conn: psycopg.Connection[Any], key: Key) -> bytes | None:
        """The digest of what is live under a version: `ABSENT` where a live checkpoint has the
        version and no blob is there, None where nothing is live.
        """
        row = conn.execute(self._say(DIGEST), key).fetchone()
        if row is not None:
            return ABSENT if row[0] is None else bytes(row[0])
        row = conn.execute(self._say(NAMES_VERSION), key).fetchone()
        return None if row is None else ABSENT

    def _say(self, statement: str) -> sql.Composed:
        return sql.SQL(statement).format(
            checkpoints=table(self._schema, "checkpoints"),
            blobs=table(self._schema, "checkpoint_blobs"),
        )

    def too_long(self, keys: Iterable[tuple[str, ...]]) -> list[bool]:
        """For each key, whether an index row of the target refuses it. The server itself is asked."""
        answers: list[bool] = []
        rest = self._schema + "-" * 40  # what the keys of writes and of the ledger have besides
        with transaction(self._connect, "trying long keys") as conn:
            conn.execute(TRIAL)
            for key in keys:
                padded = (*key, "", "", "", "")[:4]
                try:
                    with conn.transaction():
                        conn.execute(
                            "INSERT INTO keys VALUES (%s, %s, %s, %s, %s)", (*padded, rest)
                        )
                except pg.ProgramLimitExceeded:
                    answers.append(True)
                else:
                    answers.append(False)
        return answers
