"""The SQL that relates the store's staging (`s`) to live (`l`), as `relations.py` does for checkpoints."""

from __future__ import annotations

from psycopg import sql

from ..settings import Settings
from ..store_tables import KEYS, STORE
from ..tables import table

# JSON is compared as text, because JSONB holds 1 and 1.0 for equal; vectors too, for their bytes.
SAME = {
    "store": """\
((l.value::text, l.created_at, l.updated_at, l.expires_at, l.ttl_minutes) IS NOT DISTINCT FROM
 (s.value::text, s.created_at, s.updated_at, s.expires_at, s.ttl_minutes))""",
    "store_vectors": """\
((l.embedding::text, l.created_at, l.updated_at) IS NOT DISTINCT FROM
 (s.embedding::text, s.created_at, s.updated_at))""",
}


def names_of(settings: Settings) -> dict[str, sql.Identifier]:
    """What statements call the tables: staged and live items, and those that stay away."""
    return {
        "left_out": table(settings.staging_schema, "left_out_items"),
        "staged": table(settings.staging_schema, STORE),
        "live": table(settings.live_schema, STORE),
    }


def on_key(name: str, left: str = "l", right: str = "s") -> sql.Composed:
    """The join condition of a live row and the staged row of the same key."""
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(left, column), sql.Identifier(right, column))
        for column in KEYS[name]
    )


def same_row(name: str) -> sql.SQL:
    """Whether a live row is its staged row, key aside; never NULL."""
    return sql.SQL(SAME[name])


def is_left_out(settings: Settings) -> sql.Composed:
    """Whether an item, or the item of a vector, is not to be live."""
    return sql.SQL("EXISTS (SELECT FROM {left_out} AS o WHERE {on})").format(
        left_out=names_of(settings)["left_out"], on=on_key(STORE, "o", "s")
    )


def _staged_and_live(name: str, settings: Settings) -> sql.Composed:
    return sql.SQL("{staged} AS s JOIN {live} AS l ON {on}").format(
        staged=table(settings.staging_schema, name),
        live=table(settings.live_schema, name),
        on=on_key(name),
    )


def identical(name: str, settings: Settings) -> sql.Composed:
    """FROM and WHERE of the staged rows that are live and equal."""
    return sql.SQL("{both} WHERE {same} AND NOT {left_out}").format(
        both=_staged_and_live(name, settings), same=same_row(name), left_out=is_left_out(settings)
    )


def differing(name: str, settings: Settings) -> sql.Composed:
    """FROM and WHERE of the staged rows whose key is live with other content."""
    return sql.SQL("{both} WHERE NOT {same} AND NOT {left_out}").format(
        both=_staged_and_live(name, settings), same=same_row(name), left_out=is_left_out(settings)
    )


def wanted(name: str, settings: Settings) -> sql.Composed:
    """FROM and WHERE of the staged rows that are to be live."""
    return sql.SQL("{staged} AS s WHERE NOT {left_out}").format(
        staged=table(settings.staging_schema, name), left_out=is_left_out(settings)
    )
