"""Applications stopped half-way on SQLite go on with PostgreSQL as if nothing had happened."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver

from tests.support.engine import Migration
from tests.support.graphs import STORIES, Story, World, alike, config_of, outcome, ran_of, shown
from tests.support.postgres import Database, TestServer

GOING_ON, PRUNED = "goes on", "is pruned"  # a thread for each test, so that none waits for another
each_story = pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)


@dataclass(frozen=True)
class Move:
    """The same threads three times: the copy that stays on SQLite, the migrated and the native."""

    stayed: Path
    migrated: Database
    native: Database
    report: dict[str, Any]


@pytest.fixture(scope="module")
def move(postgres_server: TestServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Move]:
    """All stories begun on SQLite and migrated, and begun on PostgreSQL beside it."""
    folder = tmp_path_factory.mktemp("going-on")
    source, stayed = folder / "source.sqlite", folder / "stayed.sqlite"
    with sqlite_saver(source) as saver:
        for story in STORIES:
            for thread in (GOING_ON, PRUNED):
                begin(story, saver, thread)
    shutil.copyfile(source, stayed)
    with postgres_server.database() as migrated, postgres_server.database() as native:
        with PostgresSaver.from_conn_string(native.dsn) as saver:
            saver.setup()
            for story in STORIES:
                begin(story, saver, PRUNED)
        migration = Migration(
            migrated.dsn, source, folder / "exports", max_export_tasks=2, max_load_tasks=2
        )
        yield Move(stayed, migrated, native, migration.all())


@contextmanager
def sqlite_saver(path: Path) -> Iterator[SqliteSaver]:
    """The real saver, on a database that need not survive a power cut."""
    with closing(sqlite3.connect(path, check_same_thread=False)) as conn:
        conn.execute("PRAGMA synchronous=OFF")
        yield SqliteSaver(conn)


def thread_of(story: Story, thread: str) -> str:
    return f"{story.name}, {thread}"


def begin(story: Story, saver: Any, thread: str) -> None:
    world = World()
    story.begin(story.build(saver, world), config_of(thread_of(story, thread)), world)


def test_all_stories_migrate(move: Move) -> None:
    """The threads of all stories are migrated and found identical."""
    assert move.report["verdict"] == "identical"
    assert move.report["threads"]["total"] == 2 * len(STORIES)


@each_story
def test_goes_on_like_the_one_that_stayed(story: Story, move: Move) -> None:
    """After each of three further steps values, next, tasks, interrupts and history are the same."""
    config = config_of(thread_of(story, GOING_ON))
    with (
        sqlite_saver(move.stayed) as sqlite,
        PostgresSaver.from_conn_string(move.migrated.dsn) as postgres,
    ):
        worlds = World(), World()
        stayed, moved = (story.build(s, w) for s, w in zip((sqlite, postgres), worlds, strict=True))
        assert shown(moved, config) == shown(stayed, config)  # to the letter: no id is new yet
        for step in story.steps:
            expected = outcome(lambda: step(stayed, config, worlds[0]))  # noqa: B023
            assert outcome(lambda: step(moved, config, worlds[1])) == expected  # noqa: B023
            assert alike(shown(moved, config)) == alike(shown(stayed, config))
        assert ran_of(worlds[1]) == ran_of(worlds[0]) != []


@each_story
def test_prunes_like_a_native_one(story: Story, move: Move) -> None:
    """`prune(keep_latest)` keeps, frees and refuses the same, and the thread goes on afterwards."""
    thread = thread_of(story, PRUNED)
    config = config_of(thread)
    with (
        PostgresSaver.from_conn_string(move.native.dsn) as native_saver,
        PostgresSaver.from_conn_string(move.migrated.dsn) as moved_saver,
    ):
        worlds = World(), World()
        native = story.build(native_saver, worlds[0])
        moved = story.build(moved_saver, worlds[1])
        for step in (None, *story.steps):
            if step is not None:
                expected = outcome(lambda: step(native, config, worlds[0]))  # noqa: B023
                got = outcome(lambda: step(moved, config, worlds[1]))  # noqa: B023
                assert got == expected or not story.native
            assert pruned(moved_saver, thread) == pruned(native_saver, thread)
            same = alike(shown(moved, config)) == alike(shown(native, config))
            assert same or not story.native
            assert kept(move.migrated, thread) == kept(move.native, thread)
        assert ran_of(worlds[1]) == ran_of(worlds[0]) != []
        refused = pruned(moved_saver, thread) is not None
        assert refused is not story.prunable


def pruned(saver: PostgresSaver, thread: str) -> str | None:
    """What `prune` said when it refused."""
    try:
        saver.prune([thread], strategy="keep_latest")
    except NotImplementedError as error:
        return str(error)
    return None


def kept(database: Database, thread: str) -> dict[str, Any]:
    """What is left of a thread: checkpoints and writes by namespace, and blobs nobody refers to."""
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        checkpoints = conn.execute(
            "SELECT split_part(checkpoint_ns, ':', 1), count(*), count(parent_checkpoint_id)"
            " FROM checkpoints WHERE thread_id = %s GROUP BY 1 ORDER BY 1",
            (thread,),
        ).fetchall()
        writes = conn.execute(
            "SELECT split_part(checkpoint_ns, ':', 1), channel, task_path, type, count(*)"
            " FROM checkpoint_writes WHERE thread_id = %s GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4",
            (thread,),
        ).fetchall()
        unused = conn.execute(
            "SELECT channel, version FROM checkpoint_blobs b WHERE thread_id = %s AND NOT EXISTS"
            " (SELECT 1 FROM checkpoints c WHERE (c.thread_id, c.checkpoint_ns) ="
            " (b.thread_id, b.checkpoint_ns)"
            " AND c.checkpoint -> 'channel_versions' ->> b.channel = b.version)",
            (thread,),
        ).fetchall()
    return {
        "checkpoints": checkpoints,
        "writes": [(ns, ch, alike([path]), *rest) for ns, ch, path, *rest in writes],
        "unused blobs": len(unused),
    }
