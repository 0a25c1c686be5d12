"""A role whose sessions begin with other settings than ours: they are set, or named."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from langgraph.checkpoint.sqlite import SqliteSaver
from psycopg import errors as pg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from include.checkpoint_migration.errors import (
    TargetBusy,
    TargetNotReady,
    TargetUnreachable,
)
from include.checkpoint_migration.postgres import settle, transaction
from include.checkpoint_migration.server_errors import translated_errors
from tests.support.engine import Migration, rows
from tests.support.faults import go_on
from tests.support.languages import german_server
from tests.support.postgres import Database, TestServer

SECRET = "p4ss-w0rd-of-a-test"
SAID = "Grüße, Ελλάδα, 日本語 \N{SNOWMAN}"  # of which LATIN1 holds the first word alone

DEFAULTS = {
    "client_encoding LATIN1": "client_encoding = 'LATIN1'",
    "client_encoding SQL_ASCII": "client_encoding = 'SQL_ASCII'",
    "quote_all_identifiers": "quote_all_identifiers = on",
    "default_transaction_read_only": "default_transaction_read_only = on",
    "default_transaction_isolation": "default_transaction_isolation = 'serializable'",
    "statement_timeout": "statement_timeout = '5ms'",
    "transaction_timeout": "transaction_timeout = '100ms'",
    "lock_timeout": "lock_timeout = '1ms'",
    "idle_session_timeout": "idle_session_timeout = '20ms'",
    "idle_in_transaction_session_timeout": "idle_in_transaction_session_timeout = '20ms'",
    "search_path": "search_path = 'elsewhere', 'pg_catalog', 'public'",
    "no search_path": "search_path = ''",
    "standard_conforming_strings": "standard_conforming_strings = off",
    "bytea_output": "bytea_output = 'escape'",
    "extra_float_digits": "extra_float_digits = -15",
    "datestyle": "datestyle = 'German, DMY'",
    "row_security": "row_security = off",
}


@pytest.fixture
def role(database: Database) -> Iterator[Callable[[str], str]]:
    """A role of the test's own, that may do what a migration needs: gives its DSN."""
    name = f"migrator_{uuid4().hex[:8]}"
    quoted = sql.Identifier(name)
    place = sql.Identifier(database.name)

    def with_default(setting: str) -> str:
        with database.connect() as conn:
            conn.execute(sql.SQL(f"ALTER ROLE {{}} SET {setting}").format(quoted))
        return make_conninfo(database.dsn, user=name, password=SECRET)

    with database.connect() as conn:
        made = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(quoted, sql.Literal(SECRET))
        conn.execute(made)
        conn.execute(sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(place, quoted))
        conn.execute(sql.SQL("GRANT CREATE ON SCHEMA public TO {}").format(quoted))
        _shadows(conn)
    try:
        yield with_default
    finally:
        with database.connect() as conn:
            conn.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(quoted))
            conn.execute(sql.SQL("DROP ROLE {}").format(quoted))


def _shadows(conn: psycopg.Connection) -> None:
    """A schema with things that are called as PostgreSQL's own and are not."""
    conn.execute("CREATE SCHEMA elsewhere")
    conn.execute("GRANT USAGE ON SCHEMA elsewhere TO PUBLIC")
    conn.execute(
        "CREATE FUNCTION elsewhere.sha256(bytea) RETURNS bytea LANGUAGE sql AS 'SELECT $1'"
    )
    conn.execute(
        "CREATE FUNCTION elsewhere.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS"
        " $$SELECT timestamptz '-infinity'$$"
    )
    conn.execute(
        "CREATE VIEW elsewhere.pg_namespace AS SELECT 'nothing'::name AS nspname WHERE false"
    )
    conn.execute("CREATE VIEW elsewhere.pg_class AS SELECT 'nothing'::name AS relname WHERE false")
    conn.execute("GRANT SELECT ON ALL TABLES IN SCHEMA elsewhere TO PUBLIC")


@pytest.fixture(scope="module")
def german() -> Iterator[TestServer]:
    with german_server() as server:
        yield server


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Threads with texts that not every encoding holds, and a key of which the server is asked."""
    path = tmp_path / "app.sqlite"
    with SqliteSaver.from_conn_string(str(path)) as saver:
        for thread in ("anna", SAID, "l" * 2_000):
            go_on(saver, thread, 2, said=SAID)
        metadata = '{"source": "loop", "step": 1, "said": "Ελλάδα\\u0000"}'.encode()
        saver.conn.execute(
            "UPDATE checkpoints SET metadata = ? WHERE thread_id = 'anna'", (metadata,)
        )
        saver.conn.commit()
    return path


@pytest.mark.parametrize("setting", DEFAULTS.values(), ids=DEFAULTS)
def test_a_default_of_the_role_changes_nothing(
    database: Database, role: Callable[[str], str], source: Path, tmp_path: Path, setting: str
) -> None:
    """What a role's sessions begin with is overruled for each transaction, through both savers too."""
    try:
        dsn = role(setting)
    except (pg.UndefinedObject, pg.InvalidParameterValue):
        pytest.skip("this server does not know the setting")
    params = {"on_blocker": "sanitize", "batch_size": 5}
    for run_id in ("first", "again"):
        migration = Migration(dsn, source, tmp_path / "exports", params, run_id=run_id)
        report = migration.all()
        assert report["verdict"] == "identical", report
        assert report["counts"]["checkpoints"]["live"] == 18
    assert {row[0] for row in rows(database.dsn)["checkpoints"]} == {"anna", SAID, "l" * 2_000}


def test_a_servers_language_changes_nothing(
    source: Path, tmp_path: Path, german: TestServer
) -> None:
    """What happened is asked by SQLSTATE, never by words: a migration, and a conflict, in German."""
    with german.database() as database:
        with database.connect() as conn, pytest.raises(pg.UndefinedTable, match="existiert nicht"):
            conn.execute("SELECT * FROM nowhere")
        params = {"on_blocker": "sanitize"}
        migration = Migration(database.dsn, source, tmp_path / "exports", params)
        assert migration.all()["verdict"] == "identical"
        with database.connect(autocommit=False) as holder:
            holder.execute("LOCK TABLE checkpoints")
            with pytest.raises(TargetBusy, match="55P03"):
                within(database, "LOCK TABLE public.checkpoints", "lock_timeout = 10")


def test_triggers_of_the_live_tables_find_what_the_role_lets_them_find(
    database: Database, role: Callable[[str], str], source: Path, tmp_path: Path
) -> None:
    """A trigger names its tables by the search_path of the application: it is kept, behind pg_catalog."""
    dsn = role("search_path = 'elsewhere', 'public'")
    params = {"on_blocker": "sanitize"}
    Migration(dsn, source, tmp_path / "a", params, run_id="a").check()
    with database.connect() as conn:
        conn.execute("CREATE TABLE elsewhere.audit (n int); GRANT ALL ON elsewhere.audit TO PUBLIC")
        conn.execute(
            "CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN INSERT INTO audit VALUES (1); RETURN NEW; END'"
        )
        conn.execute(
            "CREATE TRIGGER audit BEFORE INSERT ON public.checkpoints"
            " FOR EACH ROW EXECUTE FUNCTION public.note()"
        )
    assert (
        Migration(dsn, source, tmp_path / "b", params, run_id="b").all()["verdict"] == "identical"
    )
    assert database.rows("SELECT count(*) FROM elsewhere.audit") == [(18,)]


def test_a_read_only_default_of_the_whole_database_is_respected(
    database: Database, source: Path, tmp_path: Path
) -> None:
    """Somebody has made the database read-only, as a provider does on a full disk: named."""
    alter = f'ALTER DATABASE "{database.name}"'
    database.execute(f"{alter} SET default_transaction_read_only = on")
    with pytest.raises(TargetNotReady, match="read-only"):
        Migration(database.dsn, source, tmp_path / "exports").check()


def test_older_tables_are_brought_up_to_date_in_spite_of_defaults(
    database: Database, role: Callable[[str], str], source: Path, tmp_path: Path
) -> None:
    """What needs a session of its own gets one with settings of ours."""
    dsn = role("default_transaction_read_only = on")
    for setting in (
        "statement_timeout = '5ms'",
        "idle_session_timeout = '20ms'",
        "search_path = ''",
    ):
        role(setting)
    migration = Migration(dsn, source, tmp_path / "exports", {"on_blocker": "sanitize"})
    migration.check()
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        conn.execute("ALTER TABLE checkpoint_writes DROP COLUMN task_path")
        conn.execute("DROP INDEX checkpoints_thread_id_idx")
        conn.execute("DELETE FROM checkpoint_migrations WHERE v > 5")
    assert migration.all()["verdict"] == "identical"
    assert database.rows("SELECT to_regclass('public.checkpoints_thread_id_idx') IS NULL") == [
        (False,)
    ]


def within(database: Database, statement: str, setting: str) -> None:
    """Run a statement in a transaction that has a setting of its own."""
    with transaction(database.connect, "working") as conn:
        conn.execute(f"SET LOCAL {setting}".encode())
        conn.execute(statement.encode())


# --- timeouts, each by its name ----------------------------------------------------------------


def test_a_session_that_rested_too_long_is_transient(database: Database) -> None:
    """Its end is no fault of the configuration: another try, on another connection, helps."""

    def rest() -> None:
        with translated_errors("resting"), database.connect() as conn:
            conn.execute("SET idle_session_timeout = 10")
            time.sleep(0.2)
            conn.execute("SELECT 1")

    with pytest.raises(TargetUnreachable, match="57P05") as ended:
        rest()
    assert ended.value.transient


def test_connections_that_end_before_their_first_word_are_replaced_at_once(
    database: Database, role: Callable[[str], str], source: Path, tmp_path: Path
) -> None:
    """Every other connection comes too late for its session, in each step: no task has to be tried again."""
    dsn = role("idle_session_timeout = '20ms'")
    turns = itertools.count()

    class Late(Migration):
        def connect(self) -> psycopg.Connection[Any]:
            conn = super().connect()
            if next(turns) % 2:
                time.sleep(0.1)
            return conn

    migration = Late(dsn, source, tmp_path / "exports", {"on_blocker": "sanitize"})
    assert migration.all()["verdict"] == "identical"


class Slow(psycopg.Connection[Any]):
    """A session of a server under load: its first word takes longer than its timeout lets it."""

    def execute(self, *args: Any, **kwargs: Any) -> psycopg.Cursor[Any]:
        super().execute("SELECT pg_sleep(1)")
        return super().execute(*args, **kwargs)


def test_a_timeout_that_cancels_the_word_that_lifts_it_is_lifted_at_once(
    database: Database, source: Path, tmp_path: Path
) -> None:
    """Every other connection is too slow for its own timeout, in each step: no task has to be tried again."""
    dsn = make_conninfo(database.dsn, options="-c statement_timeout=50")
    turns = itertools.count()

    class Loaded(Migration):
        def connect(self) -> psycopg.Connection[Any]:
            return Slow.connect(dsn) if next(turns) % 2 else super().connect()

    migration = Loaded(database.dsn, source, tmp_path / "exports", {"on_blocker": "sanitize"})
    assert migration.all()["verdict"] == "identical"
    assert next(turns) > 10


def test_a_timeout_that_always_cancels_the_word_that_lifts_it_is_named(database: Database) -> None:
    """A few tries at once, then the transient error of a timeout: no endless loop."""
    dsn = make_conninfo(database.dsn, options="-c statement_timeout=5")
    made: list[psycopg.Connection] = []

    def connect() -> psycopg.Connection:
        made.append(Slow.connect(dsn))
        return made[-1]

    with pytest.raises(TargetBusy, match="57014") as struck, transaction(connect, "resting"):
        pass
    assert struck.value.transient
    assert 2 < len(made) < 10
    assert all(conn.closed for conn in made)


def test_a_connection_that_always_ends_before_its_first_word_is_given_up(
    database: Database,
) -> None:
    """A few tries at once, then a transient error: no endless loop."""
    opened: list[psycopg.Connection] = []

    def connect() -> psycopg.Connection:
        conn = database.connect(options="-c idle_session_timeout=1")
        time.sleep(0.1)
        opened.append(conn)
        return conn

    with pytest.raises(TargetUnreachable), transaction(connect, "resting"):
        pass
    assert 2 < len(opened) < 10
    assert all(conn.closed for conn in opened)


@pytest.mark.parametrize(
    ("setting", "statement", "said"),
    [
        ("statement_timeout", "SELECT pg_sleep(5)", "a statement was cancelled.*57014"),
        ("lock_timeout", "LOCK TABLE held", "a lock was not to be had.*55P03"),
    ],
)
def test_a_timeout_that_strikes_is_named_and_transient(
    database: Database, setting: str, statement: str, said: str
) -> None:
    """Which of them it was is told apart by its SQLSTATE."""
    database.execute("CREATE TABLE held ()")
    with database.connect(autocommit=False) as holder:
        holder.execute("LOCK TABLE held")
        with pytest.raises(TargetBusy, match=said) as struck:
            within(database, statement, f"{setting} = 20")
    assert struck.value.transient


def test_nothing_of_a_transaction_outlives_it(database: Database) -> None:
    """Behind a pooler the session is somebody else's afterwards: it is as it was."""
    names = "SELECT name, setting FROM pg_settings WHERE name <> 'transaction_isolation' ORDER BY 1"
    with database.connect() as conn:
        before = conn.execute(names).fetchall()
        with conn.transaction():
            settle(conn, repeatable_read=True, read_only=True)
            assert conn.execute(names).fetchall() != before
        assert conn.execute(names).fetchall() == before
