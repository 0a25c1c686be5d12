"""The store's live rows after promote: each looked for once more, and what became of them later."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from ..findings import Counts, Difference, LateCheck, LiveCheck
from ..postgres import Connect, transaction
from ..run import store_ledger
from ..settings import Settings
from ..store_tables import STORE, count, is_there, staged_tables
from ..tables import as_counts, count_rows, table
from .relations import identical, is_left_out, on_key, same_row, wanted
from .store import names_of

SHOWN = 100
Conn = psycopg.Connection[Any]

NOT_LIVE = """
SELECT s.prefix, s.key, {column}, EXISTS (SELECT FROM {live} AS l WHERE {on})
  FROM {wanted} AND NOT EXISTS (SELECT FROM {live} AS l WHERE {on} AND {same})
   AND NOT {swept}
 LIMIT {limit}
"""
# Its item expired, and is live no more: the application's sweeper has done its work.
SWEPT = """\
EXISTS (SELECT FROM {staged} AS i
         WHERE i.prefix = s.prefix AND i.key = s.key AND i.expires_at < statement_timestamp()
           AND NOT EXISTS (SELECT FROM {live} AS g WHERE g.prefix = i.prefix AND g.key = i.key))"""
COMPARE = """
SELECT count(*),
       count(*) FILTER (WHERE l.key IS NOT NULL AND {digest} = p.digest),
       count(*) FILTER (WHERE l.key IS NOT NULL AND {digest} <> p.digest),
       count(*) FILTER (WHERE l.key IS NULL AND p.expires_at >= now() IS NOT FALSE)
  FROM checkpoint_migration.promoted_items AS p
  LEFT JOIN {live} AS l USING (prefix, key)
 WHERE p.run_key = {key} AND p.live_schema = {schema}
"""
DIGEST = sql.SQL("sha256(convert_to(l.value::text, 'UTF8'))")
GONE = """
{promoted} AS p
  JOIN {live} AS l USING (prefix, key)
 WHERE p.live_schema = {schema} AND p.source = {source}
   AND NOT EXISTS (SELECT FROM {staged} AS s WHERE s.prefix = p.prefix AND s.key = p.key)"""


def check_live_store(conn: Conn, settings: Settings) -> LiveCheck:
    """Compare every staged row of the store that should be live with the live row of its key.

    An item that has expired meanwhile and is gone is no difference: sweeping it is the store's own work.
    """
    should, live, swept = {}, {}, {}
    differences: list[Difference] = []
    found = 0
    for name in staged_tables(conn, settings.staging_schema):
        gone = sql.SQL(SWEPT).format(**names_of(settings))
        should[name] = count_rows(conn, wanted(name, settings))
        live[name] = count_rows(conn, identical(name, settings))
        swept[name] = count_rows(conn, sql.SQL("{} AND {}").format(wanted(name, settings), gone))
        if live[name] + swept[name] != should[name]:
            found += should[name] - live[name] - swept[name]
            differences += _differences(conn, name, settings, gone)
    return LiveCheck(
        count(conn, settings.staging_schema),
        Counts(0, 0, 0, *(should.get(n, 0) - swept.get(n, 0) for n in ("store", "store_vectors"))),
        as_counts(live),
        tuple(differences[:SHOWN]),
        found,
        as_counts(swept),
    )


def _differences(
    conn: Conn, name: str, settings: Settings, swept: sql.Composed
) -> list[Difference]:
    statement = sql.SQL(NOT_LIVE).format(
        column=sql.SQL("''" if name == STORE else "s.field_name"),
        live=table(settings.live_schema, name),
        on=on_key(name),
        wanted=wanted(name, settings),
        same=same_row(name, settings),
        swept=swept,
        limit=sql.Literal(SHOWN),
    )
    return [
        Difference(
            "",
            prefix,
            key,
            name,
            column,
            "the live row has other content" if there else "the row is not live",
        )
        for prefix, key, column, there in conn.execute(statement).fetchall()
    ]


def check_recorded_items(conn: Conn, settings: Settings) -> LateCheck:
    """Compare live items with what the ledger recorded of them, once staging is gone."""
    if not (store_ledger.is_there(conn) and is_there(conn, settings.live_schema, STORE)):
        return LateCheck(0, 0, 0, 0)
    row = conn.execute(
        sql.SQL(COMPARE).format(
            digest=DIGEST,
            live=table(settings.live_schema, STORE),
            key=sql.Literal(settings.key),
            schema=sql.Literal(settings.live_schema),
        )
    ).fetchone()
    assert row is not None
    return LateCheck(*map(int, row))


def items_removed_in_source(connect: Connect, settings: Settings) -> int:
    """Items that an earlier run of the same source made live, and that the source has no more.

    They are left as they are.
    """
    with transaction(connect, "looking for items gone from the source") as conn:
        if STORE not in staged_tables(conn, settings.staging_schema):
            return 0
        gone = sql.SQL(GONE).format(
            promoted=sql.Identifier("checkpoint_migration", "promoted_items"),
            schema=sql.Literal(settings.live_schema),
            source=sql.Literal(settings.source),
            live=table(settings.live_schema, STORE),
            staged=table(settings.staging_schema, STORE),
        )
        return count_rows(conn, gone)


def was_item_left_out(conn: Conn, settings: Settings, prefix: str, key: str) -> bool:
    """Whether promote left an item out, or it has expired and was swept since."""
    statement = sql.SQL(
        "SELECT FROM {staged} AS s WHERE s.prefix = %s AND s.key = %s AND ({left_out} OR {swept})"
    ).format(
        left_out=is_left_out(STORE, settings),
        swept=sql.SQL(SWEPT).format(**names_of(settings)),
        staged=names_of(settings)["staged"],
    )
    return conn.execute(statement, (prefix, key)).fetchone() is not None
