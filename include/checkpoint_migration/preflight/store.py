"""Refuses a target that cannot take the store, and makes `PostgresStore`'s tables where allowed.

Asked only where the source has a store and the run takes it.
"""

from __future__ import annotations

import hashlib
from typing import Any

import psycopg
from psycopg import sql

from ..errors import TargetNotReady
from ..postgres import Connect, transaction
from ..settings import Settings
from ..store_model import StoreInfo, StoreTarget
from ..store_tables import DECLARED, KEYS, STORE, VECTORS
from ..texts import quoted
from .layout import Table, read_tables
from .privileges import Missing, missing_on_store
from .set_up import CONCURRENTLY, alone
from .table_problems import unlike_any_saver, warnings

NOTHING_MADE = "the source is untouched; nothing was made or written for the store."
LEAVE_IT = "or leave the store out with store: skip."
# By which vectors hang on their items; the second is its name up to PostgreSQL 11.
OWN_KEYS = ("store_vectors_prefix_key_fkey", "store_vectors_prefix_fkey")
OWN_NOTES = {f"{VECTORS} has the foreign key {name}" for name in OWN_KEYS}


def check_store(connect: Connect, settings: Settings, info: StoreInfo) -> StoreTarget:
    """Return what the target's store is, after its tables were made if they had to be; or raise.

    Vectors are copied where the target has `store_vectors` with a `vector` of the source's dimensions,
    and nowhere else: `why` says why not. A rehearsal asks all of this of the real tables, and then has
    tables of its own made. Safe to repeat. Raises `TargetNotReady`.
    """
    with transaction(connect, "checking the target's store", read_only=True) as conn:
        tables, made = _ask(conn, settings.as_real, info)
        why = _why_no_vectors(tables.get(VECTORS), info, settings.target_schema)
        _refuse_privileges(conn, settings, tables, vectors=not why, make=made)
    copied = info.vectors > 0 and not why
    if made and not settings.rehearsal:
        tables = _set_up(connect, settings.target_schema)
    if settings.rehearsal:
        _set_up(connect, settings.live_schema)
        if copied:
            _make_like(connect, settings)
    told = [w for w in warnings(_written(tables, copied), "store") if w not in OWN_NOTES]
    return StoreTarget(made, copied, why, _fingerprint(tables, copied), tuple(told))


def recheck_store(connect: Connect, settings: Settings, target: StoreTarget) -> None:
    """Raise `TargetNotReady` unless the store's tables are still as `check_store` saw them."""
    if settings.rehearsal:
        return
    with transaction(connect, "checking the target's store again", read_only=True) as conn:
        tables = read_tables(conn, settings.target_schema, tuple(KEYS))
    if _fingerprint(tables, target.vectors) != target.fingerprint:
        raise TargetNotReady(
            f"the store's tables in schema {quoted(settings.target_schema)} were altered after "
            "check_schema saw them.",
            next="see who altered them, then trigger the DAG again: check_schema looks anew.",
            schema=settings.target_schema,
        )


def _ask(
    conn: psycopg.Connection[Any], settings: Settings, info: StoreInfo
) -> tuple[dict[str, Table], bool]:
    """The store's tables of the schema, and whether setup() is to make or update them; or raise."""
    tables = read_tables(conn, settings.target_schema, tuple(KEYS))
    store = tables.get(STORE)
    older = store is not None and all(
        store.column(c) is None for c in ("expires_at", "ttl_minutes")
    )
    make = store is None or older
    if make and not settings.create_tables:
        raise _cannot_take(settings, ["the table store is missing" if store is None else OLDER])
    found = [] if store is None else _problems(store, older=older)
    if VECTORS in tables and info.vectors and not _why_no_vectors(tables[VECTORS], info, ""):
        found += _problems(tables[VECTORS])
    if found:
        raise _cannot_take(settings, found)
    return tables, make


OLDER = "its table store is of an older release, and create_tables is false"


def _cannot_take(settings: Settings, found: list[str]) -> TargetNotReady:
    return TargetNotReady(
        f"schema {quoted(settings.target_schema)} cannot take the source's store (long-term memory): "
        f"{'; '.join(found)}.",
        safe=NOTHING_MADE,
        next="put the tables right as PostgresStore.setup() makes them (create_tables: true lets this "
        f"package run it where they are missing or older), or name another target_schema; {LEAVE_IT}",
        problems=found,
        schema=settings.target_schema,
    )


def _problems(table: Table, *, older: bool = False) -> list[str]:
    """Why a table cannot be written as the store's own."""
    name = table.name
    if not table.ordinary:
        return [f"{name} is no table"]
    found = unlike_any_saver(table)
    if table.key != KEYS[name]:
        found.append(f"the primary key of {name} should be ({', '.join(KEYS[name])})")
    columns = {column.name: column for column in table.columns}
    for expected, spec in DECLARED[name].items():
        column = columns.pop(expected, None)
        wanted = spec.rstrip("!")
        if column is None:
            if not (older and expected in ("expires_at", "ttl_minutes")):
                found.append(f"the column {name}.{expected} is missing")
        elif wanted != "vector" and column.type != wanted:
            found.append(f"the column {name}.{expected} should be {wanted}, is {column.type}")
        elif column.generated:
            found.append(f"the column {name}.{expected} is generated")
    found += [
        f"the column {name}.{quoted(c.name)} is NOT NULL without a default, and not the store's"
        for c in columns.values()
        if c.not_null and not c.has_default and not c.generated
    ]
    return found


def _why_no_vectors(table: Table | None, info: StoreInfo, schema: str) -> str:
    """Why vectors are not copied; "" where they are."""
    if not info.vectors:
        return ""
    column = table.column("embedding") if table is not None else None
    if column is None:
        return f"schema {quoted(schema)} has no table store_vectors"
    if len(info.dimensions) != 1:
        return "the source's vectors are of several dimensions"
    kind = column.type.rpartition(".")[2]
    if kind != f"vector({info.dimensions[0]})":
        return (
            f"the source's are {info.dimensions[0]} floats, and store_vectors.embedding is {kind}"
        )
    return ""


def _refuse_privileges(
    conn: psycopg.Connection[Any],
    settings: Settings,
    tables: dict[str, Table],
    *,
    vectors: bool,
    make: bool,
) -> None:
    taken = _written(tables, vectors)
    missing: list[Missing] = missing_on_store(conn, settings, taken, make=make)
    if missing:
        statements = [m.statement for m in missing]
        raise TargetNotReady(
            f"the role lacks {len(missing)} of what the store needs: {'; '.join(m.what for m in missing)}.",
            safe=NOTHING_MADE,
            next=f"have a DBA run: {' '.join(statements)} Then run this again; {LEAVE_IT}",
            missing=[m.what for m in missing],
            statements=statements,
        )


def _set_up(connect: Connect, schema: str) -> dict[str, Table]:
    """Have `PostgresStore.setup()` make or update the table, all or nothing, and look at it again."""
    from langgraph.store.postgres import PostgresStore

    class AtOnce(PostgresStore):
        # on new tables an index needs no CONCURRENTLY, which no transaction can hold
        MIGRATIONS = [m.replace(CONCURRENTLY, " ") for m in PostgresStore.MIGRATIONS]  # noqa: RUF012 - as the store has it

    with transaction(connect, "making the store's tables") as conn, alone(schema):
        conn.execute(sql.SQL("set local search_path = {}").format(sql.Identifier(schema)))
        AtOnce(conn).setup()
        return read_tables(conn, schema, tuple(KEYS))


def _make_like(connect: Connect, settings: Settings) -> None:
    """A rehearsal's store_vectors: of the real one's type, wherever pgvector is installed."""
    with transaction(connect, "making the rehearsal's store_vectors") as conn:
        conn.execute(
            sql.SQL("CREATE TABLE IF NOT EXISTS {} (LIKE {} INCLUDING ALL)").format(
                sql.Identifier(settings.live_schema, VECTORS),
                sql.Identifier(settings.target_schema, VECTORS),
            )
        )


def _fingerprint(tables: dict[str, Table], vectors: bool) -> str:
    return hashlib.sha256(repr(_written(tables, vectors)).encode()).hexdigest()


def _written(tables: dict[str, Table], vectors: bool) -> list[Table]:
    return [table for name, table in sorted(tables.items()) if name == STORE or vectors]
