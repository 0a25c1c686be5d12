"""Live tables that a team made its own: collations, checks, foreign keys, known before anything is live."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver

from include.checkpoint_migration.errors import TargetNotReady
from tests.support.engine import Migration, rows
from tests.support.postgres import Database, TestServer, debian_server

RunOn = Callable[..., Migration]
BOTH = pytest.mark.parametrize("rehearsal", [False, True], ids=["real", "rehearsal"])


def written(path: Path, *ids: str, thread: str = "t") -> Path:
    """A thread whose checkpoints an application named by itself."""
    with closing(sqlite3.connect(path, check_same_thread=False)) as conn:
        saver = SqliteSaver(conn)
        config: Any = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
        for number, checkpoint_id in enumerate(ids, 1):
            version = f"{number:032}.1"
            checkpoint = {**empty_checkpoint(), "id": checkpoint_id}
            checkpoint["channel_values"] = {"n": [number]}
            checkpoint["channel_versions"] = {"n": version}
            config = saver.put(config, checkpoint, {"step": number}, {"n": version})
    return path


@pytest.fixture
def tables(database: Database) -> Database:
    """The saver's own tables, to be altered."""
    with PostgresSaver.from_conn_string(database.dsn) as saver:
        saver.setup()
    return database


@pytest.fixture(scope="module")
def icu() -> Iterator[TestServer]:
    with debian_server() as server:
        yield server


@pytest.fixture(params=["database", "column"])
def english(request: pytest.FixtureRequest, icu: TestServer) -> Iterator[Database]:
    """The saver's tables where text is sorted as a dictionary does it."""
    whole = request.param == "database"
    options = {"LOCALE_PROVIDER": "icu", "ICU_LOCALE": "en", "LOCALE": "C.UTF-8"} if whole else {}
    with icu.database(**options) as database:
        with PostgresSaver.from_conn_string(database.dsn) as saver:
            saver.setup()
        if not whole:
            database.execute(
                'ALTER TABLE checkpoints ALTER COLUMN checkpoint_id TYPE text COLLATE "en-x-icu"'
            )
        yield database


@BOTH
def test_ids_that_the_collation_sorts_otherwise_are_found_before_promote(
    rehearsal: bool, english: Database, tmp_path: Path
) -> None:
    """`B1` is before `a2` by bytes and after it in a dictionary: the latest would be another one."""
    source = written(tmp_path / "s.db", "B1", "a2")
    migration = Migration(english.dsn, source, tmp_path / "exports", rehearsal=rehearsal)
    with pytest.raises(TargetNotReady, match="in another order than SQLite") as refused:
        migration.all()
    assert "'t'" in refused.value.what
    assert migration.report["verdict"] == "unproven"
    assert rows(english.dsn)["checkpoints"] == []


def test_ids_that_sort_alike_in_both_are_no_matter(english: Database, tmp_path: Path) -> None:
    """A linguistic collation is fine as long as it gives the same order."""
    source = written(tmp_path / "s.db", "A1", "B2", "C3")
    assert Migration(english.dsn, source, tmp_path / "exports").all()["verdict"] == "identical"


def test_the_advice_for_another_order_helps(english: Database, tmp_path: Path) -> None:
    """After the statement that the error names, the same run ends identical."""
    source = written(tmp_path / "s.db", "B1", "a2")
    with pytest.raises(TargetNotReady) as refused:
        Migration(english.dsn, source, tmp_path / "exports").all()
    english.execute(refused.value.next.partition("(")[2].partition(";")[0])
    assert Migration(english.dsn, source, tmp_path / "exports").all()["verdict"] == "identical"


USERS = "CREATE TABLE users (id text PRIMARY KEY);"
ALTERED = {
    "check": (
        "ALTER TABLE checkpoints ADD CONSTRAINT known_users CHECK (thread_id LIKE 'user-%')",
        ("check", "known_users", "public.checkpoints"),
        None,
    ),
    "check of blobs": (
        "ALTER TABLE checkpoint_blobs ADD CONSTRAINT small CHECK (octet_length(blob) < 1)",
        ("check", "small", "public.checkpoint_blobs"),
        None,
    ),
    "foreign key": (
        USERS
        + "ALTER TABLE checkpoints ADD CONSTRAINT of_a_user FOREIGN KEY (thread_id) REFERENCES users",
        ("foreign key", "of_a_user", "public.users"),
        "INSERT INTO users VALUES ('t')",
    ),
    "foreign key of writes' thread": (
        USERS
        + "ALTER TABLE checkpoint_blobs ADD CONSTRAINT b_user FOREIGN KEY (thread_id) REFERENCES users",
        ("foreign key", "b_user", "public.users"),
        "INSERT INTO users VALUES ('t')",
    ),
}


@BOTH
@pytest.mark.parametrize("case", ALTERED)
def test_a_constraint_is_found_before_promote_and_named(
    case: str, rehearsal: bool, run_on: RunOn, tables: Database, tmp_path: Path
) -> None:
    """The error names constraint and table, nothing is live, and a rehearsal says the same."""
    alter, named, mend = ALTERED[case]
    tables.execute(alter)
    source = written(tmp_path / "s.db", "a1", "a2")
    migration = run_on(source, rehearsal=rehearsal)
    with pytest.raises(TargetNotReady, match="refuses") as refused:
        migration.all()
    assert all(word in refused.value.what for word in named)
    assert "2 rows" in refused.value.what
    assert rows(tables.dsn)["checkpoints"] == []
    if mend is not None:
        tables.execute(mend)
        assert run_on(source, rehearsal=rehearsal).all()["verdict"] == "identical"


@BOTH
def test_constraints_that_all_rows_keep_are_no_matter(
    rehearsal: bool, run_on: RunOn, tables: Database, tmp_path: Path
) -> None:
    """A CHECK that holds, one that reads NULL, a foreign key whose row is there."""
    tables.execute(
        "CREATE TABLE users (id text PRIMARY KEY); INSERT INTO users VALUES ('t');"
        "ALTER TABLE checkpoints ADD CHECK (length(thread_id) < 100),"
        " ADD CHECK (parent_checkpoint_id <> '{x}'),"
        " ADD FOREIGN KEY (thread_id) REFERENCES users ON DELETE CASCADE"
    )
    source = written(tmp_path / "s.db", "a1", "a2")
    assert run_on(source, rehearsal=rehearsal).all()["verdict"] == "identical"
    assert len(rows(tables.dsn)["checkpoints"]) == (0 if rehearsal else 2)


OF_A_TEAM = {
    "a column with a default and a check": (
        "ALTER TABLE checkpoints ADD COLUMN made_at timestamptz NOT NULL DEFAULT now(),"
        " ADD CONSTRAINT recent CHECK (made_at > '2020-01-01')"
    ),
    "a generated column": (
        "ALTER TABLE checkpoints ADD COLUMN twice text"
        " GENERATED ALWAYS AS (thread_id || thread_id) STORED, ADD CHECK (twice <> '')"
    ),
    "writes refer to checkpoints": (
        "ALTER TABLE checkpoint_writes ADD FOREIGN KEY (thread_id, checkpoint_ns, checkpoint_id)"
        " REFERENCES checkpoints ON DELETE CASCADE"
    ),
    "checkpoints refer to their parents": (
        "ALTER TABLE checkpoints ADD FOREIGN KEY (thread_id, checkpoint_ns, parent_checkpoint_id)"
        " REFERENCES checkpoints DEFERRABLE INITIALLY DEFERRED"
    ),
}


@BOTH
@pytest.mark.parametrize("case", OF_A_TEAM)
def test_what_a_team_added_and_the_rows_keep_is_no_matter(
    case: str, rehearsal: bool, run_on: RunOn, tables: Database, tmp_path: Path
) -> None:
    """The staged rows are judged with the live tables' own columns, and refer to each other."""
    tables.execute(OF_A_TEAM[case])
    source = written(tmp_path / "s.db", "a1", "a2")
    with closing(sqlite3.connect(source, check_same_thread=False)) as conn:
        config: Any = {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": "a2"}
        SqliteSaver(conn).put_writes({"configurable": config}, [("n", 1)], "task")
    assert run_on(source, rehearsal=rehearsal).all()["verdict"] == "identical"
    assert len(rows(tables.dsn)["checkpoint_writes"]) == (0 if rehearsal else 1)


@BOTH
def test_a_check_that_raises_is_named(
    rehearsal: bool, run_on: RunOn, tables: Database, tmp_path: Path
) -> None:
    """A check may raise instead of answering: its name is in the error all the same."""
    tables.execute(
        "ALTER TABLE checkpoints ADD CONSTRAINT is_uuid CHECK (thread_id::uuid IS NOT NULL)"
    )
    with pytest.raises(TargetNotReady, match="is_uuid"):
        run_on(written(tmp_path / "s.db", "a1", "a2"), rehearsal=rehearsal).all()
    assert rows(tables.dsn)["checkpoints"] == []


def raising_trigger(body: str) -> str:
    return (
        f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {body} END$$;"
        "CREATE TRIGGER refuse BEFORE INSERT ON checkpoints"
        " FOR EACH ROW EXECUTE FUNCTION refuse()"
    )


STRIKES = {
    "unique index": (
        "CREATE UNIQUE INDEX one_per_thread ON checkpoints (thread_id)",
        ("one_per_thread", "checkpoints"),
    ),
    "exclusion": (
        "ALTER TABLE checkpoints ADD CONSTRAINT alone EXCLUDE (thread_id WITH =)",
        ("alone", "checkpoints"),
    ),
    "trigger": (raising_trigger("RAISE EXCEPTION 'secret of t';"), ("trigger",)),
}


@pytest.mark.parametrize("case", STRIKES)
def test_what_strikes_only_in_promote_takes_all_back_and_is_named(
    case: str, run_on: RunOn, tables: Database, tmp_path: Path
) -> None:
    """A row that a unique index refuses is no row that was there already."""
    alter, named = STRIKES[case]
    tables.execute(alter)
    with pytest.raises(TargetNotReady) as refused:
        run_on(written(tmp_path / "s.db", "a1", "a2")).all()
    assert all(word in refused.value.what for word in named)
    assert "secret" not in str(refused.value)
    assert rows(tables.dsn)["checkpoints"] == []


@pytest.mark.parametrize("case", ["conflict", "unchanged"])
def test_a_rehearsal_meets_the_conflicts_that_are_live(
    case: str, run_on: RunOn, tables: Database, tmp_path: Path
) -> None:
    """A live row with another content is what the real run would have stopped at."""
    source = written(tmp_path / "s.db", "a1", "a2")
    run_on(source).all()
    if case == "conflict":
        tables.execute(
            """UPDATE checkpoints SET metadata = '{"step": 9}' WHERE checkpoint_id = 'a2'"""
        )
    before = rows(tables.dsn)
    rehearsal = run_on(source, rehearsal=True)
    if case == "unchanged":
        assert rehearsal.all()["verdict"] == "identical"
    else:
        with pytest.raises(Exception, match="other content"):
            rehearsal.all()
        assert [c["checkpoint_id"] for c in rehearsal.report["conflicts"]] == ["a2"]
    assert rows(tables.dsn) == before


def test_all_conflicts_are_counted_and_the_first_listed(
    run_on: RunOn, tables: Database, tmp_path: Path
) -> None:
    """Of 250 conflicts a hundred are listed, and the report says how many there are."""
    source = written(tmp_path / "s.db", *(f"a{n:04}" for n in range(250)))
    run_on(source).all()
    tables.execute("""UPDATE checkpoints SET metadata = '{"step": -5}'""")
    migration = run_on(source)
    with pytest.raises(Exception, match="250 live rows"):
        migration.all()
    report = migration.report
    assert len(report["conflicts"]) == 100
    (omitted,) = [w for w in report["warnings"] if w["kind"] == "conflicts_omitted"]
    assert omitted["count"] == 150
    assert "250 live rows" in report["sentence"]
