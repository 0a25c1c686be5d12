"""What check_schema says of targets that can and cannot take a migration, on a real server."""

from __future__ import annotations

import pickle
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.postgres.shallow import ShallowPostgresSaver
from msgspec import structs
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row

from include.checkpoint_migration.errors import TargetBusy, TargetNotReady, TargetUnreachable
from include.checkpoint_migration.model import TargetInfo
from include.checkpoint_migration.postgres import Connect
from include.checkpoint_migration.preflight import check_target, recheck_on, recheck_target
from include.checkpoint_migration.preflight.layout import read_layout
from include.checkpoint_migration.settings import Settings
from include.checkpoint_migration.tables import DECLARED, PRIMARY_KEYS
from tests.support.postgres import Database, TestServer

SETTINGS = Settings("migrate_checkpoints", "manual", "/source.sqlite", "/exports")
LATEST = len(PostgresSaver.MIGRATIONS) - 1
SECRET = "p4ss-w0rd-of-a-test"


def check(connect: Connect, settings: Settings = SETTINGS) -> TargetInfo:
    return check_target(connect, settings, conn_id="langgraph_postgres")


def refusal(connect: Connect, settings: Settings = SETTINGS) -> TargetNotReady:
    with pytest.raises(TargetNotReady) as refused:
        check(connect, settings)
    assert SECRET not in str(refused.value)
    assert pickle.loads(pickle.dumps(refused.value)).facts == refused.value.facts
    return refused.value


def set_up(database: Database, schema: str = "public", upto: int = LATEST) -> None:
    """Make the saver's tables as a release did whose last migration was `upto`."""

    class Older(PostgresSaver):
        MIGRATIONS = PostgresSaver.MIGRATIONS[: upto + 1]

    with database.connect(row_factory=dict_row) as conn:
        conn.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(schema)))
        Older(conn).setup()


def everything(database: Database) -> list[Any]:
    """All relations, columns and schemas of the database, to see that nothing was made."""
    return database.rows(
        "select n.nspname, c.relname, a.attname from pg_namespace n left join pg_class c"
        " on c.relnamespace = n.oid left join pg_attribute a on a.attrelid = c.oid"
        " where n.nspname !~ '^(pg_|information_schema)' order by 1, 2, 3"
    )


class Role:
    """A role that may log in and nothing else, until a test grants more."""

    def __init__(self, database: Database, name: str) -> None:
        self.name = name
        self._dsn = make_conninfo(database.dsn, user=name, password=SECRET)

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self._dsn)


@contextmanager
def role_of(database: Database) -> Iterator[Role]:
    name = f'migrator "{uuid4().hex[:8]}"'
    quoted = sql.Identifier(name)
    with database.connect() as conn:
        conn.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(quoted, sql.Literal(SECRET))
        )
        conn.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    try:
        yield Role(database, name)
    finally:
        with database.connect() as conn:
            conn.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(quoted))
            conn.execute(sql.SQL("DROP ROLE {}").format(quoted))


@pytest.fixture
def role(database: Database) -> Iterator[Role]:
    with role_of(database) as made:
        yield made


# --- what is fine -----------------------------------------------------------------------------


def test_an_empty_database_gets_the_savers_own_tables(database: Database) -> None:
    """Missing tables are made by PostgresSaver.setup(), and a second look finds them made."""
    first = check(database.connect)
    assert first.created_tables
    assert first.tables_version == LATEST
    assert first.database == database.name
    assert first.encoding == "UTF8"
    assert re.fullmatch(r"\d+(\.\d+)*", first.server_version)
    assert first.warnings == ()
    again = check(database.connect)
    assert again == structs.replace(first, created_tables=False)
    recheck_target(database.connect, SETTINGS, again)


def test_the_columns_expected_are_those_of_the_real_setup(database: Database) -> None:
    """The layout that is written down here is what the installed saver's setup() makes."""
    set_up(database)
    with database.connect() as conn:
        layout = read_layout(conn, "public")
    made = {
        table.name: {c.name: c.type + "!" * c.not_null for c in table.columns}
        for table in layout.tables.values()
    }
    assert made == DECLARED
    assert {table.name: table.key for table in layout.tables.values()} == PRIMARY_KEYS
    assert layout.version == LATEST


def test_tables_of_an_older_release_are_brought_up_to_date(database: Database) -> None:
    """Tables of every older version are updated by setup(), and their rows stay."""
    for upto in range(LATEST):
        schema = f"older {upto}"
        database.execute(f'CREATE SCHEMA "{schema}"')
        set_up(database, schema, upto)
        info = check(database.connect, replace(SETTINGS, target_schema=schema))
        assert (info.created_tables, info.tables_version) == (True, LATEST), upto


def test_a_schema_is_taken_by_its_exact_name(database: Database) -> None:
    """Quotes, capitals and spaces in target_schema name that schema and none else."""
    schema = 'Chat "prod"; drop schema public'
    with database.connect() as conn:
        conn.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    info = check(database.connect, replace(SETTINGS, target_schema=schema))
    assert info.schema == schema
    found = database.rows("select schemaname from pg_tables where tablename = 'checkpoints'")
    assert found == [(schema,)]


def test_a_rehearsal_makes_its_scratch_schema_and_touches_no_other(database: Database) -> None:
    """A rehearsal's tables are made in a schema of its own, once the target's pass for a real run."""
    settings = replace(SETTINGS, rehearsal=True)
    info = check(database.connect, settings)
    assert info.schema == settings.live_schema != "public"
    assert info.tables_version == LATEST
    assert database.rows("select count(*) from pg_tables where schemaname = 'public'") == [(0,)]
    recheck_target(database.connect, settings, info)


def test_columns_of_somebody_elses_are_fine_where_an_insert_passes(database: Database) -> None:
    """A column beside the saver's that is nullable or has a default refuses nothing."""
    set_up(database)
    database.execute(
        "ALTER TABLE checkpoints ADD created timestamptz NOT NULL DEFAULT now(), ADD note text,"
        " ADD number bigint GENERATED ALWAYS AS IDENTITY"
    )
    assert not check(database.connect).created_tables


def test_what_works_but_deserves_a_look_is_a_warning(database: Database) -> None:
    """Triggers, constraints, broken indexes, unlogged tables are told and do not refuse."""
    set_up(database)
    with database.connect() as conn:
        conn.execute(
            "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
        )
        conn.execute(
            "CREATE TRIGGER audit BEFORE INSERT ON checkpoints FOR EACH ROW EXECUTE FUNCTION note()"
        )
        conn.execute("ALTER TABLE checkpoint_writes ADD CONSTRAINT short CHECK (idx < 9000)")
        conn.execute("ALTER TABLE checkpoint_blobs SET UNLOGGED")
        conn.execute(
            "UPDATE pg_index SET indisvalid = false"
            " WHERE indexrelid = 'checkpoints_thread_id_idx'::regclass"
        )
    warnings = check(database.connect).warnings
    assert any("checkpoints has the trigger audit" in w for w in warnings)
    assert any("checkpoint_writes has the check short" in w for w in warnings)
    assert any("checkpoint_blobs is unlogged" in w for w in warnings)
    assert any("the invalid index checkpoints_thread_id_idx" in w for w in warnings)
    assert len(warnings) == 4


def test_two_checks_at_once_make_one_set_of_tables(database: Database) -> None:
    """Of two that make the tables at the same time each succeeds or is told to try again."""
    with ThreadPoolExecutor(4) as pool:
        ends = [pool.submit(check, database.connect) for _ in range(4)]
    errors = [e for e in (end.exception() for end in ends) if e is not None]
    assert all(isinstance(error, TargetBusy) and error.transient for error in errors)
    assert len(errors) < len(ends)
    assert not check(database.connect).created_tables
    assert database.rows("select count(*) from pg_tables where schemaname = 'public'") == [(4,)]


def test_a_busy_application_does_not_hold_up_new_tables(database: Database) -> None:
    """A transaction that stays open elsewhere in the database is not waited for."""
    database.execute("CREATE TABLE other (id int)")
    with database.connect(autocommit=False) as busy:
        busy.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        busy.execute("INSERT INTO other VALUES (1)")
        assert check(database.connect).created_tables


def test_behind_a_pooler_new_tables_are_made_where_they_belong(database: Database) -> None:
    """Through a pooler tables are made in the right schema; updating is refused with a way out."""
    database.execute("CREATE SCHEMA chat")
    database.execute("CREATE SCHEMA old")
    set_up(database, "old", upto=5)
    with pooler_before(database) as connect:
        assert check(connect, replace(SETTINGS, target_schema="chat")).pooled
        error = refusal(connect, replace(SETTINGS, target_schema="old"))
    assert "pooler" in error.what
    assert not check(database.connect, replace(SETTINGS, target_schema="chat")).pooled
    assert database.rows("select count(*) from pg_tables where schemaname = 'chat'") == [(4,)]
    assert database.rows("select max(v) from old.checkpoint_migrations") == [(5,)]


@contextmanager
def pooler_before(database: Database) -> Iterator[Connect]:
    """A proxy that tells its clients a process id of its own, as pgbouncer does."""

    def carry(source: socket.socket, sink: socket.socket, change: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                # BackendKeyData: its letter, its length of 12, the process id, the secret
                at = data.find(b"K\x00\x00\x00\x0c") if change else -1
                if at >= 0:
                    data = data[: at + 5] + bytes(4) + data[at + 9 :]
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                server = socket.create_connection((info["host"], int(info["port"])))
                open_sockets.extend([client, server])
                for args in ((client, server, False), (server, client, True)):
                    threading.Thread(target=carry, args=args, daemon=True).start()

    info = conninfo_to_dict(database.dsn)
    open_sockets: list[socket.socket] = []
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    dsn = make_conninfo(
        database.dsn,
        host="127.0.0.1",
        port=listening.getsockname()[1],
        sslmode="disable",
        gssencmode="disable",
    )
    try:
        yield lambda: psycopg.connect(dsn)
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        for one in (listening, *open_sockets):
            one.close()
        thread.join(5)


# --- the server -------------------------------------------------------------------------------


def test_a_server_that_is_not_there_is_tried_again(database: Database) -> None:
    """A refused connection is a transient error that shows no password."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        dsn = make_conninfo(database.dsn, port=held.getsockname()[1], password=SECRET)
        with pytest.raises(TargetUnreachable) as unreachable:
            check(lambda: psycopg.connect(dsn))
    assert unreachable.value.transient
    assert SECRET not in str(unreachable.value)


def test_a_database_that_is_not_utf8_is_refused(postgres_server: TestServer) -> None:
    """Another encoding cannot hold every text of SQLite: refused by its name."""
    with postgres_server.database(ENCODING="LATIN1", LOCALE="C") as latin:
        error = refusal(latin.connect)
        assert "LATIN1" in error.what
        assert "UTF8" in error.what
        assert everything(latin) == [("public", None, None)]


def test_a_read_only_database_is_refused(database: Database) -> None:
    """A database that takes no writes is refused before anything is tried."""
    database.execute(f'ALTER DATABASE "{database.name}" SET default_transaction_read_only = on')
    assert "read-only" in refusal(database.connect).what


# --- privileges -------------------------------------------------------------------------------


def test_every_missing_privilege_is_named_at_once(database: Database, role: Role) -> None:
    """All that is lacking comes in one error, with statements that then suffice."""
    set_up(database)
    before = everything(database)
    error = refusal(role.connect, replace(SETTINGS, on_conflict="replace"))
    statements = error.facts["statements"]
    assert len(statements) == 5
    lacking = " ".join(error.facts["missing"])
    assert f'CREATE on database "{database.name}"' in lacking
    for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes"):
        assert f'SELECT, INSERT, UPDATE on table "public"."{table}"' in lacking
    assert 'SELECT on table "public"."checkpoint_migrations"' in lacking
    assert all(statement in error.next for statement in statements)
    assert everything(database) == before
    for statement in statements:
        database.execute(statement)
    assert not check(role.connect, replace(SETTINGS, on_conflict="replace")).created_tables


def test_statements_suffice_to_make_the_tables(database: Database, role: Role) -> None:
    """On an empty database CREATE is asked for on database and schema, and then setup() runs."""
    database.execute("REVOKE USAGE ON SCHEMA public FROM PUBLIC")
    error = refusal(role.connect)
    assert len(error.facts["statements"]) == 2
    assert any("USAGE, CREATE on schema" in what for what in error.facts["missing"])
    for statement in error.facts["statements"]:
        database.execute(statement)
    assert check(role.connect).created_tables


def test_a_schema_that_is_not_there_comes_with_its_statement(
    database: Database, role: Role
) -> None:
    """A missing schema and a missing privilege are one error, and its statements then suffice."""
    settings = replace(SETTINGS, target_schema='the "chat"')
    error = refusal(role.connect, settings)
    assert any("does not exist" in what for what in error.facts["missing"])
    assert len(error.facts["statements"]) == 2
    for statement in error.facts["statements"]:
        database.execute(statement)
    assert check(role.connect, settings).created_tables


def test_older_tables_of_another_owner_ask_for_ownership(database: Database, role: Role) -> None:
    """Where setup() has to alter tables of another role, that is named before it fails halfway."""
    set_up(database, upto=5)
    before = everything(database)
    error = refusal(role.connect)
    assert sum("which setup() has to alter" in what for what in error.facts["missing"]) == 3
    assert everything(database) == before
    owners = [s for s in error.facts["statements"] if " ON " not in s]
    with database.connect() as conn:
        for statement in error.facts["statements"]:
            if statement not in owners:
                conn.execute(statement.encode())
        # The tables belong to a superuser here, which no test hands out: the role gets them.
        for table in DECLARED:
            conn.execute(
                sql.SQL("ALTER TABLE {} OWNER TO {}").format(
                    sql.Identifier(table), sql.Identifier(role.name)
                )
            )
        conn.execute(
            sql.SQL("GRANT CREATE ON SCHEMA public TO {}").format(sql.Identifier(role.name))
        )
    assert check(role.connect).tables_version == LATEST


def test_a_ledger_of_another_role_is_named_with_its_tables(database: Database, role: Role) -> None:
    """A ledger schema that is there must be usable: what is lacking on it is in the same error."""
    set_up(database)
    database.execute("CREATE SCHEMA checkpoint_migration")
    database.execute("CREATE TABLE checkpoint_migration.runs (id int)")
    error = refusal(role.connect)
    missing = " ".join(error.facts["missing"])
    assert 'USAGE, CREATE on schema "checkpoint_migration"' in missing
    assert 'SELECT, INSERT, UPDATE, DELETE on table "checkpoint_migration"."runs"' in missing
    for statement in error.facts["statements"]:
        database.execute(statement)
    check(role.connect)


def test_staging_left_by_another_role_is_named(database: Database, role: Role) -> None:
    """Staging of the same name that this role may not drop is refused before any work."""
    set_up(database)
    database.execute(f"CREATE SCHEMA {SETTINGS.staging_schema}")
    error = refusal(role.connect)
    assert f'DROP SCHEMA "{SETTINGS.staging_schema}" CASCADE;' in error.facts["statements"]


# --- tables -----------------------------------------------------------------------------------


def test_missing_tables_are_listed_where_none_may_be_made(database: Database) -> None:
    """With create_tables false all missing tables are named, and nothing is made."""
    before = everything(database)
    error = refusal(database.connect, replace(SETTINGS, create_tables=False))
    assert all(f"the table {name} is missing" in error.what for name in DECLARED)
    assert everything(database) == before


def test_older_tables_are_refused_where_none_may_be_altered(database: Database) -> None:
    """With create_tables false an older version is refused, both numbers named."""
    set_up(database, upto=8)
    before = everything(database)
    error = refusal(database.connect, replace(SETTINGS, create_tables=False))
    assert "version 8" in error.what
    assert f"older than {LATEST}" in error.what
    assert everything(database) == before


def test_newer_tables_than_the_library_knows_are_refused(database: Database) -> None:
    """A version beyond the installed library's is refused, both numbers named."""
    set_up(database)
    database.execute("INSERT INTO checkpoint_migrations VALUES (%s)", LATEST + 3)
    error = refusal(database.connect)
    assert f"version {LATEST + 3}, newer than version {LATEST}" in error.what


def test_the_shallow_savers_tables_are_refused_by_name(database: Database) -> None:
    """Tables that keep the latest checkpoint only are recognised, whatever version they record."""
    with database.connect(row_factory=dict_row) as conn, pytest.warns(match="deprecated"):
        ShallowPostgresSaver(conn).setup()
    assert "ShallowPostgresSaver" in refusal(database.connect).what


def test_a_recorded_version_without_its_table_is_refused(database: Database) -> None:
    """setup() would not make a table again that it recorded as made: said, not half done."""
    set_up(database)
    database.execute("DROP TABLE checkpoint_blobs")
    error = refusal(database.connect)
    assert f"records version {LATEST}, yet the table checkpoint_blobs is missing" in error.what


def test_tables_without_their_version_are_completed(database: Database) -> None:
    """Where only the record of versions is gone, setup() runs and changes no table."""
    set_up(database)
    database.execute("DROP TABLE checkpoint_migrations")
    assert check(database.connect).tables_version == LATEST


LAZY_KEY = "ADD PRIMARY KEY (thread_id, checkpoint_ns, channel, version) DEFERRABLE"


@pytest.mark.parametrize(
    ("altering", "said"),
    [
        ("ALTER TABLE checkpoints ADD tenant text NOT NULL", "checkpoints.'tenant' is NOT NULL"),
        ("ALTER TABLE checkpoint_writes DROP task_path", "checkpoint_writes.task_path is missing"),
        ("ALTER TABLE checkpoint_blobs ALTER version TYPE varchar(64)", "should be text"),
        ("ALTER TABLE checkpoints ALTER parent_checkpoint_id SET NOT NULL", "is NOT NULL"),
        ("ALTER TABLE checkpoint_writes DROP CONSTRAINT checkpoint_writes_pkey", "no primary key"),
        ("CREATE RULE deaf AS ON INSERT TO checkpoints DO INSTEAD NOTHING", "has rules"),
        (
            "ALTER TABLE checkpoint_blobs DROP type, ADD type text GENERATED ALWAYS AS ('') STORED",
            "checkpoint_blobs.type is generated",
        ),
        (
            "ALTER TABLE checkpoints ALTER type SET DEFAULT 'json'",
            "checkpoints.type has a default",
        ),
        (
            f"ALTER TABLE checkpoint_blobs DROP CONSTRAINT checkpoint_blobs_pkey, {LAZY_KEY}",
            "checkpoint_blobs is DEFERRABLE",
        ),
        (
            "CREATE TABLE archived () INHERITS (checkpoint_writes)",
            "checkpoint_writes has tables that inherit",
        ),
    ],
)
def test_tables_that_are_not_the_savers_own_are_refused(
    database: Database, altering: str, said: str
) -> None:
    """Each alteration that the saver or an insert would stumble over is named."""
    set_up(database)
    database.execute(altering)
    assert said in refusal(database.connect).what


def test_all_that_is_wrong_with_tables_is_said_at_once(database: Database) -> None:
    """Two wrong tables give one error that names both."""
    set_up(database)
    database.execute("ALTER TABLE checkpoints DROP metadata, ADD x int NOT NULL")
    database.execute("ALTER TABLE checkpoint_writes DROP CONSTRAINT checkpoint_writes_pkey")
    assert len(refusal(database.connect).facts["problems"]) == 3


@pytest.mark.parametrize(
    "other",
    [
        "CREATE VIEW checkpoints AS SELECT 1 AS thread_id",
        "CREATE SEQUENCE checkpoint_writes",
        "CREATE TABLE checkpoints (id serial PRIMARY KEY, saved timestamptz)",
        "CREATE TABLE checkpoint_migrations (app text, name text)",
    ],
)
def test_something_else_under_a_savers_name_is_left_alone(database: Database, other: str) -> None:
    """A name that is taken by somebody else's relation is refused before anything is made."""
    database.execute(other)
    before = everything(database)
    refusal(database.connect)
    assert everything(database) == before


def test_row_level_security_that_applies_is_refused(database: Database, role: Role) -> None:
    """Policies that hide rows from this role would hide conflicts: refused; an owner may pass."""
    set_up(database)
    for statement in refusal(role.connect).facts["statements"]:
        database.execute(statement)
    database.execute("ALTER TABLE checkpoints ENABLE ROW LEVEL SECURITY")
    assert "row level security" in refusal(role.connect).what
    assert check(database.connect).warnings == ()


# --- between check and promote ----------------------------------------------------------------


@pytest.mark.parametrize(
    "altering",
    [
        "ALTER TABLE checkpoints ADD seen boolean DEFAULT false",
        "ALTER TABLE checkpoint_blobs ALTER blob SET NOT NULL",
        "INSERT INTO checkpoint_migrations VALUES (77)",
        "DROP TABLE checkpoint_writes",
        "ALTER SCHEMA public RENAME TO elsewhere",
    ],
)
def test_a_schema_altered_after_the_check_is_noticed(database: Database, altering: str) -> None:
    """Whatever of the tables changes between check_schema and promote, promote is refused."""
    info = check(database.connect)
    database.execute(altering)
    with pytest.raises(TargetNotReady):
        recheck_target(database.connect, SETTINGS, info)


def test_a_table_made_anew_after_the_check_is_noticed(database: Database) -> None:
    """The same layout in other tables is another target."""
    info = check(database.connect)
    for table in DECLARED:
        database.execute(f"DROP TABLE {table}")
    set_up(database)
    with pytest.raises(TargetNotReady, match="altered after check_schema"):
        recheck_target(database.connect, SETTINGS, info)


def test_the_second_look_works_inside_a_transaction(database: Database) -> None:
    """The look before promote can be taken in the very transaction that promotes."""
    info = check(database.connect)
    with database.connect(autocommit=False) as conn:
        conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        recheck_on(conn, SETTINGS, info)
        assert conn.execute("select 1").fetchone() == (1,)


def test_a_privilege_revoked_after_the_check_is_noticed(database: Database, role: Role) -> None:
    """A privilege that is gone by the time of promote is named as check_schema would."""
    set_up(database)
    for statement in refusal(role.connect).facts["statements"]:
        database.execute(statement)
    info = check(role.connect)
    with database.connect() as conn:
        conn.execute(
            sql.SQL("REVOKE INSERT ON checkpoint_blobs FROM {}").format(sql.Identifier(role.name))
        )
    with pytest.raises(TargetNotReady) as refused:
        recheck_target(role.connect, SETTINGS, info)
    assert refused.value.facts["missing"] == ['INSERT on table "public"."checkpoint_blobs"']
