"""Digests of live rows, in SQL: which row it is, by its key, and what a migration wrote of it. Pure."""

from __future__ import annotations

from psycopg import sql

from .every_table import DECLARED, KEYS

# Sixteen bytes tell rows apart; what a digest is taken of is made of parts that cannot run together.
OF_KEY = "substring(sha256(convert_to({key}::text, 'UTF8')) FROM 1 FOR 16)"
OF_ROW = "substring(sha256({parts}) FROM 1 FOR 16)"
PART = "coalesce(sha256({value}), decode(repeat('00', 32), 'hex'))"
# Keys of a thread are added up, in whatever order they come.
NUMBER = "('x' || substr(md5({table} || {key}::text), 1, 15))::bit(60)::bigint"

# A moment as text depends on the session's time zone and style; as JSON, told in UTC, it does not. The
# type of a vector may lie in any schema: the table's own column reads it.
MOMENT, VECTOR = "timestamp with time zone", "vector"
AS_BYTES = {
    "bytea": "{}",
    MOMENT: "convert_to(to_json({} AT TIME ZONE 'UTC') #>> '{{}}', 'UTF8')",
}
FROM_BYTES = {
    "bytea": "{value}",
    MOMENT: "convert_from({value}, 'UTF8')::timestamp AT TIME ZONE 'UTC'",
    VECTOR: """\
(jsonb_populate_record({row}, jsonb_build_object({name}, convert_from({value}, 'UTF8')))).{column}""",
}


def key_digest(name: str, alias: str) -> sql.Composed:
    """Which row it is: a digest of its key."""
    return sql.SQL(OF_KEY).format(key=_key(name, alias))


def row_digest(name: str, alias: str) -> sql.Composed:
    """What a row holds: a digest of all the saver's columns that are no part of the key."""
    parts = [sql.SQL(PART).format(value=as_bytes(name, column, alias)) for column in content(name)]
    return sql.SQL(OF_ROW).format(parts=sql.SQL(" || ").join(parts))


def key_number(name: str, alias: str) -> sql.Composed:
    """A row's key as a number of 60 bits, for sums over the rows of a thread."""
    return sql.SQL(NUMBER).format(table=sql.Literal(name), key=_key(name, alias))


def content(name: str) -> tuple[str, ...]:
    """The columns of a table that are no part of its key."""
    return tuple(column for column in DECLARED[name] if column not in KEYS[name])


def as_bytes(name: str, column: str, alias: str) -> sql.Composed:
    """A column's value as bytes that `from_bytes` reads again; NULL stays NULL."""
    template = AS_BYTES.get(_kind(name, column), "convert_to({}::text, 'UTF8')")
    return sql.SQL(template).format(sql.Identifier(alias, column))


def from_bytes(name: str, column: str, value: sql.Composable, alias: str) -> sql.Composed:
    """The value that `as_bytes` made bytes of; `alias` is a row of the table."""
    kind = _kind(name, column)
    return sql.SQL(FROM_BYTES.get(kind, "convert_from({value}, 'UTF8')::{kind}")).format(
        value=value,
        kind=sql.SQL(kind),
        row=sql.Identifier(alias),
        name=sql.Literal(column),
        column=sql.Identifier(column),
    )


def _kind(name: str, column: str) -> str:
    return DECLARED[name][column].removesuffix("!")


def _key(name: str, alias: str) -> sql.Composed:
    columns = sql.SQL(", ").join(sql.Identifier(alias, column) for column in KEYS[name])
    return sql.SQL("jsonb_build_array({})").format(columns)
