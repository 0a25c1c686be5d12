"""Constraints that a team added to the live tables: which staged rows they would refuse.

The saver's own tables have none but primary keys, the store's but the key from vectors to items. What
refuses a row is asked of staging, so that it is known before anything is written to live.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import psycopg
from psycopg import errors as pg
from psycopg import sql

from .. import store_tables
from ..errors import TargetNotReady
from ..every_table import KEYS
from ..settings import Settings
from ..tables import KEYS as SAVERS_KEYS
from ..tables import count_rows, table
from ..texts import quoted
from .relations import is_left_out
from .store import of_both

Conn = psycopg.Connection[Any]

OWN = """
SELECT c.conname::text, c.contype::text, pg_get_expr(c.conbin, c.conrelid, false),
       (SELECT array_agg(a.attname::text ORDER BY k.place)
          FROM unnest(c.conkey) WITH ORDINALITY AS k (attnum, place)
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = k.attnum),
       n.nspname::text, f.relname::text,
       (SELECT array_agg(a.attname::text ORDER BY k.place)
          FROM unnest(c.confkey) WITH ORDINALITY AS k (attnum, place)
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.confrelid AND a.attnum = k.attnum)
  FROM pg_catalog.pg_constraint AS c
  LEFT JOIN pg_catalog.pg_class AS f ON f.oid = c.confrelid
  LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid = f.relnamespace
 WHERE c.conrelid = %s::regclass AND c.contype IN ('c', 'f')
 ORDER BY c.conname
"""
BREAKS_CHECK = "{staged} AS s WHERE ({expression}) IS FALSE"
BREAKS_KEY = """\
{staged} AS s
 WHERE {columns_are_there}
   AND NOT EXISTS (SELECT FROM {other} AS o WHERE {same})"""
LET_IN = """\
{breaks}
   AND NOT {left_out}
   AND NOT EXISTS (SELECT FROM {live} AS l WHERE {on_key})"""


class Constraint(NamedTuple):
    """A CHECK (`c`) or a foreign key (`f`) of a live table."""

    name: str
    kind: str
    expression: str | None
    columns: list[str]
    other_schema: str | None
    other_table: str | None
    other_columns: list[str] | None


def refuse_broken_constraints(conn: Conn, settings: Settings) -> None:
    """Raise `TargetNotReady` for the first constraint that staged rows break, naming it and its table.

    Rows that are live already are past it, and those that stay away do not come to it. A constraint that
    this role may not evaluate is left to the insert itself, which then says so.
    """
    names = (*SAVERS_KEYS, *of_both(conn, settings))
    for name in names:
        live = table(settings.live_schema, name)
        rows = conn.execute(OWN, (live.as_string(None),)).fetchall()
        for constraint in map(Constraint._make, rows):
            if _is_the_stores(settings, name, constraint):
                continue
            broken = _broken(conn, settings, name, constraint, names)
            if broken:
                rows_of = f"refuses {broken:,} row{'' if broken == 1 else 's'}"
                raise _refused(settings, name, constraint, rows_of)


def _is_the_stores(settings: Settings, name: str, constraint: Constraint) -> bool:
    """Whether it is the key by which vectors hang on their items, which come with them."""
    to = (constraint.other_schema, constraint.other_table)
    return name == store_tables.VECTORS and to == (settings.live_schema, store_tables.STORE)


def _broken(
    conn: Conn, settings: Settings, name: str, constraint: Constraint, names: Collection[str]
) -> int:
    breaks = _breaks(settings, name, constraint, names)
    statement = sql.SQL(LET_IN).format(
        breaks=breaks,
        left_out=is_left_out(name, settings),
        live=table(settings.live_schema, name),
        on_key=_pairs("l", KEYS[name], "s", KEYS[name]),
    )
    try:
        with conn.transaction():
            return count_rows(conn, statement)
    except (pg.InsufficientPrivilege, pg.UndefinedFunction, pg.UndefinedTable, pg.UndefinedColumn):
        return 0
    except pg.DataError as error:
        raise _refused(
            settings, name, constraint, f"ends in {type(error).__name__} for rows"
        ) from None


def _breaks(
    settings: Settings, name: str, constraint: Constraint, names: Collection[str]
) -> sql.Composed:
    staged = table(settings.staging_schema, name)
    if constraint.kind == "c":
        # the server's own text of an expression that it keeps: names of columns, no alias
        expression = sql.SQL(_as_template(constraint.expression or "true"))
        return sql.SQL(BREAKS_CHECK).format(staged=staged, expression=expression.format())
    return sql.SQL(BREAKS_KEY).format(
        staged=staged,
        columns_are_there=sql.SQL(" AND ").join(
            sql.SQL("{} IS NOT NULL").format(sql.Identifier("s", column))
            for column in constraint.columns
        ),
        other=_referred_to(settings, constraint, names),
        same=_pairs("o", tuple(constraint.other_columns or ()), "s", tuple(constraint.columns)),
    )


def _referred_to(
    settings: Settings, constraint: Constraint, names: Collection[str]
) -> sql.Composed:
    """The rows that a foreign key may refer to: those of the tables `names` come with this run."""
    name = str(constraint.other_table)
    there = table(str(constraint.other_schema), name)
    columns = sql.SQL(", ").join(map(sql.Identifier, constraint.other_columns or ()))
    if constraint.other_schema != settings.live_schema or name not in names:
        return sql.SQL("{}").format(there)
    return sql.SQL(
        "(SELECT {columns} FROM {there} UNION ALL SELECT {columns} FROM {staged})"
    ).format(columns=columns, there=there, staged=table(settings.staging_schema, name))


def _as_template(text: str) -> Any:
    return text.replace("{", "{{").replace("}", "}}")


def _pairs(left: str, names: tuple[str, ...], right: str, others: tuple[str, ...]) -> sql.Composed:
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(left, a), sql.Identifier(right, b))
        for a, b in zip(names, others, strict=True)
    )


def _refused(settings: Settings, name: str, constraint: Constraint, does: str) -> TargetNotReady:
    kind = "check" if constraint.kind == "c" else "foreign key"
    to = ""
    if constraint.other_table is not None:
        to = f" to {quoted(f'{constraint.other_schema}.{constraint.other_table}')}"
    whose, leave_out = "saver", "leave those threads out with threads"
    if name in store_tables.KEYS:
        whose, leave_out = "store", "leave the store out with store: skip"
    return TargetNotReady(
        f"the {kind} {quoted(constraint.name)} of {quoted(f'{settings.live_schema}.{name}')}{to} "
        f"{does} of this run.",
        next=f"the {whose}'s own tables have no such constraint: add what it asks for (for a foreign "
        f"key, the rows that it refers to), or drop it; or {leave_out}.",
        constraint=constraint.name,
        table=name,
    )
