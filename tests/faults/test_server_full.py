"""The server's volume is full while a run copies or promotes: named, taken back whole, gone on with."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from include.checkpoint_migration.errors import StorageFull
from tests.support.faults import Rows, Trial, load_one, plan, receipts, staged_rows
from tests.support.postgres import Database, TestServer, new_folder
from tests.support.volumes import mounted

SMALL = "64m"


@pytest.fixture
def volume() -> Iterator[Path]:
    """A small volume that the server may write."""
    folder = new_folder()
    with mounted(folder / "volume", SMALL) as place:
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(place, nobody.pw_uid, nobody.pw_gid)
        yield place
    shutil.rmtree(folder)


@pytest.fixture
def database(postgres_server: TestServer, volume: Path) -> Iterator[Database]:
    """A database that lies on that volume, its WAL elsewhere: what is full is its tables' disk."""
    if postgres_server.folder is None:
        pytest.skip("needs a server of the tests' own")
    name = sql.Identifier(f"small_{os.getpid()}")
    with psycopg.connect(postgres_server.dsn, autocommit=True) as conn:
        conn.execute(
            sql.SQL("CREATE TABLESPACE {} LOCATION {}").format(name, sql.Literal(str(volume)))
        )
        with postgres_server.database() as database:
            conn.execute(
                sql.SQL("ALTER DATABASE {} SET TABLESPACE {}").format(
                    sql.Identifier(database.name), name
                )
            )
            yield database
        conn.execute(sql.SQL("DROP TABLESPACE {}").format(name))


def fill(volume: Path) -> Path:
    """Leave no room on a volume."""
    ballast = volume / "ballast"
    free = os.statvfs(volume)
    with ballast.open("wb") as file:
        file.write(b"\0" * free.f_bavail * free.f_frsize)
    return ballast


def test_a_full_server_is_named_in_copy_and_in_promote(
    database: Database, source: Path, tmp_path: Path, expected: Rows, volume: Path
) -> None:
    """Both end as transient with nothing half done, and go on once there is room."""
    trial = Trial(database, source, tmp_path / "exports", expected)
    exports, loads = plan(trial.migration)
    ballast = fill(volume)
    with trial.fails(StorageFull, transient=True):
        for load in loads:
            load_one(trial.migration, load)
    assert receipts(database) == []
    assert staged_rows(database, trial.migration) == 0
    ballast.unlink()
    trial.migration.load(exports)
    trial.migration.verify(exports)
    ballast = fill(volume)
    with trial.fails(StorageFull, transient=True):
        trial.migration.promote()
    assert trial.live() == "before"
    ballast.unlink()
    trial.go_on()
