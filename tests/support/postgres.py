"""A PostgreSQL server for a whole test session, shared by its workers, and databases on it."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow

from scripts import postgres_server

PREFIX = "checkpoint-migration-tests-"
SETTINGS = ("fsync=off", "max_connections=200", "autovacuum=off")


@dataclass(frozen=True, slots=True)
class Database:
    """A database of its own: `dsn` is a URI that libpq and `AIRFLOW_CONN_*` both take."""

    dsn: str
    name: str

    def connect(self, *, autocommit: bool = True, **options: Any) -> psycopg.Connection[TupleRow]:
        return psycopg.connect(self.dsn, autocommit=autocommit, **options)

    def rows(self, query: str, *parameters: Any) -> list[TupleRow]:
        with self.connect() as connection:
            return connection.execute(query.encode(), parameters or None).fetchall()

    def execute(self, query: str, *parameters: Any) -> None:
        with self.connect() as connection:
            connection.execute(query.encode(), parameters or None)


@dataclass(frozen=True, slots=True)
class TestServer:
    """The session's server: `dsn` is a superuser's. `folder` is None for one that is not ours."""

    __test__ = False

    dsn: str
    folder: Path | None = None

    def uri(self, database: str) -> str:
        part = conninfo_to_dict(self.dsn)
        user, password = _quoted(part.get("user", "postgres")), part.get("password")
        login = user if password is None else f"{user}:{_quoted(password)}"
        return f"postgresql://{login}@{part.get('host')}:{part.get('port', 5432)}/{database}"

    @contextlib.contextmanager
    def database(self, template: str = "template0", **options: str) -> Iterator[Database]:
        """Make a database and drop it afterwards; `options` are CREATE DATABASE's, as ENCODING.

        It begins as a copy of `template`, to which nobody is connected.
        """
        name = f"test_{uuid.uuid4().hex[:12]}"
        clauses = sql.SQL(" ").join(
            sql.SQL(f"{word} ") + sql.Literal(value) for word, value in options.items()
        )
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} {}")
        names = sql.Identifier(name), sql.Identifier(template)
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(statement.format(*names, clauses))
        try:
            yield Database(self.uri(name), name)
        finally:
            drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            with psycopg.connect(self.dsn, autocommit=True) as connection:
                connection.execute(drop)


@contextlib.contextmanager
def own_server(**settings: str) -> Iterator[postgres_server.Server]:
    """Run a server of a test's own, for tests that stop, crash and restart it."""
    folder = new_folder()
    try:
        yield postgres_server.start(
            folder, settings=[*SETTINGS, *(f"{k}={v}" for k, v in settings.items())]
        )
    finally:
        postgres_server.remove(folder)


@contextlib.contextmanager
def debian_server(**settings: str) -> Iterator[TestServer]:
    """Run Debian's server, which has what the bundled one lacks: ICU, lz4 and TLS."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    if not found:
        pytest.skip("Debian's PostgreSQL is not installed (apt-get install postgresql)")
    folder = new_folder()
    chosen = [*SETTINGS, *(f"{name}={value}" for name, value in settings.items())]
    try:
        server = postgres_server.start(folder, settings=chosen, binaries=found[-1].parent)
        yield TestServer(server.uri(), folder)
    finally:
        postgres_server.remove(folder)


def session_server(folder: Path) -> TestServer:
    """Return the server that all workers share, started by whoever comes first."""
    if dsn := os.environ.get("TEST_POSTGRES_DSN"):
        return TestServer(dsn)
    return TestServer(postgres_server.start(folder, settings=SETTINGS).uri(), folder)


def new_folder() -> Path:
    """Return a new folder, of a name that tells a later session whether its owner still lives."""
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=_base()))
    folder.chmod(0o755)  # PostgreSQL runs as another user when this is root
    return folder


def sweep() -> None:
    """Remove the servers of sessions that were killed and could not do it."""
    for folder in _base().glob(f"{PREFIX}*"):
        owner = folder.name.removeprefix(PREFIX).partition("-")[0]
        ours = folder.stat().st_uid == os.geteuid()
        if ours and owner.isdigit() and not psutil.pid_exists(int(owner)):
            postgres_server.remove(folder)
            shutil.rmtree(folder, ignore_errors=True)


def _base() -> Path:
    """Return the folder for temporary files, or /tmp where `nobody` could not reach it."""
    base = Path(tempfile.gettempdir())
    return base if all(p.stat().st_mode & 0o001 for p in (base, *base.parents)) else Path("/tmp")


def _quoted(part: Any) -> str:
    from urllib.parse import quote

    return quote(str(part), safe="")
