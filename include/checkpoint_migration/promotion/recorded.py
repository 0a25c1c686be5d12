"""What the ledger keeps of the keys that a run made live, and what became of them since."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from ..findings import LateCheck
from ..postgres import Connect, transaction
from ..settings import Settings
from ..tables import table
from .inserting import taken_where
from .relations import identical, on_key, wanted
from .store_check import check_recorded_items

SHOWN = 100

# What is recorded of a live checkpoint, so that a later look can tell whether it changed.
DIGEST = """\
sha256(convert_to(
    concat_ws(chr(10), {0}.parent_checkpoint_id, {0}.checkpoint::text, {0}.metadata::text), 'UTF8'))"""

RECORD = """
INSERT INTO checkpoint_migration.promoted (live_schema, thread_id, checkpoint_ns, checkpoint_id,
                                           run_key, source, orphan, digest)
{rows}
"""
AGAIN = """\
    ON CONFLICT (live_schema, thread_id, checkpoint_ns, checkpoint_id) DO UPDATE
   SET run_key = excluded.run_key, source = excluded.source, orphan = excluded.orphan,
       digest = excluded.digest
"""
HAS_ANY = "SELECT EXISTS (SELECT FROM checkpoint_migration.promoted WHERE live_schema = %s)"
CHECKPOINTS = """\
SELECT {schema}, s.thread_id, s.checkpoint_ns, s.checkpoint_id, {key}, {source}, false, {digest}
  FROM {rows}"""
ORPHANS = """\
SELECT DISTINCT {schema}, s.thread_id, s.checkpoint_ns, s.checkpoint_id, {key}, {source}, true,
       NULL::bytea
  FROM {wanted_writes} AND NOT EXISTS (SELECT FROM {live} AS l WHERE {on})"""

COMPARE = """
SELECT count(*),
       count(*) FILTER (WHERE l.thread_id IS NOT NULL AND {digest} = p.digest),
       count(*) FILTER (WHERE l.thread_id IS NOT NULL AND {digest} <> p.digest),
       count(*) FILTER (WHERE l.thread_id IS NULL)
  FROM checkpoint_migration.promoted AS p
  LEFT JOIN {live} AS l USING (thread_id, checkpoint_ns, checkpoint_id)
 WHERE p.run_key = {key} AND p.live_schema = {schema} AND NOT p.orphan
"""

GONE = """
SELECT p.thread_id, count(*)
  FROM checkpoint_migration.promoted AS p
  JOIN {live} AS l USING (thread_id, checkpoint_ns, checkpoint_id)
 WHERE p.live_schema = {schema} AND p.source = {source} AND NOT p.orphan
   AND NOT EXISTS (SELECT FROM {staged} AS s
                    WHERE (s.thread_id, s.checkpoint_ns, s.checkpoint_id)
                        = (p.thread_id, p.checkpoint_ns, p.checkpoint_id))
 GROUP BY 1 ORDER BY 1
"""


def record(
    conn: psycopg.Connection[Any], settings: Settings, *, alone: bool, as_staged: bool
) -> None:
    """Write down which keys this run made live or found there, with what they hold.

    `as_staged`: all that is to be live is, and was proven to be just what staging holds: to read live
    once more takes a third of it.
    `alone`: what no run has recorded is taken to stay so until the transaction ends, for to look for each
    key first takes a quarter of it. Raises `KeyTaken` where that does not hold.
    """
    names = _names(settings)
    which = wanted if as_staged else identical
    checkpoints = sql.SQL(CHECKPOINTS).format(
        rows=which("checkpoints", settings), digest=_digest("s" if as_staged else "l"), **names
    )
    orphans = sql.SQL(ORPHANS).format(
        wanted_writes=wanted("checkpoint_writes", settings), on=on_key("checkpoints"), **names
    )
    (has_any,) = conn.execute(HAS_ANY, (settings.live_schema,)).fetchone() or (True,)
    again = sql.SQL("" if alone and not has_any else AGAIN)
    for rows in (checkpoints, orphans):
        with taken_where(alone):
            conn.execute(sql.SQL(RECORD).format(rows=rows) + again)


def check_recorded(connect: Connect, settings: Settings) -> LateCheck:
    """Compare the live checkpoints with what the ledger recorded of them, once staging is gone."""
    statement = sql.SQL(COMPARE).format(digest=_digest("l"), **_names(settings))
    with transaction(connect, "comparing live with the ledger", repeatable_read=True) as conn:
        row = conn.execute(statement).fetchone()
        store = check_recorded_items(conn, settings)
    assert row is not None
    of_store = (store.recorded, store.unchanged, store.changed, store.missing)
    return LateCheck(*(int(a) + b for a, b in zip(row, of_store, strict=True)))


def removed_in_source(connect: Connect, settings: Settings) -> tuple[int, tuple[str, ...]]:
    """Checkpoints that an earlier run of the same source made live and that the source has no more.

    They are left as they are. Only threads that this run takes are looked at.
    """
    statement = sql.SQL(GONE).format(**_names(settings))
    with transaction(connect, "looking for rows gone from the source") as conn:
        rows = conn.execute(statement).fetchall()
    gone = [(thread, number) for thread, number in rows if settings.threads.takes(thread)]
    return sum(number for _, number in gone), tuple(thread for thread, _ in gone[:SHOWN])


def _digest(alias: str) -> sql.Composed:
    return sql.SQL(DIGEST).format(sql.Identifier(alias))


def _names(settings: Settings) -> dict[str, Any]:
    return {
        "live": table(settings.live_schema, "checkpoints"),
        "staged": table(settings.staging_schema, "checkpoints"),
        "key": sql.Literal(settings.key),
        "schema": sql.Literal(settings.live_schema),
        "source": sql.Literal(settings.source),
    }
