"""The store within the promoting transaction: what stands against its rows, and how they go live.

It is part of the one transaction, in the order of the keys that refer to one another: items, then their
vectors. Where staging has no store, nothing here does anything.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from ..errors import StagingLost
from ..findings import Counts, Difference
from ..run.receipts import ITEMS
from ..settings import Settings
from ..store_tables import (
    STORE,
    count,
    is_there,
    readable_tables,
    staged_tables,
)
from ..tables import as_counts, count_rows, table
from .conflicts import WHY
from .inserting import insert, prove
from .kept_for_undo import note_items
from .relations import differing, identical, on_key
from .replacing import replace_rows

Conn = psycopg.Connection[Any]
SHOWN = 100

EMPTY = """
DROP TABLE IF EXISTS {left_out};
CREATE TABLE {left_out} (prefix text, key text, why text, PRIMARY KEY (prefix, key))
"""
# Promoted by a run, and live no more: removed by the application, or swept once they had expired.
NOTE_REMOVED = """
INSERT INTO {left_out}
SELECT s.prefix, s.key, 'removed'
  FROM {staged} AS s
  JOIN checkpoint_migration.promoted_items AS p
    ON p.live_schema = {schema} AND p.prefix = s.prefix AND p.key = s.key
 WHERE NOT EXISTS (SELECT FROM {live} AS l WHERE l.prefix = s.prefix AND l.key = s.key)
"""
HOLD = "LOCK TABLE {} IN ROW EXCLUSIVE MODE"  # as the insert itself does
NOTE_KEPT = """
INSERT INTO {left_out} SELECT s.prefix, s.key, 'kept' FROM {differing} ON CONFLICT DO NOTHING
"""
FIND = "SELECT s.prefix, s.key, {column} FROM {differing} LIMIT {limit}"

# What is recorded of a live item `l`, so that a later look can tell whether it changed.
RECORD = """
INSERT INTO checkpoint_migration.promoted_items (live_schema, prefix, key, run_key, source, expires_at,
                                                 digest)
SELECT {schema}, s.prefix, s.key, {run_key}, {source}, l.expires_at,
       sha256(convert_to(l.value::text, 'UTF8'))
  FROM {identical}
    ON CONFLICT (live_schema, prefix, key) DO UPDATE
   SET run_key = excluded.run_key, source = excluded.source, expires_at = excluded.expires_at,
       digest = excluded.digest
"""


@dataclass(frozen=True, slots=True)
class StorePromotion:
    """What the transaction did with the store's rows. `kept` and `replaced` count both tables'."""

    inserted: Counts
    identical: Counts
    removed: Counts
    kept: int
    replaced: int


def of_both(conn: Conn, settings: Settings) -> tuple[str, ...]:
    """The store's tables that are in staging and live: a rehearsal may look at a target without a store."""
    staged = staged_tables(conn, settings.staging_schema)
    return tuple(name for name in staged if is_there(conn, settings.live_schema, name))


def names_of(settings: Settings) -> dict[str, sql.Identifier]:
    """What statements call the tables: staged and live items, and those that stay away."""
    return {
        "left_out": table(settings.staging_schema, "left_out_items"),
        "staged": table(settings.staging_schema, STORE),
        "live": table(settings.live_schema, STORE),
    }


def note_removed_items(conn: Conn, settings: Settings) -> None:
    """Note in staging which items stay away because they were removed from live since a run."""
    if not of_both(conn, settings):
        return
    names = names_of(settings)
    conn.execute(sql.SQL(EMPTY).format(**names))
    conn.execute(sql.SQL(NOTE_REMOVED).format(schema=sql.Literal(settings.live_schema), **names))


def store_conflicts(conn: Conn, settings: Settings) -> tuple[list[Difference], int]:
    """The first live rows that have a staged row's key and other content, and how many there are."""
    found: list[Difference] = []
    total = 0
    for name in of_both(conn, settings):
        total += count_rows(conn, differing(name, settings))
        statement = sql.SQL(FIND).format(
            column=sql.SQL("''" if name == STORE else "s.field_name"),
            differing=differing(name, settings),
            limit=sql.Literal(SHOWN),
        )
        found += [
            Difference("", prefix, key, name, column, WHY)
            for prefix, key, column in conn.execute(statement).fetchall()
        ]
    return found[:SHOWN], total


def hold_store(conn: Conn, settings: Settings) -> tuple[str, ...]:
    """Let no new trigger come to the live tables until the transaction ends; returns those that staging has."""
    there = staged_tables(conn, settings.staging_schema)
    for name in there:
        conn.execute(sql.SQL(HOLD).format(table(settings.live_schema, name)))
    return there


def promote_store(
    conn: Conn, settings: Settings, there: tuple[str, ...], plain: Collection[str]
) -> StorePromotion:
    """Make the staged rows of the store live, or raise; conflicts were judged before.

    `there` are the tables that `hold_store` holds, `plain` those of them that `plain_tables` found so.
    """
    _check_receipts(conn, settings)
    kept = replaced = 0
    if settings.on_conflict == "keep":
        kept = _keep(conn, settings, there)
    elif settings.on_conflict == "replace":
        replaced = sum(
            replace_rows(conn, name, settings, differing(name, settings)) for name in there
        )
    found, inserted = {}, {}
    for name in there:
        found[name] = count_rows(conn, identical(name, settings))
        inserted[name] = insert(conn, name, settings, is_free=False)
    if there:
        note_items(conn, settings, readable_tables(conn, settings.live_schema))
    for name in there:
        prove(conn, name, settings, found[name] + inserted[name], plain=name in plain)
    if there:
        statement = sql.SQL(RECORD).format(
            schema=sql.Literal(settings.live_schema),
            run_key=sql.Literal(settings.key),
            source=sql.Literal(settings.source),
            identical=identical(STORE, settings),
        )
        conn.execute(statement)
    removed = {name: _removed(conn, name, settings) for name in there}
    return StorePromotion(as_counts(inserted), as_counts(found), as_counts(removed), kept, replaced)


def _check_receipts(conn: Conn, settings: Settings) -> None:
    staged = count(conn, settings.staging_schema)
    receipts = ITEMS.total(conn, settings.key)
    if staged != receipts:
        raise StagingLost(
            f"staging holds {staged.items:,} items of the store and {staged.vectors:,} vectors; the "
            f"receipts say {receipts.items:,} and {receipts.vectors:,}.",
            next="clear plan_batches, so that every batch is loaded again.",
        )


def _keep(conn: Conn, settings: Settings, there: tuple[str, ...]) -> int:
    """Leave out the items whose live row stays, with their vectors; returns how many live rows stay."""
    kept = sum(count_rows(conn, differing(name, settings)) for name in there)
    if STORE in there:
        names = names_of(settings)
        conn.execute(sql.SQL(NOTE_KEPT).format(differing=differing(STORE, settings), **names))
    return kept


def _removed(conn: Conn, name: str, settings: Settings) -> int:
    statement = sql.SQL("{staged} AS s JOIN {left_out} AS o ON {on} WHERE o.why = 'removed'")
    return count_rows(
        conn,
        statement.format(
            staged=table(settings.staging_schema, name),
            left_out=names_of(settings)["left_out"],
            on=on_key(STORE, "o", "s"),
        ),
    )
