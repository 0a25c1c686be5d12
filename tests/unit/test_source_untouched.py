"""Reading the source leaves its folder as it is, whoever reads and whoever owns it."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from include.checkpoint_migration.errors import SourceUnreadable
from include.checkpoint_migration.findings import Counts
from include.checkpoint_migration.source import (
    drift,
    freeze,
    inspect_source,
    open_frozen,
    seen_path,
)
from tests.support.application import Application
from tests.support.sqlite_sources import (
    IS_ROOT,
    OWNER,
    WORKER,
    as_user,
    listing,
    open_folder,
    rows_of,
)

READERS = [WORKER, OWNER, 0] if IS_ROOT else [os.geteuid()]


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder(OWNER) as path:
        yield path


@pytest.fixture
def source(folder: Path) -> Path:
    return folder / "app.sqlite"


@pytest.fixture
def run() -> Iterator[Path]:
    """A run's folder that every user may write."""
    with open_folder(mode=0o777) as path:
        yield path


def owner() -> int | None:
    return OWNER if IS_ROOT else None


def compared(source: str, frozen: Path) -> Counts:
    """What a full comparison says is in the source, which must not differ from the frozen copy."""
    seen_path(frozen).unlink()
    with closing(open_frozen(frozen)) as conn:
        changed, counts = drift(source, conn)
    assert not changed.any
    return counts


def read_all(uid: int, source: Path, run: Path) -> list[Any]:
    """What inspect, freeze and drift find in the source, each run by `uid`."""
    info = as_user(uid, inspect_source, str(source))
    frozen = as_user(uid, freeze, str(source), run / "source.sqlite")
    if isinstance(frozen, Exception):
        return [info, frozen]
    assert frozen.counts == info.counts
    return [info.counts, as_user(uid, compared, str(source), run / "source.sqlite")]


@pytest.mark.parametrize("uid", READERS)
def test_live_wal_is_read_and_the_application_writes_on(
    source: Path, folder: Path, run: Path, uid: int
) -> None:
    """Beside a live -wal no reader's user leaves a trace, and the owner's next INSERT succeeds."""
    with Application(source, "wal", owner()) as app:
        app.insert(3)
        before = listing(folder)
        assert set(before) == {"app.sqlite", "app.sqlite-wal", "app.sqlite-shm"}
        assert read_all(uid, source, run) == [Counts(3, 3)] * 2
        assert listing(folder) == before
        app.insert()
        app.close()
    assert rows_of(source) == 4


@pytest.mark.parametrize("uid", READERS)
def test_quiescent_wal_database_gets_no_sidecars(
    source: Path, folder: Path, run: Path, uid: int
) -> None:
    """A WAL database at rest is read without making -wal or -shm, so its owner can write again."""
    with Application(source, "wal", owner()) as app:
        app.insert(3)
        app.close()
    before = listing(folder)
    assert set(before) == {"app.sqlite"}
    assert read_all(uid, source, run) == [Counts(3, 3)] * 2
    assert listing(folder) == before
    with Application(source, "wal", owner()) as app:
        app.insert()
        app.close()
    assert rows_of(source) == 4


@pytest.mark.parametrize("uid", READERS)
@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
def test_folder_that_cannot_be_written_is_no_obstacle(
    source: Path, folder: Path, run: Path, uid: int, journal_mode: str
) -> None:
    """A database at rest in a read-only folder is read as it lies there."""
    with Application(source, journal_mode, owner()) as app:
        app.insert(2)
        app.close()
    source.chmod(0o444)
    folder.chmod(0o555)
    before = listing(folder)
    try:
        assert read_all(uid, source, run) == [Counts(2, 2)] * 2
        assert listing(folder) == before
    finally:
        folder.chmod(0o755)


@pytest.mark.parametrize("uid", READERS)
def test_wal_of_a_killed_application_is_read_and_left(
    source: Path, folder: Path, run: Path, uid: int
) -> None:
    """Rows that only the -wal of a dead process holds are read; both sidecars stay as they are."""
    with Application(source, "wal", owner()) as app:
        app.insert(3)
    before = listing(folder)
    assert set(before) == {"app.sqlite", "app.sqlite-wal", "app.sqlite-shm"}
    assert read_all(uid, source, run) == [Counts(3, 3)] * 2
    assert listing(folder) == before
    with Application(source, "wal", owner()) as app:
        app.insert()
        app.close()
    assert rows_of(source) == 4


@pytest.mark.parametrize("uid", READERS)
def test_wal_without_its_shm_is_read_from_a_private_copy(
    source: Path, folder: Path, run: Path, uid: int
) -> None:
    """A database that was copied with its -wal only is read whole, and no -shm appears there."""
    with Application(source, "wal", owner()) as app:
        app.insert(3)
    (folder / "app.sqlite-shm").unlink()
    before = listing(folder)
    assert read_all(uid, source, run) == [Counts(3, 3)] * 2
    assert listing(folder) == before
    assert [entry.name for entry in run.iterdir()] == ["source.sqlite"]


@pytest.mark.parametrize("uid", READERS)
def test_empty_wal_counts_as_none(source: Path, folder: Path, run: Path, uid: int) -> None:
    """A -wal of 0 bytes hides nothing: the file is read as it lies there."""
    with Application(source, "wal", owner()) as app:
        app.insert(2)
        app.close()
    (folder / "app.sqlite-wal").touch()
    before = listing(folder)
    assert read_all(uid, source, run) == [Counts(2, 2)] * 2
    assert listing(folder) == before


@pytest.mark.parametrize("uid", READERS)
def test_rollback_database_of_a_live_application(
    source: Path, folder: Path, run: Path, uid: int
) -> None:
    """A database in rollback mode is read while its application has it open, and left as it is."""
    with Application(source, "delete", owner()) as app:
        app.insert(3)
        before = listing(folder)
        assert read_all(uid, source, run) == [Counts(3, 3)] * 2
        assert listing(folder) == before
        app.insert()
        app.close()
    assert rows_of(source) == 4


def test_a_link_is_followed_to_the_wal_beside_the_database(source: Path, folder: Path) -> None:
    """Through a symbolic link the -wal is looked for where SQLite keeps it."""
    with Application(source, "wal", owner()) as app, open_folder() as elsewhere:
        app.insert(3)
        link = elsewhere / "link.sqlite"
        link.symlink_to(source)
        before = listing(folder)
        assert as_user(READERS[0], inspect_source, str(link)).counts == Counts(3, 3)
        assert listing(folder) == before
        assert list(elsewhere.iterdir()) == [link]


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_what_may_not_be_read_is_named(source: Path, folder: Path, suffix: str) -> None:
    """A database or sidecar out of the worker's reach is refused, and the message names it."""
    if not IS_ROOT:
        pytest.skip("takes two users, so it runs as root only")
    with Application(source, "wal", owner()) as app:
        app.insert()
        (folder / f"app.sqlite{suffix}").chmod(0o600)
        before = listing(folder)
        error = as_user(WORKER, inspect_source, str(source))
        assert isinstance(error, SourceUnreadable)
        assert f"app.sqlite{suffix}' may not be read" in error.what
        assert listing(folder) == before


def test_hot_journal_is_named_and_left(source: Path, folder: Path, run: Path) -> None:
    """After a crash in a transaction the half-written database is refused, not rolled back."""
    with Application(source, "delete", owner()) as app:
        app.insert(50)
        app.execute("PRAGMA cache_size=5")
        app.execute("PRAGMA cache_spill=5")
        app.execute("BEGIN IMMEDIATE")
        app.execute("UPDATE checkpoints SET checkpoint = zeroblob(3000)")
    assert (folder / "app.sqlite-journal").stat().st_size > 0
    before = listing(folder)
    for error in read_all(READERS[0], source, run):
        assert isinstance(error, SourceUnreadable)
        assert "hot rollback journal" in error.what
    assert listing(folder) == before
    assert list(run.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"\0" * 512])
def test_spent_journal_is_no_obstacle(
    source: Path, folder: Path, run: Path, content: bytes
) -> None:
    """What journal modes TRUNCATE and PERSIST leave beside a database is not a hot journal."""
    with Application(source, "delete", owner()) as app:
        app.insert(2)
        app.close()
    (folder / "app.sqlite-journal").write_bytes(content)
    before = listing(folder)
    assert read_all(READERS[0], source, run) == [Counts(2, 2)] * 2
    assert listing(folder) == before


def test_open_transaction_of_a_writer_is_not_seen(source: Path, folder: Path, run: Path) -> None:
    """Rows that a live writer has not committed are not read, in rollback mode either."""
    with Application(source, "delete", owner()) as app:
        app.insert(2)
        app.execute("BEGIN IMMEDIATE")
        app.execute("DELETE FROM checkpoints")
        before = listing(folder)
        assert "app.sqlite-journal" in before
        assert read_all(READERS[0], source, run) == [Counts(2, 2)] * 2
        assert listing(folder) == before
        app.execute("COMMIT")


def test_database_moved_with_its_wal_reads_the_same(source: Path, folder: Path, run: Path) -> None:
    """A copy of database, -wal and -shm gives the rows of the original."""
    with Application(source, "wal", owner()) as app, open_folder() as elsewhere:
        app.insert(3)
        for entry in folder.iterdir():
            shutil.copy(entry, elsewhere)
        before = listing(elsewhere)
        assert read_all(READERS[0], elsewhere / "app.sqlite", run) == [Counts(3, 3)] * 2
        assert listing(elsewhere) == before


def test_sqlite_itself_would_leave_a_trace(source: Path, folder: Path) -> None:
    """The control: plain `mode=ro` makes sidecars, so the tests above look at the right thing."""
    with Application(source, "wal", owner()) as app:
        app.insert()
        app.close()
    before = listing(folder)
    conn = sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True)
    conn.execute("SELECT count(*) FROM checkpoints").fetchone()
    conn.close()
    assert listing(folder) != before
