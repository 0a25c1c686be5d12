"""What an export has to ask the target: who is live under a version, and whether a key fits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg import sql

from ..convert.versions import ABSENT, Key
from ..postgres import Connect, connection
from ..tables import table

LONG_KEY = 1_500  # bytes from which a key may exceed what an index row holds


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
        with connection(self._connect, "reading live versions") as conn:
            conn.autocommit = False
            with conn.cursor(name="occupied") as cursor:
                cursor.itersize = 5_000
                cursor.execute(
                    sql.SQL(
                        "SELECT thread_id, checkpoint_ns, channel, version,"
                        " sha256(convert_to(type, 'UTF8') || '\\x00'::bytea || blob)"
                        " FROM {} WHERE thread_id = ANY(%s) AND blob IS NOT NULL"
                    ).format(table(self._schema, "checkpoint_blobs")),
                    (ids,),
                )
                for thread_id, ns, channel, version, digest in cursor:
                    yield Key(thread_id, ns, channel, version), bytes(digest)

    def live_threads(self, threads: Iterable[str]) -> list[str]:
        """Those of the threads that have a live checkpoint or blob."""
        ids = list(threads)
        with connection(self._connect, "reading live threads") as conn:
            found: list[str] = []
            for start in range(0, len(ids), 5_000):
                rows = conn.execute(
                    sql.SQL(
                        "SELECT t.id FROM unnest(%s::text[]) AS t (id) WHERE"
                        " EXISTS (SELECT 1 FROM {} c WHERE c.thread_id = t.id)"
                        " OR EXISTS (SELECT 1 FROM {} b WHERE b.thread_id = t.id)"
                    ).format(
                        table(self._schema, "checkpoints"), table(self._schema, "checkpoint_blobs")
                    ),
                    (ids[start : start + 5_000],),
                ).fetchall()
                found += [row[0] for row in rows]
            return found

    def owner(self, conn: psycopg.Connection[Any], key: Key) -> bytes | None:
        """The digest of what is live under a version: `ABSENT` where a live checkpoint has the
        version and no blob is there, None where nothing is live.
        """
        row = conn.execute(
            sql.SQL(
                "SELECT sha256(convert_to(type, 'UTF8') || '\\x00'::bytea || blob) FROM {}"
                " WHERE (thread_id, checkpoint_ns, channel, version) = (%s, %s, %s, %s)"
            ).format(table(self._schema, "checkpoint_blobs")),
            key,
        ).fetchone()
        if row is not None:
            return ABSENT if row[0] is None else bytes(row[0])
        row = conn.execute(
            sql.SQL(
                "SELECT 1 FROM {} WHERE thread_id = %s AND checkpoint_ns = %s"
                " AND checkpoint -> 'channel_versions' ->> %s = %s LIMIT 1"
            ).format(table(self._schema, "checkpoints")),
            key,
        ).fetchone()
        return None if row is None else ABSENT

    def too_long(self, keys: Iterable[tuple[str, ...]]) -> list[bool]:
        """For each key, whether an index row of the target refuses it. The server itself is asked."""
        answers: list[bool] = []
        rest = self._schema + "-" * 40  # what the keys of writes and of the ledger have besides
        with connection(self._connect, "trying long keys") as conn:
            conn.autocommit = False
            conn.execute(
                "CREATE TEMP TABLE keys (a text, b text, c text, d text, e text) ON COMMIT DROP"
            )
            conn.execute(
                'CREATE INDEX ON keys (a COLLATE "C", b COLLATE "C", c COLLATE "C", d COLLATE "C", e)'
            )
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
            conn.rollback()
        return answers
