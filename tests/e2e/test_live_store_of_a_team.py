"""A live store that a team made its own: columns that fill themselves, checks, foreign keys, triggers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from langgraph.checkpoint.postgres import PostgresSaver

from include.checkpoint_migration.errors import TargetNotReady
from tests.support.engine import Migration
from tests.support.postgres import Database
from tests.support.stores import postgres_store, sqlite_store, write_many

RunOn = Callable[..., Migration]
BOTH = pytest.mark.parametrize("rehearsal", [False, True], ids=["real", "rehearsal"])
ITEMS = 6


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A store in a file of its own."""
    with sqlite_store(tmp_path / "store.sqlite") as store:
        write_many(store, ITEMS)
    return tmp_path / "store.sqlite"


@pytest.fixture
def tables(database: Database) -> Database:
    """The saver's and the store's own tables, to be altered."""
    with PostgresSaver.from_conn_string(database.dsn) as saver:
        saver.setup()
    with postgres_store(database.dsn) as store:
        store.setup()
    return database


def items(database: Database) -> int:
    return int(database.rows("SELECT count(*) FROM store")[0][0])


@BOTH
@pytest.mark.parametrize(
    "column",
    [
        "id bigint GENERATED ALWAYS AS IDENTITY",
        "size integer NOT NULL GENERATED ALWAYS AS (length(key)) STORED",
    ],
    ids=["identity", "generated"],
)
def test_a_column_that_fills_itself_is_no_matter(
    column: str, rehearsal: bool, run_on: RunOn, source: Path, tables: Database
) -> None:
    """It is NOT NULL, and staging fills it as the live table does."""
    tables.execute(f"ALTER TABLE store ADD COLUMN {column}")
    assert run_on(source, rehearsal=rehearsal).all()["verdict"] == "identical"
    assert items(tables) == (0 if rehearsal else ITEMS)


USERS = "CREATE TABLE users (id text PRIMARY KEY);"
BROKEN = {
    "check": (
        "ALTER TABLE store ADD CONSTRAINT known_users CHECK (prefix LIKE 'team.%')",
        ("check", "known_users", "public.store"),
    ),
    "foreign key": (
        USERS + "ALTER TABLE store ADD CONSTRAINT of_a_user FOREIGN KEY (prefix) REFERENCES users",
        ("foreign key", "of_a_user", "public.users"),
    ),
}


@BOTH
@pytest.mark.parametrize("case", BROKEN)
def test_a_constraint_of_the_store_is_found_before_promote_and_named(
    case: str, rehearsal: bool, run_on: RunOn, source: Path, tables: Database
) -> None:
    """The error names constraint and table, nothing is live, and a rehearsal says the same."""
    alter, named = BROKEN[case]
    tables.execute(alter)
    with pytest.raises(TargetNotReady, match=f"refuses {ITEMS} rows") as refused:
        run_on(source, rehearsal=rehearsal).all()
    assert all(word in refused.value.what for word in named)
    assert "store: skip" in refused.value.next
    assert items(tables) == 0


@BOTH
def test_what_a_team_added_to_the_store_and_the_items_keep_is_told(
    rehearsal: bool, run_on: RunOn, source: Path, tables: Database
) -> None:
    """A check that holds, a foreign key whose row comes or is there, and a trigger are warnings."""
    tables.execute(
        "CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        "CREATE TRIGGER note BEFORE INSERT ON store FOR EACH ROW EXECUTE FUNCTION noted();"
        "ALTER TABLE store ADD CONSTRAINT short CHECK (length(key) < 100),"
        " ADD CONSTRAINT itself FOREIGN KEY (prefix, key) REFERENCES store"
    )
    report = run_on(source, rehearsal=rehearsal).all()
    assert report["verdict"] == "identical"
    told = {w["message"] for w in report["warnings"] if w["kind"] == "target"}
    assert told == {
        "store has the trigger note",
        "store has the check short",
        "store has the foreign key itself",
    }
    assert items(tables) == (0 if rehearsal else ITEMS)


def test_a_constraint_is_not_asked_of_what_stays_away(
    run_on: RunOn, source: Path, tables: Database
) -> None:
    """An item that was removed from live since a run does not come back, so nothing need let it in."""
    run_on(source, run_id="first").all()
    tables.execute(
        "DELETE FROM store WHERE value ->> 'n' = '1';"
        "ALTER TABLE store ADD CHECK (value ->> 'n' <> '1')"
    )
    assert run_on(source, run_id="second").all()["verdict"] == "identical"
    assert items(tables) == ITEMS - 1
