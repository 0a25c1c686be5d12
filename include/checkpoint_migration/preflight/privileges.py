"""Every privilege that a run needs and its role lacks, with the statement that grants it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from ..settings import Settings
from ..tables import MIGRATIONS
from .layout import Layout, Table

LEDGER_SCHEMA = "checkpoint_migration"


class Missing(NamedTuple):
    """What is lacking, and the statement for a DBA to run in the database."""

    what: str
    statement: str


def missing_privileges(
    conn: psycopg.Connection[Any], settings: Settings, layout: Layout, *, set_up: bool
) -> list[Missing]:
    """All of them at once; `set_up`: tables are to be made, or older ones brought up to date."""
    asking = _Asking(conn)
    return [
        *asking.database(),
        *asking.live_schema(settings, layout, set_up),
        *(
            m
            for t in layout.tables.values()
            for m in asking.live_table(settings, layout, t, set_up)
        ),
        *asking.ledger(),
        *asking.left_by_others(settings),
    ]


def missing_on_store(
    conn: psycopg.Connection[Any], settings: Settings, tables: list[Table], *, make: bool
) -> list[Missing]:
    """What the role lacks on the store's tables that are taken; `make`: one is to be made or updated."""
    asking = _Asking(conn)
    schema = settings.target_schema
    wanted = ["SELECT", "INSERT"]
    if settings.on_conflict == "replace" or settings.verify == "full":
        wanted.append("UPDATE")  # PostgresStore.get asks for it, whatever it is told to refresh
    missing = list(asking.on_schema(schema, ["USAGE", "CREATE"] if make else ["USAGE"]))
    for table in tables:
        missing += asking.on_table(schema, table.name, table.oid, wanted)
        if make and not table.owned:
            missing.append(asking.ownership(schema, table))
    return missing


def missing_for_undo(
    conn: psycopg.Connection[Any], settings: Settings, layout: Layout, store: Iterable[Table]
) -> list[Missing]:
    """The same for a run that takes another's rows out again; `store`: tables of it that are concerned."""
    asking = _Asking(conn)
    wanted = ["SELECT", "UPDATE", "DELETE"]
    return [
        *asking.database(),
        *asking.on_schema(layout.schema, ["USAGE"]),
        *(
            m
            for t in (*layout.tables.values(), *store)
            if t.name != MIGRATIONS
            for m in asking.on_table(layout.schema, t.name, t.oid, wanted)
        ),
        *asking.ledger(),
        *asking.left_by_others(settings),
    ]


class _Asking:
    """The questions, and how their answers are put."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self.conn = conn
        self.role = sql.Identifier(str(self.ask("select current_user::text")))

    def ask(self, query: str, *args: Any) -> Any:
        with self.conn.cursor(row_factory=tuple_row) as cur:
            row = cur.execute(query, args).fetchone()
            return None if row is None else row[0]

    def text(self, template: str, **names: sql.Identifier) -> str:
        return sql.SQL(template).format(role=self.role, **names).as_string(self.conn)

    def grants(
        self, kind: str, name: sql.Identifier, function: str, key: Any, wanted: list[str]
    ) -> Iterator[Missing]:
        lacking = [p for p in wanted if not self.ask(f"select {function}", key, p)]
        if lacking:
            words = ", ".join(lacking)
            yield Missing(
                self.text(f"{words} on {kind} {{name}}", name=name),
                self.text(f"GRANT {words} ON {kind.upper()} {{name}} TO {{role}};", name=name),
            )

    def on_schema(self, name: str, wanted: list[str]) -> Iterator[Missing]:
        function = "has_schema_privilege(%s, %s)"
        return self.grants("schema", sql.Identifier(name), function, name, wanted)

    def on_table(self, schema: str, name: str, oid: int, wanted: list[str]) -> Iterator[Missing]:
        function = "has_table_privilege(%s::oid, %s)"
        return self.grants("table", sql.Identifier(schema, name), function, oid, wanted)

    def database(self) -> Iterator[Missing]:
        name = str(self.ask("select current_database()::text"))
        function = "has_database_privilege(%s, %s)"
        # TEMP: whether a long key fits an index row is tried on a temporary table.
        return self.grants("database", sql.Identifier(name), function, name, ["CREATE", "TEMP"])

    def live_schema(self, settings: Settings, layout: Layout, set_up: bool) -> Iterator[Missing]:
        if layout.schema_exists:
            create = set_up and bool(layout.missing)
            yield from self.on_schema(layout.schema, ["USAGE", "CREATE"] if create else ["USAGE"])
        elif not settings.rehearsal:
            name = sql.Identifier(layout.schema)
            yield Missing(
                self.text("the schema {name}, which does not exist", name=name),
                self.text("CREATE SCHEMA {name} AUTHORIZATION {role};", name=name),
            )

    def live_table(
        self, settings: Settings, layout: Layout, table: Table, set_up: bool
    ) -> Iterator[Missing]:
        if not table.ordinary:
            return
        wanted = ["SELECT"]
        if table.name != MIGRATIONS or set_up:
            wanted.append("INSERT")
        if table.name != MIGRATIONS and settings.on_conflict == "replace":
            wanted.append("UPDATE")
        yield from self.on_table(layout.schema, table.name, table.oid, wanted)
        if table.name != MIGRATIONS and set_up and not table.owned:
            yield self.ownership(layout.schema, table)

    def ownership(self, schema: str, table: Table) -> Missing:
        return Missing(
            self.text(
                "ownership of table {name}, which setup() has to alter",
                name=sql.Identifier(schema, table.name),
            ),
            self.text("GRANT {owner} TO {role};", owner=sql.Identifier(table.owner)),
        )

    def ledger(self) -> Iterator[Missing]:
        with self.conn.cursor(row_factory=tuple_row) as cur:
            found = cur.execute(
                "select c.relname::text, c.oid::bigint from pg_catalog.pg_namespace n"
                " left join pg_catalog.pg_class c"
                " on c.relnamespace = n.oid and c.relkind in ('r', 'p')"
                " where n.nspname = %s order by 1",
                (LEDGER_SCHEMA,),
            ).fetchall()
        if found:
            yield from self.on_schema(LEDGER_SCHEMA, ["USAGE", "CREATE"])
        for name, oid in found:
            if name is not None:
                wanted = ["SELECT", "INSERT", "UPDATE", "DELETE"]
                yield from self.on_table(LEDGER_SCHEMA, name, oid, wanted)

    def left_by_others(self, settings: Settings) -> Iterator[Missing]:
        names = [settings.staging_schema, *([settings.live_schema] if settings.rehearsal else [])]
        for name in names:
            if self.ask(
                "select true from pg_catalog.pg_namespace"
                " where nspname = %s and not pg_has_role(nspowner, 'USAGE')",
                name,
            ):
                schema = sql.Identifier(name)
                yield Missing(
                    self.text("ownership of schema {name}, left by another role", name=schema),
                    self.text("DROP SCHEMA {name} CASCADE;", name=schema),
                )
