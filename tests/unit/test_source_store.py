"""A store in an SQLite file is told apart, counted and streamed with its vectors; nothing is written."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from include.checkpoint_migration import source
from include.checkpoint_migration.errors import SourceHasNoTables, SourceUnreadable
from tests.support.stores import sqlite_store, write_many

VECTORS = """
CREATE TABLE store_vectors (
    prefix text NOT NULL, key text NOT NULL, field_name text NOT NULL, embedding BLOB,
    created_at TIMESTAMP, updated_at TIMESTAMP, PRIMARY KEY (prefix, key, field_name)
);
INSERT INTO store_vectors SELECT prefix, key, 'a', zeroblob(16), NULL, NULL FROM store;
INSERT INTO store_vectors SELECT prefix, key, 'b', zeroblob(16), NULL, NULL FROM store LIMIT 3;
INSERT INTO store_vectors VALUES ('gone', 'k', 'a', zeroblob(16), NULL, NULL);
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "app" / "store.sqlite"
    path.parent.mkdir()
    with sqlite_store(path) as store:
        write_many(store, 20)
    return path


def change(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path)) as conn:
        conn.executescript(script)


def test_vectors_come_with_their_item_and_orphans_with_none(path: Path, tmp_path: Path) -> None:
    """Each item has just its vectors; those of items that are gone are counted, and not streamed."""
    change(path, VECTORS)
    info = source.inspect_source(str(path)).store
    assert info is not None
    assert (info.items, info.vectors, info.orphan_vectors) == (20, 23, 1)
    assert info.dimensions == (4,)
    frozen = tmp_path / "frozen.sqlite"
    source.freeze(str(path), frozen)
    with closing(source.open_frozen(frozen)) as conn:
        rows = list(source.items_with_vectors(conn, ("store", "store_vectors")))
        assert [item[:2] for item, _ in rows] == sorted(
            (item[:2] for item, _ in rows), key=lambda k: (k[0].encode(), k[1].encode())
        )
        assert sorted(len(vectors) for _, vectors in rows) == [1] * 17 + [2] * 3
        assert all(vector[:2] == item[:2] for item, vectors in rows for vector in vectors)
        assert not any(vectors for _, vectors in source.items_with_vectors(conn, ("store",)))


@pytest.mark.parametrize(
    "other",
    [
        "CREATE TABLE store (street)",
        "CREATE TABLE store (prefix, key, value, created_at, updated_at, expires_at, ttl_minutes)",
        "CREATE TABLE store (prefix, key, value, created_at, updated_at, PRIMARY KEY (prefix, key))",
        "CREATE VIEW store AS SELECT 1 AS prefix, 2 AS key, 3 AS value, 4 AS created_at, 5 AS updated_at",
    ],
)
def test_a_table_of_that_name_that_is_not_a_stores_makes_no_source(
    tmp_path: Path, other: str
) -> None:
    """Another's table, one without the key, and a view are no store: the file is refused."""
    path = tmp_path / "shop.sqlite"
    change(path, other)
    with pytest.raises(SourceHasNoTables, match="checkpoints"):
        source.inspect_source(str(path))


def test_a_store_that_is_not_asked_for_is_not_looked_at(path: Path) -> None:
    """Without it a file of a store alone is refused as any other file is."""
    with pytest.raises(SourceHasNoTables):
        source.inspect_source(str(path), with_store=False)


def test_a_stale_index_of_the_store_is_refused(path: Path) -> None:
    """A reader would miss rows: refused as for the checkpoints' tables."""
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA writable_schema=1")
        page = "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_store_1'"
        ((root,),) = conn.execute(page).fetchall()
        ((size,),) = conn.execute("PRAGMA page_size").fetchall()
    with path.open("r+b") as file:
        file.seek((root - 1) * size + 3)
        file.write(b"\0\0")  # the page's cells are none
    with pytest.raises(SourceUnreadable, match="malformed"):
        source.inspect_source(str(path))


def test_drift_counts_items_and_vectors(path: Path, tmp_path: Path) -> None:
    """Added, changed and removed keys of both tables, each exactly."""
    change(path, VECTORS)
    frozen = tmp_path / "frozen.sqlite"
    source.freeze(str(path), frozen)
    change(
        path,
        """
        UPDATE store SET value = '{}' WHERE rowid = 1;
        DELETE FROM store WHERE rowid IN (2, 3);
        INSERT INTO store SELECT 'new', key, value, created_at, updated_at, NULL, NULL
          FROM store WHERE rowid = 4;
        UPDATE store_vectors SET embedding = zeroblob(12) WHERE rowid = 5;
        """,
    )
    with closing(source.open_frozen(frozen)) as conn:
        tables = ("store", "store_vectors")
        drift, counts = source.drift(str(path), conn, store_tables=tables)
        assert drift.items is not None
        assert drift.vectors is not None
        assert (drift.items.added, drift.items.changed, drift.items.removed) == (1, 1, 2)
        before = source.count_store(conn, tables)
        assert counts.items == before.items - 1
        assert counts.vectors == before.vectors - drift.vectors.removed
        assert drift.vectors.changed == 1
