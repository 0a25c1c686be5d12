"""A real database of every release of the saver, and threads that span releases: all migrate equal."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.sqlite import SqliteSaver

from tests.support.engine import Migration, rows
from tests.support.postgres import Database
from tests.support.readers import (
    differences,
    keys_of,
    order_differences,
    postgres_side,
    serializer,
    sqlite_side,
    write_rows,
)

ERAS = Path(__file__).resolve().parents[1] / "fixtures" / "eras"
FILES = sorted(path.stem for path in ERAS.glob("*.sqlite"))


def copied(name: str, folder: Path) -> Path:
    source = folder / "source.sqlite"
    shutil.copyfile(ERAS / f"{name}.sqlite", source)
    return source


def counted(source: Path) -> tuple[int, int]:
    with closing(sqlite3.connect(f"file:{source}?mode=ro&immutable=1", uri=True)) as conn:
        checkpoints = conn.execute("SELECT count(*) FROM checkpoints").fetchone()[0]
        return checkpoints, conn.execute("SELECT count(*) FROM writes").fetchone()[0]


def test_no_release_is_left_out() -> None:
    """There is a file for each release that was served when the files were made, and two beside."""
    assert len(FILES) == 26
    assert {"1.0.0", "2.0.6-v2", "3.1.2", "spanning"} <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_database_of_every_release_reads_back_equal(
    name: str, database: Database, tmp_path: Path
) -> None:
    """Every checkpoint is the same through both savers, and a second run finds all of it there."""
    source = copied(name, tmp_path)
    migration = Migration(database.dsn, source, tmp_path / "exports")
    report = migration.all()
    assert (report["verdict"], report["blockers"], report["differences"]) == ("identical", [], [])
    found = report["counts"]
    assert (found["checkpoints"]["live"], found["writes"]["live"]) == counted(source)
    live = rows(database.dsn)
    assert [(*row[:8], bytes(row[8])) for row in live["checkpoint_writes"]] == write_rows(source)
    copy, serde = shutil.copyfile(source, tmp_path / "copy.sqlite"), serializer("raw")
    with sqlite_side(copy, serde) as before, postgres_side(database.dsn, serde) as after:
        keys = keys_of(copy)
        assert differences(before, after, keys) == []
        assert order_differences(before, after, keys) == []
    again = Migration(database.dsn, source, tmp_path / "exports").all()
    assert again["verdict"] == "identical"
    assert rows(database.dsn) == live


def test_current_tasks_of_the_first_releases_is_kept(database: Database, tmp_path: Path) -> None:
    """What langgraph-checkpoint 1.0.0 to 1.0.3 wrote beside the state is there, without a warning."""
    report = Migration(database.dsn, copied("1.0.0", tmp_path), tmp_path / "exports").all()
    assert report["verdict"] == "identical"
    kept = database.rows(
        "SELECT count(*) FROM checkpoints WHERE checkpoint -> 'current_tasks' = '{}'::jsonb"
    )
    assert kept == [(report["counts"]["checkpoints"]["live"],)]
    assert [w for w in report["warnings"] if w["kind"] == "unknown_key"] == []


def source_with(path: Path, kind: str, **beside: Any) -> Path:
    """A database with one checkpoint whose envelope has these keys beside the known ones."""
    with closing(sqlite3.connect(path, check_same_thread=False)) as conn:
        saver = SqliteSaver(conn)
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"] = {"talk": ["hello"]}
        checkpoint["channel_versions"] = {"talk": "00000000000000000000000000000001.1"}
        config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
        saver.put(config, checkpoint, {"step": 1}, checkpoint["channel_versions"])
        whole = {**checkpoint, **beside}
        blob = json.dumps(whole).encode() if kind == "json" else msgspec.msgpack.encode(whole)
        conn.execute("UPDATE checkpoints SET type = ?, checkpoint = ?", (kind, blob))
        conn.commit()
    return path


@pytest.mark.parametrize("kind", ["json", "msgpack"])
def test_a_key_that_nobody_knows_migrates_and_is_named(
    kind: str, database: Database, tmp_path: Path
) -> None:
    """A later release, or an application, may write more than we know of: JSONB holds it exactly."""
    source = source_with(tmp_path / "s.sqlite", kind, mood={"now": [1, "calm", None, True]})
    report = Migration(database.dsn, source, tmp_path / "exports").all()
    assert report["verdict"] == "identical"
    (warning,) = [w for w in report["warnings"] if w["kind"] == "unknown_key"]
    assert "'mood'" in warning["message"]
    assert (warning["count"], warning["threads"]) == (1, ["t"])
    kept = database.rows("SELECT checkpoint -> 'mood' FROM checkpoints")
    assert kept == [({"now": [1, "calm", None, True]},)]


@pytest.mark.parametrize("odd", [float("nan"), 1e20, -0.0, "a\0b"], ids=repr)
def test_a_key_that_jsonb_would_change_is_a_blocker_that_names_it(
    odd: object, database: Database, tmp_path: Path
) -> None:
    """What JSONB would change has no lossless place in an envelope, known key or not."""
    source = source_with(tmp_path / "s.sqlite", "msgpack", mood=odd)
    migration = Migration(database.dsn, source, tmp_path / "exports")
    with pytest.raises(Exception, match="no lossless place"):
        migration.all()
    (blocker,) = migration.report["blockers"]
    assert "key 'mood'" in blocker["why"]
    assert rows(database.dsn)["checkpoints"] == []
