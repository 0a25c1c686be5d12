"""The saver's tables and the store's as one set: columns and keys by a table's name."""

from __future__ import annotations

from psycopg import sql

from . import store_tables, tables

DECLARED = {**tables.DECLARED, **store_tables.DECLARED}
KEYS = {**tables.KEYS, **store_tables.KEYS}
COLUMNS = {**tables.COLUMNS, **store_tables.COLUMNS}


def key_order(name: str, alias: str | None = None) -> sql.Composed:
    """The columns of a table's key, for ORDER BY, in byte order whatever the database's collation."""
    prefix = () if alias is None else (alias,)
    return sql.SQL(", ").join(
        sql.SQL("{}" if DECLARED[name][column] == "integer!" else '{} COLLATE "C"').format(
            sql.Identifier(*prefix, column)
        )
        for column in KEYS[name]
    )
