"""The long-term store: what SqliteStore keeps is live in PostgreSQL's tables, all of it or nothing."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langgraph.store.base import ListNamespacesOp, MatchCondition, SearchOp
from langgraph.store.sqlite.aio import AsyncSqliteStore

from include import checkpoint_migration as engine
from include.checkpoint_migration import store_tables
from include.checkpoint_migration.errors import (
    Blocked,
    MigrationError,
    SourceDrifted,
    SourceHasNoTables,
    TargetConflict,
    TargetNotReady,
    VerificationFailed,
)
from include.checkpoint_migration.preflight.layout import read_tables
from tests.support.engine import Migration
from tests.support.postgres import Database
from tests.support.stores import (
    asked,
    everything_in,
    keys_of,
    moments_of_postgres,
    moments_of_sqlite,
    postgres_store,
    sqlite_store,
    write_many,
)

MANY = 10_000
QUESTIONS = (
    SearchOp(("users",), filter={"kind": "even"}, limit=MANY, refresh_ttl=False),
    SearchOp(("users", "u5"), filter={"ok": True}, limit=MANY, refresh_ttl=False),
    SearchOp(("users", "u5"), filter={"n": 102}, limit=MANY, refresh_ttl=False),
    SearchOp(("users", "u7"), filter={"kind": {"$ne": "odd"}}, limit=MANY, refresh_ttl=False),
    SearchOp(("users", "u7", "東京"), limit=MANY, refresh_ttl=False),
    SearchOp((), limit=MANY + 1, refresh_ttl=False),
    ListNamespacesOp(limit=MANY),
    ListNamespacesOp(max_depth=2, limit=MANY),
    ListNamespacesOp(match_conditions=(MatchCondition("suffix", ("er",)),), limit=MANY),
    ListNamespacesOp(
        match_conditions=(MatchCondition("prefix", ("users", "*", "🍵")),), limit=MANY
    ),
)


@pytest.fixture
def source(small_sample: Path) -> Path:
    """Checkpoints, and beside them a store of a few items."""
    with sqlite_store(small_sample) as store:
        write_many(store, 60)
    return small_sample


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """A store in a file of its own."""
    path = tmp_path / "store.sqlite"
    with sqlite_store(path) as store:
        write_many(store, 60)
    return path


def live_items(database: Database) -> list[Any]:
    query = "SELECT prefix, key, value::text, expires_at FROM store ORDER BY 1, 2"
    return database.rows(query) if database.rows("SELECT to_regclass('store')") != [(None,)] else []


def warned(report: dict[str, Any]) -> dict[str, Any]:
    return {warning["kind"]: warning for warning in report["warnings"]}


def test_ten_thousand_items_read_back_equal_through_both_stores(
    run_on: Callable[..., Migration], database: Database, tmp_path: Path
) -> None:
    """Every item, every TTL, searches with filters and namespaces answer alike; what is written while
    the run goes on is drift, counted exactly, and comes with the next run.
    """
    path = tmp_path / "store.sqlite"
    with sqlite_store(path) as store:
        write_many(store, MANY)
    before = moments_of_sqlite(path)

    def application(step: str) -> None:
        if step == "export":
            with sqlite_store(path) as store:
                store.put(("users", "late"), "one", {"n": -1})

    report = run_on(path, {"on_drift": "report"}, run_id="first").all(application)
    assert report["verdict"] == "identical"
    assert set(report["counts"]["store"].values()) == {MANY, MANY + 1}
    assert report["counts"]["store"]["source"] == MANY + 1
    assert report["drift"]["store"] == {"added": 1, "changed": 0, "removed": 0}
    assert f"{MANY:,} store items" in report["sentence"]
    assert moments_of_postgres(database.dsn) == before
    again = run_on(path, run_id="second").all()
    assert again["verdict"] == "identical"
    assert set(again["counts"]["store"].values()) == {MANY + 1}
    keys = keys_of(path)
    with sqlite_store(path) as here, postgres_store(database.dsn) as there:
        ours = everything_in(here, keys)
        assert len(ours) == MANY + 1
        assert everything_in(there, keys) == ours
        for question in QUESTIONS:
            answer = asked(here, question)
            assert answer
            assert asked(there, question) == answer, question


def test_checkpoints_and_store_go_live_in_one_run(
    run_on: Callable[..., Migration], source: Path, database: Database
) -> None:
    """One verdict covers both; the report counts the store beside the checkpoints and lists it."""
    report = run_on(source).all()
    assert report["verdict"] == "identical"
    assert set(report["counts"]["checkpoints"].values()) == {80}
    assert set(report["counts"]["store"].values()) == {60}
    assert report["scope"]["store"] == {"taken": 60, "left_out": 0}
    assert sum(line["items"] for line in report["store"]["listed"]) == 60
    assert report["store"]["namespaces"] == len(report["store"]["listed"])
    assert "with 60 store items" in report["sentence"]
    assert "store_tables" not in warned(report)
    assert len(live_items(database)) == 60


def test_a_source_without_a_store_has_no_word_of_one(
    run_on: Callable[..., Migration], small_sample: Path, database: Database
) -> None:
    """Neither the report nor the target has anything of a store where the source has none."""
    report = run_on(small_sample).all()
    assert "store" not in {*report, *report["counts"], *report["scope"], *report["drift"]}
    assert database.rows("SELECT to_regclass('store')") == [(None,)]


def test_a_store_in_a_file_of_its_own_is_a_source(
    run_on: Callable[..., Migration], alone: Path, database: Database
) -> None:
    """A file without checkpoint tables migrates when it holds a store, and is refused without one."""
    report = run_on(alone).all()
    assert report["verdict"] == "identical"
    assert report["source"]["format"] == "langgraph-checkpoint-sqlite store"
    assert report["counts"]["checkpoints"]["live"] == 0
    assert report["counts"]["store"]["live"] == len(live_items(database)) == 60
    with pytest.raises(SourceHasNoTables):
        run_on(alone, {"store": "skip"}).check()


def test_a_store_of_which_nothing_is_left_migrates(
    run_on: Callable[..., Migration], tmp_path: Path
) -> None:
    """Tables without an item succeed with zeros."""
    path = tmp_path / "empty.sqlite"
    with sqlite_store(path):
        pass
    report = run_on(path).all()
    assert report["verdict"] == "identical"
    assert set(report["counts"]["store"].values()) == {0}
    assert "nothing to migrate" in report["sentence"]


def test_skip_leaves_the_store_and_says_so(
    run_on: Callable[..., Migration], source: Path, database: Database
) -> None:
    """`store: skip` migrates the checkpoints alone, as if the store were another's table."""
    report = run_on(source, {"store": "skip"}).all()
    assert report["verdict"] == "identical"
    assert "store" not in report["counts"]
    assert "'store' (60 rows)" in warned(report)["store_tables"]["message"]
    assert live_items(database) == []


def test_threads_by_name_leave_the_store_and_nobody_is_sent_over(
    run_on: Callable[..., Migration], source: Path
) -> None:
    """The store belongs to no thread: globs that take leave it behind, globs that exclude do not."""
    thread = sqlite3.connect(source).execute("SELECT min(thread_id) FROM checkpoints").fetchone()[0]
    report = run_on(source, {"threads": [thread]}, run_id="some").all()
    assert report["scope"]["store"] == {"taken": 0, "left_out": 60}
    assert "60 store items stay behind" in report["sentence"]
    assert not any("Start the application" in step for step in report["next_steps"])
    report = run_on(source, {"threads": [f"!{thread}"]}, run_id="others").all()
    assert report["scope"]["store"] == {"taken": 60, "left_out": 0}
    assert set(report["counts"]["store"].values()) == {60}


# --- what stands against it ---


@pytest.mark.parametrize(
    ("column", "statement", "why"),
    [
        ("store.value", 'UPDATE store SET value = \'{"a":"\\u0000"}\' WHERE {one}', "NUL"),
        ("store.value", "UPDATE store SET value = '{\"a\":NaN}' WHERE {one}", "NaN"),
        ("store.value", "UPDATE store SET value = '[1]' WHERE {one}", "no JSON object"),
        ("store.key", "UPDATE store SET key = 'a' || char(0) WHERE {one}", "NUL"),
        ("store.prefix", "UPDATE store SET prefix = x'ff' WHERE {one}", "no UTF-8"),
        ("store.ttl_minutes", "UPDATE store SET ttl_minutes = 1.5 WHERE {one}", "part of a minute"),
        ("store.updated_at", "UPDATE store SET updated_at = 17 WHERE {one}", "no moment"),
        (
            "store.created_at",
            "UPDATE store SET created_at = '2026-02-30 01:02:03' WHERE {one}",
            "cal",
        ),
        ("store.key", "UPDATE store SET key = hex(randomblob(4000)) WHERE {one}", "index"),
    ],
)
def test_what_has_no_place_is_a_blocker_and_nothing_goes_live(
    run_on: Callable[..., Migration],
    source: Path,
    database: Database,
    column: str,
    statement: str,
    why: str,
) -> None:
    """Each is listed by namespace and key, none as a thread to be left out."""
    with closing(sqlite3.connect(source)) as conn:
        conn.execute(statement.replace("{one}", "rowid = (SELECT min(rowid) FROM store)"))
        conn.commit()
    migration = run_on(source)
    with pytest.raises(Blocked):
        migration.all()
    (blocker,) = migration.report["blockers"]
    assert blocker["column"] == column
    assert why in blocker["why"]
    assert blocker["thread_id"] == ""
    assert live_items(database) == []


def test_a_part_of_a_minute_is_rounded_up_at_the_users_choice(
    run_on: Callable[..., Migration], alone: Path, database: Database
) -> None:
    """The instant of expiry stays; the minutes become whole, their originals are kept and told."""
    with sqlite_store(alone) as store:
        store.put(("ttl",), "k", {}, ttl=0.25)
    expiry = moments_of_sqlite(alone)["ttl", "k"][0]
    refused = run_on(alone, run_id="fail")
    with pytest.raises(Blocked, match="sanitize, which solves it") as blocked:
        refused.all()
    assert "store: skip" in blocked.value.next
    report = run_on(alone, {"on_blocker": "sanitize"}, run_id="sanitize").all()
    assert report["verdict"] == "identical"
    assert warned(report)["store_minutes"]["count"] == 1
    assert moments_of_postgres(database.dsn)["ttl", "k"] == (expiry, 1)
    originals = "SELECT checkpoint_ns, checkpoint_id, original FROM checkpoint_migration.originals"
    assert database.rows(originals) == [("ttl", "k", b"0.25")]


def test_numbers_that_jsonb_writes_otherwise_migrate_with_a_warning(
    run_on: Callable[..., Migration], alone: Path, database: Database
) -> None:
    """They are what PostgresStore itself would have made of the same put."""
    value = {"big": 1e20, "minus": -0.0, "tiny": 1e-7, "int": 2**60, "float": 3.0}
    with sqlite_store(alone) as store:
        store.put(("numbers",), "k", value)
    report = run_on(alone).all()
    assert report["verdict"] == "identical"
    assert warned(report)["store_numbers"]["count"] == 1
    with postgres_store(database.dsn) as store:
        moved = store.get(("numbers",), "k")
        store.put(("numbers",), "put", value)
        put = store.get(("numbers",), "put")
    assert moved is not None
    assert put is not None
    assert repr(moved.value) == repr(put.value)


def test_a_table_of_that_name_that_is_not_the_stores_is_refused(
    run_on: Callable[..., Migration], source: Path, database: Database
) -> None:
    """A shop's table `store` is no PostgresStore's; the checkpoints can still go alone."""
    database.execute("CREATE TABLE store (id int PRIMARY KEY, street text)")
    with pytest.raises(TargetNotReady) as refused:
        run_on(source, run_id="a").check()
    assert "store: skip" in refused.value.next
    assert run_on(source, {"store": "skip"}, run_id="b").all()["verdict"] == "identical"


def test_missing_tables_without_leave_to_make_them_are_refused(
    run_on: Callable[..., Migration], source: Path, database: Database
) -> None:
    """`create_tables: false` makes nothing, for the store as for the checkpoints."""
    run_on(source, {"store": "skip"}, run_id="saver").all()
    with pytest.raises(TargetNotReady, match="the table store is missing"):
        run_on(source, {"create_tables": False}, run_id="store").check()
    assert database.rows("SELECT to_regclass('store')") == [(None,)]


def test_missing_privileges_are_named_with_their_statements(
    run_on: Callable[..., Migration], source: Path, database: Database
) -> None:
    """A role that may not write the store's table is told before any work."""
    run_on(source, run_id="made").all()
    role = f"r_{database.name}"
    database.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    try:
        database.execute(f"GRANT ALL ON DATABASE {database.name} TO {role}")
        database.execute(f"GRANT ALL ON SCHEMA public, checkpoint_migration TO {role}")
        database.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA checkpoint_migration TO {role}")
        database.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
        database.execute(f"REVOKE INSERT ON store FROM {role}")
        migration = run_on(source, run_id="role")
        migration.dsn = psycopg.conninfo.make_conninfo(database.dsn, user=role, password="x")
        with pytest.raises(TargetNotReady) as refused:
            migration.check()
        assert refused.value.facts["missing"] == ['INSERT on table "public"."store"']
    finally:
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


# --- conflicts and catching up ---


def test_the_source_that_changed_since_it_was_frozen_is_drift(
    run_on: Callable[..., Migration], source: Path, database: Database
) -> None:
    """Under `on_drift: fail` an item that is put again meanwhile keeps all of it from going live."""

    def application(step: str) -> None:
        if step == "load":
            with sqlite_store(source) as store:
                (first, *_), second = keys_of(source)[:2], keys_of(source)[1]
                store.put(*first, {"other": True})
                store.delete(*second)

    migration = run_on(source)
    with pytest.raises(SourceDrifted, match="items of the store"):
        migration.all(application)
    assert migration.report["drift"]["store"] == {"added": 0, "changed": 1, "removed": 1}
    assert live_items(database) == []


def changed_on_live(database: Database) -> tuple[str, str]:
    ((prefix, key),) = database.rows("SELECT prefix, key FROM store ORDER BY 1, 2 LIMIT 1")
    statement = 'UPDATE store SET value = \'{{"by": "app"}}\' WHERE prefix = %s AND key = %s'
    database.execute(statement.replace("{{", "{").replace("}}", "}"), prefix, key)
    return prefix, key


def test_a_live_item_with_other_content_is_a_conflict(
    run_on: Callable[..., Migration], source: Path, database: Database
) -> None:
    """`fail` refuses, `keep` leaves it and says `different`, `replace` takes the source's."""
    run_on(source, run_id="first").all()
    sound = live_items(database)
    prefix, key = changed_on_live(database)
    changed = live_items(database)
    refused = run_on(source, run_id="fail")
    with pytest.raises(TargetConflict):
        refused.all()
    (conflict,) = refused.report["conflicts"]
    assert (conflict["table"], conflict["checkpoint_ns"]) == ("store", prefix)
    assert conflict["checkpoint_id"] == key
    assert live_items(database) == changed
    kept = run_on(source, {"on_conflict": "keep"}, run_id="keep")
    with pytest.raises(VerificationFailed):
        kept.all()
    assert kept.report["verdict"] == "different"
    assert live_items(database) == changed
    assert run_on(source, {"on_conflict": "replace"}, run_id="r").all()["verdict"] == "identical"
    assert live_items(database) == sound


def test_catching_up_adds_what_is_new_and_finds_what_is_there(
    run_on: Callable[..., Migration], source: Path, database: Database
) -> None:
    """A second run inserts the new items alone."""
    run_on(source, run_id="first").all()
    with sqlite_store(source) as store:
        store.put(("users", "new"), "k", {"n": 1}, ttl=5)
    second = run_on(source, run_id="second")
    second.to_staging()
    promotion = second.promote()
    assert (promotion.inserted.items, promotion.identical.items) == (1, 60)
    assert second.witness().verdict == "identical"
    assert second.conclude()["counts"]["store"]["live"] == len(live_items(database)) == 61


def test_items_removed_on_postgresql_do_not_come_back(
    run_on: Callable[..., Migration], source: Path, database: Database
) -> None:
    """What the application deleted or its sweeper took after an earlier run stays away, and is told."""
    run_on(source, run_id="first").all()
    with postgres_store(database.dsn) as store:
        for namespace, key in keys_of(source)[:3]:
            store.delete(namespace, key)
    migration = run_on(source, run_id="second")
    migration.all()
    report = migration.report
    assert report["verdict"] == "identical"
    assert report["counts"]["store"]["staged"] == 60
    assert report["counts"]["store"]["live"] == len(live_items(database)) == 57
    assert warned(report)["removed_on_target"]["count"] == 3


def test_expired_items_migrate_and_may_be_swept_before_the_witness_looks(
    run_on: Callable[..., Migration], source: Path, database: Database
) -> None:
    """An item that has expired is a row as any other; that PostgreSQL's own sweeper takes it between
    promote and witness is no difference, and any other loss is.
    """
    long_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat(" ")
    with closing(sqlite3.connect(source)) as conn:
        conn.execute("UPDATE store SET expires_at = ? WHERE key LIKE 'tee/%'", (long_ago,))
        conn.commit()
        ((expired,),) = conn.execute("SELECT count(*) FROM store WHERE key LIKE 'tee/%'")
    migration = run_on(source)
    migration.to_staging()
    migration.promote()
    assert len(live_items(database)) == 60
    with postgres_store(database.dsn, ttl={"default_ttl": 1}) as store:
        assert store.sweep_ttl() == expired
    assert migration.witness().verdict == "identical"
    report = migration.conclude()
    assert warned(report)["swept"]["count"] == expired
    assert report["counts"]["store"]["live"] == 60 - expired


# --- rehearsal, witness, mutants ---


def test_a_rehearsal_covers_the_store_and_touches_no_live_table(
    run_on: Callable[..., Migration], source: Path, database: Database
) -> None:
    """It ends as the real run would, with conflicts that live rows would make, and leaves nothing."""
    rehearsal = {"rehearsal": True, "dag_id": "rehearse_checkpoints"}
    report = run_on(source, run_id="before", **rehearsal).all()
    assert report["verdict"] == "identical"
    assert report["counts"]["store"]["live"] == 60
    assert database.rows("SELECT to_regclass('store')") == [(None,)]
    run_on(source, run_id="real").all()
    changed_on_live(database)
    with pytest.raises(TargetConflict):
        run_on(source, run_id="after", **rehearsal).all()
    schemas = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'checkpoint_rehearsal%'"
    assert database.rows(schemas) == []


ONE = "(prefix, key) = (SELECT prefix, key FROM {s}.store ORDER BY 1, 2 LIMIT 1)"
WITH_TTL = "expires_at IS NOT NULL"
# Each with its effect on the number of rows: "=" where every count stays what it was.
MUTANTS = {
    "an item is gone": ("-", f"DELETE FROM {{s}}.store WHERE {ONE}"),
    "an item too many": (
        "+",
        "INSERT INTO {s}.store SELECT prefix, key || '!', value FROM {s}.store LIMIT 1",
    ),
    "a value of another item": (
        "=",
        f"UPDATE {{s}}.store SET value = (SELECT max(value::text)::jsonb FROM {{s}}.store) WHERE {ONE}",
    ),
    "a number became another type": (
        "=",
        "UPDATE {s}.store SET value = jsonb_set(value, '{n}', to_jsonb(value ->> 'n')) WHERE "
        + ONE,
    ),
    "a key of the value is lost": ("=", f"UPDATE {{s}}.store SET value = value - 'ok' WHERE {ONE}"),
    "null became absence": (
        "=",
        f"UPDATE {{s}}.store SET value = jsonb_strip_nulls(value) WHERE {ONE}",
    ),
    "another key": ("=", f"UPDATE {{s}}.store SET key = key || ' ' WHERE {ONE}"),
    "another namespace": ("=", f"UPDATE {{s}}.store SET prefix = prefix || '.x' WHERE {ONE}"),
    "created in another zone": (
        "=",
        f"UPDATE {{s}}.store SET created_at = created_at + interval '1 hour' WHERE {ONE}",
    ),
    "updated_at is lost": ("=", f"UPDATE {{s}}.store SET updated_at = NULL WHERE {ONE}"),
    "a TTL cut to the second": (
        "=",
        f"UPDATE {{s}}.store SET expires_at = date_trunc('second', expires_at) WHERE {WITH_TTL}",
    ),
    "a TTL is lost": ("=", f"UPDATE {{s}}.store SET expires_at = NULL WHERE {WITH_TTL}"),
    "the minutes are others": (
        "=",
        f"UPDATE {{s}}.store SET ttl_minutes = ttl_minutes + 1 WHERE {WITH_TTL}",
    ),
    "the minutes are lost": ("=", f"UPDATE {{s}}.store SET ttl_minutes = NULL WHERE {WITH_TTL}"),
}


@pytest.fixture(scope="module")
def staged(
    postgres_server: Any, tmp_path_factory: Any
) -> Iterator[tuple[Migration, Any, Database]]:
    """One run up to staging; each test spoils it and puts it back."""
    with store_of_its_own(postgres_server, tmp_path_factory.mktemp("staged")) as (run, database):
        yield run, run.to_staging(), database


@pytest.fixture(scope="module")
def promoted(postgres_server: Any, tmp_path_factory: Any) -> Iterator[tuple[Migration, Database]]:
    """One run that was promoted; each test spoils live and puts it back."""
    with store_of_its_own(postgres_server, tmp_path_factory.mktemp("promoted")) as (run, database):
        run.to_staging()
        run.promote()
        yield run, database


@contextmanager
def store_of_its_own(server: Any, folder: Path) -> Iterator[tuple[Migration, Database]]:
    path = folder / "store.sqlite"
    with sqlite_store(path) as store:
        write_many(store, 60)
    with server.database() as database:
        yield Migration(database.dsn, path, folder / "exports"), database


@contextmanager
def spoilt(database: Database, schema: str, name: str) -> Iterator[str]:
    """A table with a mutant in it, as long as the block lasts; the effect on the number of rows."""
    effect, statement = MUTANTS[name]
    table = f"{schema}.store"
    with database.connect() as conn:
        conn.execute(f"CREATE TABLE public.kept AS TABLE {table}".encode())
        try:
            assert conn.execute(statement.replace("{s}", schema).encode()).rowcount
            sizes = f"SELECT (SELECT count(*) FROM {table}) - (SELECT count(*) FROM public.kept)"
            ((grown,),) = conn.execute(sizes.encode()).fetchall()
            assert (grown > 0) - (grown < 0) == {"=": 0, "-": -1, "+": 1}[effect]
            yield effect
        finally:
            conn.execute(f"TRUNCATE {table}".encode())
            conn.execute(f"INSERT INTO {table} SELECT * FROM public.kept".encode())
            conn.execute("DROP TABLE public.kept")


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_in_staging_is_found(staged: tuple[Migration, Any, Database], name: str) -> None:
    """The oracle finds what a defect of the conversion would do, whether or not a count changes."""
    migration, exports, database = staged
    with (
        spoilt(database, migration.run.settings.staging_schema, name),
        pytest.raises(VerificationFailed) as failure,
    ):
        migration.verify(exports)
    assert failure.value.facts["found"] >= 1
    migration.verify(exports)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_on_live_fails_the_witness(
    promoted: tuple[Migration, Database], name: str
) -> None:
    """A live row that is not what was staged is `different`; one that nobody staged is the
    application's own.
    """
    migration, database = promoted
    with spoilt(database, "public", name) as effect:
        if effect == "+":
            assert migration.witness().verdict == "identical"
        else:
            with pytest.raises(VerificationFailed):
                migration.witness()
            assert migration.conclude()["verdict"] == "different"


def test_most_mutants_keep_every_count() -> None:
    """Counting alone would miss at least two thirds of them."""
    assert sum(effect == "=" for effect, _ in MUTANTS.values()) * 3 >= 2 * len(MUTANTS)


def test_a_cleared_run_that_is_done_looks_at_the_items_again(
    run_on: Callable[..., Migration], source: Path, database: Database
) -> None:
    """The witness of a run that is over holds live items against what the ledger recorded."""
    run_on(source, run_id="once").all()
    assert run_on(source, run_id="once").witness().verdict == "identical"
    changed_on_live(database)
    with pytest.raises(VerificationFailed):
        run_on(source, run_id="once").witness()


def test_staging_that_the_server_lost_is_loaded_again(
    run_on: Callable[..., Migration], source: Path, database: Database
) -> None:
    """An emptied store in staging, receipts and all, is noticed and never promoted short."""
    migration = run_on(source)
    migration.to_staging()
    schema = migration.run.settings.staging_schema
    database.execute(f"TRUNCATE {schema}.store, {schema}.sentinel, {schema}.checkpoints")
    migration.promote()
    assert migration.witness().verdict == "identical"
    assert len(live_items(database)) == 60


def test_staging_that_lost_items_alone_is_never_promoted(
    run_on: Callable[..., Migration], source: Path, database: Database
) -> None:
    """Receipts and staging must agree within the promoting transaction."""
    migration = run_on(source)
    migration.to_staging()
    schema = migration.run.settings.staging_schema
    database.execute(f"DELETE FROM {schema}.store WHERE key LIKE 'tee/%'")
    with pytest.raises(MigrationError, match="receipts"):
        migration.promote()
    assert live_items(database) == []


def test_what_is_declared_is_what_the_real_setup_makes(database: Database) -> None:
    """The columns, types and key that this package expects are those of `PostgresStore.setup()`."""
    with postgres_store(database.dsn) as store:
        store.setup()
    with database.connect() as conn:
        (table,) = read_tables(conn, "public", ("store",)).values()
    found = {c.name: f"{c.type}{'!' if c.not_null else ''}" for c in table.columns}
    assert found == store_tables.DECLARED["store"]
    assert table.key == store_tables.KEYS["store"]


def test_an_older_table_is_brought_up_to_date_or_refused(
    run_on: Callable[..., Migration], source: Path, database: Database
) -> None:
    """`PostgresStore.setup()` adds the columns of TTLs where it may; without leave nothing is altered."""
    with postgres_store(database.dsn) as store:
        store.setup()
    database.execute("ALTER TABLE store DROP COLUMN expires_at, DROP COLUMN ttl_minutes")
    database.execute("DELETE FROM store_migrations WHERE v >= 2")
    run_on(source, {"store": "skip"}, run_id="saver").all()
    with pytest.raises(TargetNotReady, match="older release"):
        run_on(source, {"create_tables": False}, run_id="without").check()
    assert run_on(source, run_id="with").all()["verdict"] == "identical"


def test_a_loop_that_forgets_ttls_would_be_seen(
    run_on: Callable[..., Migration], source: Path, database: Database
) -> None:
    """Items that somebody copied by `get` and `put` are no identical rows: times and TTLs differ."""
    run_on(source, {"store": "skip"}, run_id="saver").all()
    with sqlite_store(source) as here, postgres_store(database.dsn) as there:
        there.setup()
        for namespace, key in keys_of(source):
            item = here.get(namespace, key)
            assert item is not None
            there.put(namespace, key, item.value)
    migration = run_on(source, run_id="after")
    with pytest.raises(TargetConflict):
        migration.all()
    assert len(migration.report["conflicts"]) == 60


def test_altered_tables_are_noticed_before_promote(
    run_on: Callable[..., Migration], source: Path, database: Database
) -> None:
    """A store that changed its shape after check_schema saw it takes nothing."""
    migration = run_on(source)
    migration.to_staging()
    database.execute("ALTER TABLE store ALTER COLUMN ttl_minutes TYPE real")
    with pytest.raises(TargetNotReady, match="altered"):
        migration.promote()
    assert live_items(database) == []


def test_an_applications_own_column_is_told_and_left(
    run_on: Callable[..., Migration], alone: Path
) -> None:
    """What no release of SqliteStore makes does not migrate, and the report names it."""
    with closing(sqlite3.connect(alone)) as conn:
        conn.execute("ALTER TABLE store ADD COLUMN mine TEXT")
    report = run_on(alone).all()
    assert report["verdict"] == "identical"
    assert "store.mine" in warned(report)["other_column"]["message"]


def test_a_table_that_lacks_columns_of_a_store_stays_behind(
    run_on: Callable[..., Migration], source: Path
) -> None:
    """No release of SqliteStore reads or writes it: the checkpoints go, and the report names it."""
    with closing(sqlite3.connect(source)) as conn:
        conn.executescript(
            "DROP INDEX idx_store_expires_at; ALTER TABLE store DROP COLUMN expires_at"
        )
    report = run_on(source).all()
    assert report["verdict"] == "identical"
    assert "not as SqliteStore makes it" in warned(report)["store_tables"]["message"]
    assert "store" not in report["counts"]


def test_a_store_written_asynchronously_migrates(
    run_on: Callable[..., Migration], database: Database, tmp_path: Path
) -> None:
    """`AsyncSqliteStore` writes the same tables."""
    path = tmp_path / "async.sqlite"

    async def application() -> None:
        async with AsyncSqliteStore.from_conn_string(str(path)) as store:
            await store.setup()
            await store.aput(("users", "ü"), "k", {"likes": "made-up tea"}, ttl=7)

    asyncio.run(application())
    assert run_on(path).all()["verdict"] == "identical"
    assert moments_of_postgres(database.dsn) == moments_of_sqlite(path)
    with postgres_store(database.dsn) as store:
        item = store.get(("users", "ü"), "k")
    assert item is not None
    assert item.value == {"likes": "made-up tea"}


@pytest.mark.parametrize("killed_after", ["one batch", "promote"])
def test_a_step_that_is_called_again_does_nothing_twice(
    run_on: Callable[..., Migration], source: Path, database: Database, killed_after: str
) -> None:
    """Batches with a receipt are not loaded again; a promoted store is not promoted again."""
    migration = run_on(source, {"batch_size": 10})
    migration.check()
    migration.freeze()
    exports = migration.export()
    loads = engine.plan_batches(migration.run, exports)
    receipts = [r for load in loads for r in engine.load_batch(migration.run, load)]
    again = [r for load in loads for r in engine.load_batch(migration.run, load)]
    assert all(receipt.already_done for receipt in again)
    assert sum(r.counts.items for r in again) == sum(r.counts.items for r in receipts) == 60
    if killed_after == "promote":
        migration.verify(exports)
        migration.promote()
    migration.verify(exports)
    assert migration.promote().already_done is (killed_after == "promote")
    assert migration.witness().verdict == "identical"
    assert len(live_items(database)) == 60
