"""Refuses a target that cannot take the migration, and makes the saver's tables where allowed."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import dict_row

from ..errors import TargetNotReady
from ..model import TargetInfo
from ..postgres import Connect, transaction
from ..settings import Settings
from ..store_tables import KEYS as STORE_KEYS
from ..texts import quoted
from .layout import Layout, read_layout, read_tables
from .privileges import Missing, missing_for_undo, missing_privileges
from .set_up import NO_ROWS, NOTHING_MADE, make_tables
from .table_problems import older_than, problems, warnings

DOING = "checking the target"
OLDEST_SERVER = 110000


def check_target(connect: Connect, settings: Settings, *, conn_id: str) -> TargetInfo:
    """Return what the target is, or raise before anything is made there.

    Nothing is created until every check that can be made has passed; then, and only where
    `create_tables` allows it, `PostgresSaver.setup()` makes what is missing. A rehearsal asks all of
    this of the real tables, and then has a scratch schema made. Safe to repeat.
    Raises `TargetUnreachable`, `TargetBusy` (transient) or `TargetNotReady`, whose
    `facts["statements"]` hold the SQL for a DBA when privileges are missing: all of them at once.
    """
    library = _library_version()
    with transaction(connect, DOING, read_only=True) as conn:
        server = _server(conn)
        layout, set_up = _ask(conn, settings.as_real, server, library)
        told = warnings(layout.tables.values())
        if settings.rehearsal:
            layout, set_up = _ask(conn, settings, server, library)
    if set_up:
        layout = make_tables(connect, layout, pooled=server["pooled"])
        _refuse_layout(layout, server, problems(layout, library, to_be_set_up=False))
    return TargetInfo(
        conn_id=conn_id,
        schema=settings.live_schema,
        created_tables=set_up,
        tables_version=-1 if layout.version is None else layout.version,
        fingerprint=layout.fingerprint,
        warnings=tuple(told),
        **server,
    )


def _ask(
    conn: psycopg.Connection[Any], settings: Settings, server: dict[str, Any], library: int
) -> tuple[Layout, bool]:
    """The layout of the schema that `settings` write, and whether setup() is to run there; or raise."""
    layout = read_layout(conn, settings.live_schema)
    may_create = settings.create_tables or settings.rehearsal
    set_up = may_create and (bool(layout.missing) or older_than(layout, library))
    _refuse_privileges(conn, settings, layout, server, set_up=set_up)
    _refuse_layout(layout, server, problems(layout, library, to_be_set_up=set_up))
    return layout, set_up


def check_undo(connect: Connect, settings: Settings, *, store: bool) -> None:
    """Raise `TargetNotReady` where the live tables are gone, or rows cannot be taken out of them.

    `store`: out of the store's tables too, as far as there are any.
    """
    with transaction(connect, DOING, read_only=True) as conn:
        server, layout = _server(conn), read_layout(conn, settings.live_schema)
        _refuse_layout(layout, server, [f"table {name} is missing" for name in layout.missing])
        tables = read_tables(conn, settings.live_schema, tuple(STORE_KEYS)) if store else {}
        _refuse_missing(missing_for_undo(conn, settings, layout, tables.values()), server)


def recheck_target(connect: Connect, settings: Settings, info: TargetInfo) -> None:
    """Raise `TargetNotReady` unless the live schema is still as `check_target` saw it."""
    with transaction(connect, "checking the target again", read_only=True) as conn:
        recheck_on(conn, settings, info)


def recheck_on(conn: psycopg.Connection[Any], settings: Settings, info: TargetInfo) -> None:
    """The same within the caller's transaction, so that nothing changes between look and write."""
    layout = read_layout(conn, settings.live_schema)
    server = _server(conn)
    _refuse_layout(layout, server, problems(layout, _library_version(), to_be_set_up=False))
    _refuse_privileges(conn, settings, layout, server, set_up=False)
    if (server["database_oid"], layout.fingerprint) != (info.database_oid, info.fingerprint):
        raise TargetNotReady(
            f"the tables in {_place(server, layout)} were altered after check_schema saw them.",
            next="see who altered them, then trigger the DAG again: check_schema looks anew.",
            schema=layout.schema,
        )


def _library_version() -> int:
    # Imported here: it costs a second, and those who only import this package should not pay it.
    from langgraph.checkpoint.postgres import PostgresSaver

    return len(PostgresSaver.MIGRATIONS) - 1


def _server(conn: psycopg.Connection[Any]) -> dict[str, Any]:
    with conn.cursor(row_factory=dict_row) as cur:
        version = conn.info.server_version
        if version < OLDEST_SERVER:
            raise TargetNotReady(
                f"the server is PostgreSQL {version // 10000}; {OLDEST_SERVER // 10000} is the"
                " oldest that this package writes.",
                safe=NOTHING_MADE,
                next="name a newer server in the Airflow connection.",
            )
        row = cur.execute(_SERVER, (_OF_OURS,)).fetchone()
    assert row is not None, "a connection has a database"
    database = quoted(row["database"])
    if row.pop("read_only"):
        raise TargetNotReady(
            f"the database {database} is read-only: a standby, or by its"
            " default_transaction_read_only.",
            safe=NOTHING_MADE,
            next="name the primary in the Airflow connection, or lift that setting.",
        )
    if row["encoding"] != "UTF8":
        raise TargetNotReady(
            f"the database {database} has the encoding {row['encoding']}, which cannot hold every"
            " text of SQLite; it has to be UTF8.",
            safe=NOTHING_MADE,
            next="CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and name that one.",
        )
    # A pooler invents the process id that it tells its clients.
    row["pooled"] = row.pop("pid") != conn.info.backend_pid
    return row


# A role's or a session's read-only default is overruled; that of a whole database has its reason.
_OF_OURS = ["client", "database user", "session", "user"]
_SERVER = """
select d.datname::text as database, d.oid::bigint as database_oid, current_user::text as role,
    split_part(current_setting('server_version'), ' ', 1) as server_version,
    pg_encoding_to_char(d.encoding)::text as encoding,
    coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale', d.datcollate)::text
        as collation,
    pg_is_in_recovery() or exists (
        select from pg_catalog.pg_settings where name = 'default_transaction_read_only'
            and setting = 'on' and source <> all (%s)) as read_only,
    pg_backend_pid() as pid
from pg_catalog.pg_database d where d.datname = current_database()
"""


def _place(server: dict[str, Any], layout: Layout) -> str:
    return f"schema {quoted(layout.schema)} of database {quoted(server['database'])}"


def _refuse_privileges(
    conn: psycopg.Connection[Any],
    settings: Settings,
    layout: Layout,
    server: dict[str, Any],
    *,
    set_up: bool,
) -> None:
    _refuse_missing(missing_privileges(conn, settings, layout, set_up=set_up), server)


def _refuse_missing(missing: list[Missing], server: dict[str, Any]) -> None:
    if not missing:
        return
    statements = [m.statement for m in missing]
    raise TargetNotReady(
        f"the role {quoted(server['role'])} lacks {len(missing)} of what the migration needs in"
        f" database {quoted(server['database'])}: {'; '.join(m.what for m in missing)}.",
        safe=NOTHING_MADE,
        next=f"have a DBA run, in that database: {' '.join(statements)} Then run this again.",
        missing=[m.what for m in missing],
        statements=statements,
    )


def _refuse_layout(layout: Layout, server: dict[str, Any], found: list[str]) -> None:
    if found:
        raise TargetNotReady(
            f"{_place(server, layout)} cannot take the migration: {'; '.join(found)}.",
            safe=NO_ROWS,
            next="put the tables right as PostgresSaver.setup() of the application's"
            " langgraph-checkpoint-postgres makes them (create_tables: true lets this package run"
            " it where they are missing or older), or name another target_schema.",
            problems=found,
            schema=layout.schema,
        )
