"""A live store that a team made its own: columns that fill themselves, checks, foreign keys, triggers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from langgraph.checkpoint.postgres import PostgresSaver

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
