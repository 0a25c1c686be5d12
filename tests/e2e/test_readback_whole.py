"""The read-back as a whole: what was migrated reads back equal, in every layout, and what is found is counted."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.checkpoint_migration.errors import TargetUnreachable
from include.checkpoint_migration.settings import ThreadFilter
from tests.support.postgres import Database
from tests.support.readbacks import FIXTURES, TODAY, load, look, set_up, without


def test_a_migrated_sample_reads_back_equal(loaded: Database, tmp_path: Path) -> None:
    """Every kind of value of today's release reads back equal, and the source is not changed."""
    source = Path(shutil.copy(FIXTURES / TODAY, tmp_path))
    source.chmod(0o400)
    before = source.read_bytes(), source.stat().st_mtime_ns
    result = look(source, loaded.connect)
    assert (result.found, result.unread) == (0, 0)
    assert result.threads == 31
    assert result.checkpoints == 136
    assert (source.read_bytes(), source.stat().st_mtime_ns) == before
    assert [path.name for path in tmp_path.iterdir()] == [TODAY]


@pytest.mark.parametrize(
    "name",
    [
        "checkpoint-sqlite-2.0.6.sqlite",
        "checkpoint-sqlite-1.0.4.sqlite",
    ],
)
def test_older_layouts_read_back_equal(database: Database, tmp_path: Path, name: str) -> None:
    """Databases without task_path, with pending sends, JSON or integer versions read back equal."""
    source = Path(shutil.copy(FIXTURES / name, tmp_path))
    with database.connect() as conn:
        set_up(conn)
        # Of these PostgresSaver rebuilds the sends in another order: they had to be renamed.
        left_out = load(source, conn) | {f"sends_many{n}" for n in range(4)}
        counting = "SELECT count(*) FROM checkpoints WHERE thread_id NOT LIKE 'sends_many_'"
        (live,) = conn.execute(counting).fetchone() or (0,)
    result = look(source, database.connect, taken=without(left_out))
    assert result.differences == ()
    assert result.unread == 0
    assert result.checkpoints == live > 40


def test_sends_that_the_reader_rebuilds_are_read_too(database: Database, tmp_path: Path) -> None:
    """Where PostgresSaver repacks the sends of `v < 4` itself, the result is compared like any."""
    source = Path(shutil.copy(FIXTURES / "checkpoint-sqlite-2.0.6.sqlite", tmp_path))
    taken = ThreadFilter(("sends",))
    with database.connect() as conn:
        set_up(conn)
        load(source, conn)
        conn.execute(
            "DELETE FROM checkpoint_blobs WHERE thread_id = 'sends' AND channel = '__pregel_tasks'"
        )
        conn.execute(
            "UPDATE checkpoints SET checkpoint = checkpoint #- '{channel_versions,__pregel_tasks}'"
            " WHERE thread_id = 'sends'"
        )
    assert look(source, database.connect, taken=taken).differences == ()
    database.execute(
        "UPDATE checkpoint_writes SET idx = 99 WHERE thread_id = 'sends'"
        " AND channel = '__pregel_tasks' AND idx = (SELECT min(idx) FROM checkpoint_writes"
        " WHERE thread_id = 'sends' AND channel = '__pregel_tasks')"
    )
    assert look(source, database.connect, taken=taken).found


def test_differences_are_counted_beyond_those_that_are_listed(loaded: Database, copy: str) -> None:
    """The list is bounded, the count is exact, and neither shows a value."""
    loaded.execute(f'UPDATE {copy}.checkpoints SET metadata = \'{{"step": "leaked-value"}}\'')
    result = look(FIXTURES / TODAY, loaded.connect, copy, most_differences=5)
    assert len(result.differences) == 5
    assert result.found > 100
    assert "leaked-value" not in repr(result)


def test_a_broken_connection_is_not_taken_for_a_difference(loaded: Database) -> None:
    """A connection that ends during the read-back is a transient error, no verdict."""

    def connect() -> psycopg.Connection[Any]:
        conn = loaded.connect()
        loaded.rows("SELECT pg_terminate_backend(%s)", conn.info.backend_pid)
        return conn

    with pytest.raises(TargetUnreachable):
        look(FIXTURES / TODAY, connect)
