"""A small source, what a run without faults makes of it, and a trial for each test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engine import Migration
from tests.support.faults import BATCH_SIZE, Proxy, Rows, Trial, live_rows, write_source
from tests.support.postgres import Database, TestServer


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source, written once a session; tests copy it."""
    return write_source(tmp_path_factory.mktemp("written") / "app.sqlite")


@pytest.fixture(scope="session")
def expected(
    written: Path, postgres_server: TestServer, tmp_path_factory: pytest.TempPathFactory
) -> Rows:
    """What a run that meets no fault leaves live."""
    folder = tmp_path_factory.mktemp("unharmed")
    with postgres_server.database() as database:
        migration = Migration(
            database.dsn, written, folder, {"batch_size": BATCH_SIZE}, max_export_tasks=1
        )
        assert migration.all()["verdict"] == "identical"
        return live_rows(database.dsn)


@pytest.fixture
def source(written: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "application"
    folder.mkdir()
    return Path(shutil.copy(written, folder / "app.sqlite"))


@pytest.fixture
def trial(database: Database, source: Path, tmp_path: Path, expected: Rows) -> Trial:
    return Trial(database, source, tmp_path / "exports", expected)


@pytest.fixture
def proxy(database: Database) -> Iterator[Proxy]:
    with Proxy(database.dsn) as proxy:
        yield proxy
