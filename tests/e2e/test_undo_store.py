"""Undo of the long-term store: items that one run made live go out again, and what anybody wrote stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.postgres import PostgresSaver

from include import checkpoint_migration as engine
from include.checkpoint_migration.errors import TargetConflict, TargetNotReady
from tests.support.engine import Migration
from tests.support.faults import CANARY, write_source
from tests.support.postgres import Database
from tests.support.stores import postgres_store, sqlite_store, write_many
from tests.support.undoing import Undo, dump

Run = Callable[..., Migration]
ITEMS = 24


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Checkpoints, and beside them a store of a few items."""
    (tmp_path / "app").mkdir()
    path = write_source(tmp_path / "app" / "app.sqlite", "anna")
    with sqlite_store(path) as store:
        write_many(store, ITEMS)
    return path


@pytest.fixture
def application(database: Database) -> Callable[..., None]:
    """The application on PostgreSQL puts items; its store is set up."""

    def put(*keys: str, namespace: tuple[str, ...] = ("mine",), value: Any = None) -> None:
        with postgres_store(database.dsn) as store:
            store.setup()
            for key in keys:
                store.put(namespace, key, value or {"secret": CANARY})

    put("a", "b")
    return put


@pytest.fixture
def empty(application: Callable[..., None], database: Database) -> dict[str, Any]:
    """What the tables hold before any run, made as the savers make them."""
    with database.connect() as conn:
        PostgresSaver(conn).setup()  # type: ignore[arg-type]
    return dump(database.dsn)


def undo(migration: Migration, run_id: str = "undo-1") -> dict[str, Any]:
    return Undo.of(migration, run_id).all()


def place_of(database: Database, number: int) -> tuple[str, str]:
    """Where an item of the source lies."""
    query = "SELECT prefix, key FROM store WHERE (value -> 'n')::int = %s"
    [(prefix, key)] = database.rows(query, number)
    return prefix, key


def test_undone_the_store_is_as_a_dump_from_before(
    database: Database, run: Run, empty: dict[str, Any]
) -> None:
    """Items go out with the checkpoints, and not one of the application's; it works again afterwards."""
    first = run("first")
    assert first.all()["verdict"] == "identical"
    after = dump(database.dsn)
    assert len(after["store"]) == ITEMS + 2
    report = undo(first)
    assert dump(database.dsn) == empty
    assert report["outcome"] == "undone"
    assert report["rows"]["store"] == {"removed": ITEMS, "restored": 0, "left": 0, "gone": 0}
    assert report["items_left"] == {"total": 0, "listed": [], "omitted": 0}
    again = undo(first, "undo-2")
    assert (again["outcome"], again["rows"]) == ("nothing", report["rows"])
    assert database.rows("SELECT count(*) FROM checkpoint_migration.items_before") == [(0,)]
    assert run("second").all()["verdict"] == "identical"
    assert dump(database.dsn) == after


def test_items_that_the_application_wrote_since_stay_and_are_listed(
    database: Database, run: Run, application: Callable[..., None]
) -> None:
    """Put again, deleted and put again, or read so that their expiry moved: they are its own now. What it
    deleted stays deleted; the rest goes.
    """
    first = run("first")
    first.all()
    put, anew, read, deleted = (place_of(database, n) for n in (4, 5, 7, 9))
    with postgres_store(database.dsn) as store:
        for prefix, key in (anew, deleted):
            store.delete(tuple(prefix.split(".")), key)
        assert store.get(tuple(read[0].split(".")), read[1]) is not None
    for prefix, key in (put, anew):
        application(key, namespace=tuple(prefix.split(".")))
    whole = dump(database.dsn)["store"]
    theirs = [row for row in whole if "secret" in row[0] or '""n"": 7,' in row[0]]
    undone = Undo.of(first)
    report = undone.all()
    assert report["outcome"] == "partly"
    assert report["rows"]["store"] == {"removed": ITEMS - 4, "restored": 0, "left": 0, "gone": 4}
    assert dump(database.dsn)["store"] == theirs
    assert report["items_left"]["total"] == 3
    listed = {(item["namespace"], item["key"]): item for item in report["items_left"]["listed"]}
    assert set(listed) == {put, anew, read}
    assert "since" in listed[put]["why"]
    assert "3 items of the store" in report["sentence"]
    assert sum("left whole: item" in line for line in undone.log) == 3
    assert not report["threads_left"]["total"]
    with pytest.raises(TargetConflict):
        run("second").all()


@pytest.mark.parametrize(
    "since", ["", "UPDATE store SET ttl_minutes = 3 WHERE (value->'n')::int = 1"]
)
def test_replaced_items_have_their_originals_back_whatever_a_session_says_of_time(
    database: Database, run: Run, application: Callable[..., None], since: str
) -> None:
    """Numbers as they were written, moments to the microsecond, NULL and infinity; with another time
    zone and style of dates meanwhile. One that was changed since stays, and is listed.
    """
    run("first").all()
    for n, change in enumerate(
        (
            "value = jsonb_set(value, '{x}', '1.50')",
            "created_at = '2001-02-03 04:05:06.000007+03', updated_at = NULL",
            "expires_at = 'infinity', ttl_minutes = NULL",
            "expires_at = '0044-03-15 12:00 BC', ttl_minutes = 7",
        )
    ):
        database.execute(f"UPDATE store SET {change} WHERE (value -> 'n')::int = {n}")
    before = dump(database.dsn)
    database.execute(f"ALTER DATABASE {database.name} SET timezone = 'Asia/Kathmandu'")
    database.execute(f"ALTER DATABASE {database.name} SET datestyle = 'SQL, DMY'")
    second = run("second", on_conflict="replace")
    assert second.all()["verdict"] == "identical"
    database.execute(f"ALTER DATABASE {database.name} RESET timezone")
    database.execute(f"ALTER DATABASE {database.name} SET datestyle = 'German'")
    if since:
        database.execute(since)
    report = undo(second)
    database.execute(f"ALTER DATABASE {database.name} RESET datestyle")
    now = dump(database.dsn)
    assert report["rows"]["store"]["restored"] == (3 if since else 4)
    assert report["items_left"]["total"] == (1 if since else 0)
    assert report["outcome"] == ("partly" if since else "undone")
    assert (now == before) is not bool(since)


def test_only_the_items_of_the_run_that_is_named_go(
    database: Database, run: Run, source: Path, empty: dict[str, Any]
) -> None:
    """A catch-up is undone to the state before it, the first run after it to the one before that."""
    first = run("first")
    first.all()
    before = dump(database.dsn)
    with sqlite_store(source) as store:
        store.put(("late",), "one", {"n": -1})
    second = run("second")
    second.all()
    report = undo(second, "undo-second")
    assert (report["outcome"], report["rows"]["store"]["removed"]) == ("undone", 1)
    assert dump(database.dsn) == before
    assert undo(first, "undo-first")["outcome"] == "undone"
    assert dump(database.dsn) == empty


def test_a_store_alone_of_which_all_was_written_again_is_left_and_listed(
    database: Database, run_on: Callable[..., Migration], tmp_path: Path
) -> None:
    """An application may well have read each of its items: no word of a restore, and nothing goes."""
    path = tmp_path / "store.sqlite"
    with sqlite_store(path) as store:
        write_many(store, 5)
    moved = run_on(path, run_id="moved")
    moved.all()
    database.execute("UPDATE store SET key = key")
    before = dump(database.dsn)
    report = undo(moved)
    assert (report["outcome"], report["items_left"]["total"]) == ("partly", 5)
    assert dump(database.dsn) == before


def test_what_follows_an_item_keeps_the_undo_from_anything(database: Database, run: Run) -> None:
    """A team's rows that hang on items are never deleted silently."""
    first = run("first")
    first.all()
    database.execute(
        "CREATE TABLE notes (prefix text, key text,"
        " FOREIGN KEY (prefix, key) REFERENCES store ON DELETE CASCADE)"
    )
    before = dump(database.dsn)
    with pytest.raises(TargetNotReady, match="notes"):
        undo(first)
    assert dump(database.dsn) == before


def test_a_run_of_another_store_leaves_no_word_of_one(
    database: Database, run: Run, application: Callable[..., None]
) -> None:
    """With store: skip, or a source without one, an undo looks at no item."""
    first = run("first", store="skip")
    first.all()
    items = dump(database.dsn)["store"]
    report = undo(first)
    assert "store" not in report["rows"]
    assert dump(database.dsn)["store"] == items


def test_nothing_is_kept_of_items_where_nobody_may_undo(database: Database, run: Run) -> None:
    """Zero days keep no key of an item, and no original."""
    first = run("first")
    first.undo_days = 0
    first.all()
    assert database.rows("SELECT count(*) FROM checkpoint_migration.items_before") == [(0,)]
    with pytest.raises(engine.MigrationError):
        undo(first)
