"""What stands in a schema under the saver's names, as the catalog has it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from ..tables import DECLARED, MIGRATIONS


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    type: str
    not_null: bool
    has_default: bool
    generated: bool


@dataclass(frozen=True, slots=True)
class Table:
    """A relation as the catalog has it; `notes` are triggers, constraints and broken indexes."""

    oid: int
    name: str
    kind: str
    unlogged: bool
    rules: bool
    row_security: bool
    children: bool
    deferrable_key: bool
    owner: str
    owned: bool
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    notes: tuple[str, ...]

    @property
    def ordinary(self) -> bool:
        return self.kind in ("r", "p")

    def column(self, name: str) -> Column | None:
        return next((c for c in self.columns if c.name == name), None)


@dataclass(frozen=True, slots=True)
class Layout:
    """The saver's tables in one schema; `version` is None when unknown, -1 when not recorded."""

    schema: str
    schema_exists: bool
    tables: dict[str, Table]
    version: int | None

    @property
    def missing(self) -> list[str]:
        return [name for name in DECLARED if name not in self.tables]

    @property
    def fingerprint(self) -> str:
        """Changes when a table, column, key, trigger or the recorded version does."""
        seen = (self.version, sorted(self.tables.items()))
        return hashlib.sha256(repr(seen).encode()).hexdigest()


_TABLES = """
select c.oid::bigint as oid, c.relname::text as name, c.relkind::text as kind,
    c.relpersistence = 'u' as unlogged,
    exists (select from pg_catalog.pg_rewrite w where w.ev_class = c.oid) as rules,
    c.relkind in ('r', 'p') and row_security_active(c.oid) as row_security,
    c.relkind = 'r' and exists (select from pg_catalog.pg_inherits h where h.inhparent = c.oid)
        as children,
    exists (select from pg_catalog.pg_index i
        where i.indrelid = c.oid and i.indisprimary and not i.indimmediate) as deferrable_key,
    pg_get_userbyid(c.relowner)::text as owner, pg_has_role(c.relowner, 'USAGE') as owned
from pg_catalog.pg_class c
where c.relnamespace = to_regnamespace(quote_ident(%s)) and c.relname = any(%s)
"""
# Names are written so that no search_path changes them: two looks at one table are compared.
_COLUMNS = """
select a.attname::text as name,
    case when t.typnamespace = 'pg_catalog'::regnamespace then format_type(t.oid, a.atttypmod)
        else t.typnamespace::regnamespace || '.' || quote_ident(t.typname)
            || coalesce('(' || nullif(a.atttypmod, -1) || ')', '') end as type,
    a.attnotnull as not_null, a.atthasdef or a.attidentity <> '' as has_default,
    coalesce(to_jsonb(a) ->> 'attgenerated', '') <> '' as generated
from pg_catalog.pg_attribute a join pg_catalog.pg_type t on t.oid = a.atttypid
where a.attrelid = %s and a.attnum > 0 and not a.attisdropped order by a.attname
"""
_PRIMARY_KEY = """
select a.attname::text
from pg_catalog.pg_index i
cross join lateral unnest(i.indkey::int2[]) with ordinality as k(attnum, place)
join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
where i.indrelid = %s and i.indisprimary order by k.place
"""
_NOTES = """
select 'the trigger ' || quote_ident(tgname) from pg_catalog.pg_trigger
    where tgrelid = %(oid)s and not tgisinternal and tgenabled <> 'D'
union all
select case contype when 'c' then 'the check ' when 'f' then 'the foreign key '
        else 'the constraint ' end || quote_ident(conname)
    from pg_catalog.pg_constraint where conrelid = %(oid)s and contype in ('c', 'f', 'u', 'x')
union all
select 'the invalid index ' || quote_ident(c.relname)
    from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indexrelid
    where i.indrelid = %(oid)s and not i.indisvalid
order by 1
"""


def read_layout(conn: psycopg.Connection[Any], schema: str) -> Layout:
    """Read the catalog, and the recorded version where the role may read it."""
    with conn.cursor(row_factory=tuple_row) as cur:
        found = cur.execute(
            "select oid::bigint from pg_catalog.pg_namespace where nspname = %s", (schema,)
        ).fetchone()
        if found is None:
            return Layout(schema, False, {}, None)
    tables = read_tables(conn, schema, tuple(DECLARED))
    return Layout(schema, True, tables, _version(conn, schema, tables))


def read_tables(
    conn: psycopg.Connection[Any], schema: str, names: tuple[str, ...]
) -> dict[str, Table]:
    """What the catalog has of these names in a schema."""
    with conn.cursor(row_factory=tuple_row) as cur:
        rows = cur.execute(_TABLES, (schema, list(names))).fetchall()
        tables = {}
        for (
            oid,
            name,
            kind,
            unlogged,
            rules,
            row_security,
            children,
            deferrable,
            owner,
            owned,
        ) in rows:
            columns = [Column(*r) for r in cur.execute(_COLUMNS, (oid,)).fetchall()]
            key = [r[0] for r in cur.execute(_PRIMARY_KEY, (oid,)).fetchall()]
            notes = [r[0] for r in cur.execute(_NOTES, {"oid": oid}).fetchall()]
            tables[name] = Table(
                oid=oid,
                name=name,
                kind=kind,
                unlogged=unlogged,
                rules=rules,
                row_security=row_security,
                children=children,
                deferrable_key=deferrable,
                owner=owner,
                owned=owned,
                key=tuple(key),
                columns=tuple(columns),
                notes=tuple(notes),
            )
    return tables


def _version(conn: psycopg.Connection[Any], schema: str, tables: dict[str, Table]) -> int | None:
    table = tables.get(MIGRATIONS)
    if table is None or Column("v", "integer", True, False, False) not in table.columns:
        return None
    with conn.cursor(row_factory=tuple_row) as cur:
        readable = cur.execute(
            "select has_table_privilege(%s::oid, 'SELECT') and has_schema_privilege(%s, 'USAGE')",
            (table.oid, schema),
        ).fetchone()
        if readable != (True,):
            return None
        row = cur.execute(
            sql.SQL("select coalesce(max(v), -1) from {}").format(
                sql.Identifier(schema, MIGRATIONS)
            )
        ).fetchone()
    return None if row is None else int(row[0])
