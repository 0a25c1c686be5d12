"""LangGraph's own conformance suite for savers, with a migration between writing and reading."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import Capability, DetectedCapabilities
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from tests.support.engine import Migration
from tests.support.postgres import Database

CASES = {"put": 17, "put_writes": 10, "get_tuple": 10, "list": 16, "delete_thread": 5}
NOT_SQLITES = ("delete_for_runs", "copy_thread", "prune")  # SQLite's savers have none of these


class MigratingSaver(BaseCheckpointSaver[str]):
    """Writes go to SQLite; the first read after a write is preceded by a migration from nothing."""

    def __init__(self, folder: Path, target: Database) -> None:
        super().__init__()
        self.path = folder / "source.sqlite"
        self.exports = folder / "exports"
        self.target = target
        self.conn = sqlite3.connect(self.path, check_same_thread=False)
        self.conn.execute("PRAGMA synchronous=OFF")
        self.sqlite = SqliteSaver(self.conn)
        self.sqlite.setup()
        self.migrations = 0
        self.fresh = False

    async def aput(self, *given: Any) -> Any:
        self.fresh = False
        return self.sqlite.put(*given)

    async def aput_writes(self, *given: Any, **named: Any) -> None:
        self.fresh = False
        self.sqlite.put_writes(*given, **named)

    async def adelete_thread(self, thread_id: str) -> None:
        self.fresh = False
        self.sqlite.delete_thread(thread_id)

    async def aget_tuple(self, config: Any) -> CheckpointTuple | None:
        with self.postgres() as saver:
            found = saver.get_tuple(config)
            return found and spelled_as_the_suite(found)

    async def alist(self, config: Any, **options: Any) -> AsyncIterator[CheckpointTuple]:
        with self.postgres() as saver:
            for found in saver.list(config, **options):
                yield spelled_as_the_suite(found)

    @contextmanager
    def postgres(self) -> Iterator[PostgresSaver]:
        if not self.fresh:
            self.migrate()
        with PostgresSaver.from_conn_string(self.target.dsn) as saver:
            yield saver

    def migrate(self) -> None:
        self.target.execute("DROP SCHEMA IF EXISTS checkpoint_migration CASCADE")
        self.target.execute("DROP SCHEMA public CASCADE")
        self.target.execute("CREATE SCHEMA public")
        migration = Migration(
            self.target.dsn, self.path, self.exports, max_export_tasks=1, max_load_tasks=1
        )
        assert migration.all()["verdict"] == "identical"
        self.migrations += 1
        self.fresh = True


def spelled_as_the_suite(found: CheckpointTuple) -> CheckpointTuple:
    """Integer versions come back as texts with zeros before them; the suite leaves out the zeros."""
    checkpoint: dict[str, Any] = {**found.checkpoint}
    checkpoint["channel_versions"] = _without_zeros(checkpoint["channel_versions"])
    checkpoint["versions_seen"] = {
        node: _without_zeros(seen) for node, seen in checkpoint["versions_seen"].items()
    }
    return found._replace(checkpoint=checkpoint)  # type: ignore[arg-type]


def _without_zeros(versions: dict[str, str]) -> dict[str, str]:
    return {channel: version.lstrip("0") for channel, version in versions.items()}


@pytest.mark.slow
@pytest.mark.parametrize("capability", CASES)
def test_conforms_after_a_migration(capability: str, tmp_path: Path, database: Database) -> None:
    """Every case of the suite runs and passes, reading from PostgreSQL what went to SQLite."""
    made: list[MigratingSaver] = []

    @checkpointer_test(name=f"migrated, {capability}")
    async def migrating() -> AsyncGenerator[BaseCheckpointSaver[str], None]:
        saver = MigratingSaver(tmp_path, database)
        made.append(saver)
        yield saver
        saver.conn.close()

    report = asyncio.run(validate(migrating, capabilities={capability}))
    result = report.results[capability]
    assert result.failures == []
    assert (result.tests_passed, result.tests_failed, result.tests_skipped) == (
        CASES[capability],
        0,
        0,
    )
    assert made[0].migrations >= 4


def test_nothing_that_sqlite_savers_can_do_is_left_out() -> None:
    """The suite's other capabilities are those that no saver of SQLite has."""

    async def detect() -> set[str]:
        async with AsyncSqliteSaver.from_conn_string(":memory:") as saver:
            return {found.value for found in DetectedCapabilities.from_instance(saver).detected}

    assert asyncio.run(detect()) == set(CASES)
    assert {capability.value for capability in Capability} == {*CASES, *NOT_SQLITES}
