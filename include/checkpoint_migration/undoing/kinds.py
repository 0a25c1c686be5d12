"""What an undo takes out or leaves as one: a thread with all its rows, an item of the store with its vectors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg import sql

from .. import store_tables, tables
from ..run import undo_ledger


@dataclass(frozen=True, slots=True)
class Kind:
    """Rows that stay together are those of one table or several that are equal in the columns `unit`.

    `keys` are those of its live tables, in the order in which they are written. In the ledger's table
    `before` a run noted what each unit held.
    """

    name: str
    unit: tuple[str, ...]
    keys: dict[str, tuple[str, ...]]
    before: str

    @property
    def units(self) -> sql.Identifier:
        """The temporary table of the units that the run noted."""
        return sql.Identifier(f"undo_{self.name}")

    @property
    def left(self) -> sql.Identifier:
        """The temporary table of those that stay whole."""
        return sql.Identifier(f"undo_left_{self.name}")

    def in_unit(self, alias: str) -> sql.Composed:
        """The columns that tell units apart, of one table's rows."""
        return tables.columns(self.unit, alias)

    def same_unit(self, left: str, right: str) -> sql.Composed:
        return on(self.unit, left, right)


THREADS = Kind("threads", ("thread_id",), tables.KEYS, "threads_before")
ITEMS = Kind("items", ("prefix", "key"), store_tables.KEYS, "items_before")


def kinds_of(conn: psycopg.Connection[Any], run_key: str, schema: str) -> tuple[Kind, ...]:
    """The kinds that a run wrote rows of; of the store with the tables that are live still."""
    if not undo_ledger.noted_items(conn, run_key):
        return (THREADS,)
    there = {n: k for n, k in ITEMS.keys.items() if store_tables.is_there(conn, schema, n)}
    return (THREADS, replace(ITEMS, keys=there)) if there else (THREADS,)


def on(names: tuple[str, ...], left: str, right: str) -> sql.Composed:
    """The join condition of two rows that are equal in these columns."""
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(left, name), sql.Identifier(right, name))
        for name in names
    )
