"""Runs of a test's own on its database, and a live sample for the read-back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import Migration
from tests.support.postgres import Database, TestServer
from tests.support.readbacks import FIXTURES, TABLES, TODAY, load, set_up


@pytest.fixture
def run_on(database: Database, tmp_path: Path) -> Callable[..., Migration]:
    """A run of any source on the test's database, with its exports in the test's folder."""

    def run_on(source: Path, params: dict[str, Any] | None = None, **options: Any) -> Migration:
        return Migration(database.dsn, source, tmp_path / "exports", params or {}, **options)

    return run_on


@pytest.fixture
def run(run_on: Callable[..., Migration], source: Path) -> Callable[..., Migration]:
    """A run of the file's `source` by its id, in small batches of one export."""

    def run(run_id: str, on_conflict: str = "fail", **params: Any) -> Migration:
        asked = {"batch_size": 5, "on_conflict": on_conflict, **params}
        return run_on(source, asked, run_id=run_id, max_export_tasks=1)

    return run


@pytest.fixture(scope="module")
def loaded(postgres_server: TestServer) -> Iterator[Database]:
    """Today's sample, live in `public`; tests copy it into schemas of their own."""
    with postgres_server.database() as database:
        with database.connect() as conn:
            set_up(conn)
            load(FIXTURES / TODAY, conn)
        yield database


@pytest.fixture
def copy(loaded: Database) -> Iterator[str]:
    """A schema with a copy of the live rows, to be spoilt."""
    with loaded.connect() as conn:
        conn.execute("CREATE SCHEMA spoilt")
        for table in TABLES:
            conn.execute(
                f"CREATE TABLE spoilt.{table} (LIKE public.{table} INCLUDING ALL)".encode()
            )
            conn.execute(f"INSERT INTO spoilt.{table} SELECT * FROM public.{table}".encode())
    yield "spoilt"
    loaded.execute("DROP SCHEMA spoilt CASCADE")
