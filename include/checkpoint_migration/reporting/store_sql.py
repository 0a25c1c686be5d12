"""SQL about the store for a person to run after a run: to look at an item, to count, to take out. Pure."""

from __future__ import annotations

from collections.abc import Callable

from psycopg import sql

from ..findings import Difference
from ..settings import Settings
from ..texts import quoted
from .report_json import Statement

Literal = Callable[[str], sql.Composable]

COUNT = """\
SELECT p.prefix, count(*) AS recorded, count(l.key) AS live
  FROM checkpoint_migration.promoted_items AS p
  LEFT JOIN {store} AS l USING (prefix, key)
 WHERE p.run_key = {run} AND p.live_schema = {schema}
 GROUP BY p.prefix
 ORDER BY p.prefix COLLATE "C";"""

LOOK = """\
SELECT prefix, key, jsonb_pretty(value), created_at, updated_at, expires_at, ttl_minutes
  FROM {store}
 WHERE prefix = {prefix} AND key = {key};"""

# Vectors go with their items. The ledger's record goes too, or a later run would take these items for
# some that the application deleted.
TAKE_OUT = """\
BEGIN;
DELETE FROM {store} AS l USING checkpoint_migration.promoted_items AS p
 WHERE p.run_key = {run} AND p.live_schema = {schema} AND (l.prefix, l.key) = (p.prefix, p.key);
DELETE FROM checkpoint_migration.promoted_items AS p
 WHERE p.run_key = {run} AND p.live_schema = {schema};
COMMIT;"""


def count_items(settings: Settings, literal: Literal) -> Statement:
    return Statement(
        "Count this run's items of the store for each namespace: as recorded, and as they are live now.",
        _say(COUNT, settings, settings.live_schema, literal),
    )


def look_at_item(settings: Settings, schema: str, place: Difference, literal: Literal) -> Statement:
    prefix, key = place.checkpoint_ns, place.checkpoint_id
    named = f"item {quoted(key)} of the store's namespace {quoted(prefix)}"
    return Statement(
        f"Look at {named} in schema {quoted(schema)}.",
        _say(LOOK, settings, schema, literal, prefix=prefix, key=key),
    )


def take_items_out(settings: Settings, literal: Literal) -> Statement:
    return Statement(
        "Take this run's items of the store out again, with their vectors: those it made live, and those "
        "it found live and equal. Stop the application first.",
        _say(TAKE_OUT, settings, settings.live_schema, literal),
    )


def _say(template: str, settings: Settings, schema: str, literal: Literal, **texts: str) -> str:
    return (
        sql.SQL(template)
        .format(
            store=sql.Identifier(schema, "store"),
            run=literal(settings.key),
            schema=literal(settings.live_schema),
            **{name: literal(text) for name, text in texts.items()},
        )
        .as_string()
    )
