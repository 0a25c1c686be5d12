"""The frozen source appears whole or not at all, and reads the same everywhere ever after."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import stat
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from include.checkpoint_migration.errors import SourceUnreadable, StorageFull, StorageRefused
from include.checkpoint_migration.findings import Counts
from include.checkpoint_migration.model import SourceInfo
from include.checkpoint_migration.source import (
    drift,
    freeze,
    freezing,
    inspect_source,
    open_frozen,
    seen_path,
)
from tests.support.application import Application
from tests.support.sqlite_sources import (
    IS_ROOT,
    WORKER,
    add_checkpoint,
    as_user,
    empty,
    fork,
    listing,
    open_folder,
    saved,
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return saved(tmp_path / "app.sqlite", "one", "two")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 10 MB, so that a copy takes a while."""
    path = tmp_path_factory.mktemp("large") / "app.sqlite"
    with closing(empty(path)) as conn:
        conn.execute("BEGIN")
        for number in range(1_000):
            add_checkpoint(conn, f"t{number % 10}", id=str(number), blob=os.urandom(10_000))
        conn.execute("COMMIT")
    return path


def dump(conn: sqlite3.Connection) -> list[Any]:
    return [
        conn.execute(f"SELECT * FROM {table}").fetchall() for table in ("checkpoints", "writes")
    ]


def test_copy_holds_the_same_rows(source: Path, run: Path) -> None:
    """Every row of the source is in the frozen copy, type for type."""
    info = freeze(str(source), run / "source.sqlite")
    with closing(open_frozen(source)) as ours, closing(open_frozen(run / "source.sqlite")) as copy:
        assert dump(ours) == dump(copy)
    before = inspect_source(str(source))
    assert (info.counts, info.threads, info.format) == (before.counts, 2, before.format)
    assert info.uri == str(source)
    assert info.bytes == (run / "source.sqlite").stat().st_size


def test_copy_is_read_only_and_alone(source: Path, run: Path) -> None:
    """The copy has mode 0400, is out of WAL mode, and has nothing but its note beside it."""
    freeze(str(source), run / "source.sqlite")
    assert sorted(entry.name for entry in run.iterdir()) == ["source.seen.json", "source.sqlite"]
    for entry in run.iterdir():
        assert stat.S_IMODE(entry.stat().st_mode) == 0o400
    assert (run / "source.sqlite").read_bytes()[18:20] == b"\1\1"


def test_reading_the_copy_changes_nothing(source: Path, run: Path) -> None:
    """A connection to the frozen source cannot write, and leaves the folder as it is."""
    freeze(str(source), run / "source.sqlite")
    before = listing(run)
    with closing(open_frozen(run / "source.sqlite")) as conn:
        dump(conn)
        with pytest.raises(sqlite3.OperationalError):
            conn.execute("DELETE FROM checkpoints")
    assert listing(run) == before


def test_second_try_keeps_the_first_copy(source: Path, run: Path) -> None:
    """What an earlier try froze is what every later one describes, though the source moved on."""
    first = freeze(str(source), run / "source.sqlite")
    before = listing(run)
    saved(source, "three")
    assert freeze(str(source), run / "source.sqlite") == first
    assert listing(run) == before
    source.unlink()
    assert freeze(str(source), run / "source.sqlite") == first


def test_uncheckpointed_wal_is_in_the_copy(run: Path) -> None:
    """Rows that lie in the -wal only are frozen too."""
    with open_folder() as folder, Application(folder / "app.sqlite", "wal") as app:
        app.insert(30)
        assert freeze(str(folder / "app.sqlite"), run / "source.sqlite").counts == Counts(30, 30)


def killed_after(seconds: float, source: Path, run: Path) -> None:
    child = fork()
    if child == 0:
        try:
            freeze(str(source), run / "source.sqlite")
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_kill_at_any_time_leaves_a_whole_copy_or_none(large: Path, run: Path) -> None:
    """After SIGKILL at 20 moments the file is whole or absent, and the next try ends clean."""
    expected = inspect_source(str(large)).counts
    began = time.monotonic()
    freeze(str(large), run / "source.sqlite")
    lasts = time.monotonic() - began
    absent = 0
    for moment in range(20):
        for left in run.iterdir():
            left.unlink()
        killed_after(1.2 * lasts * moment / 20, large, run)
        absent += not (run / "source.sqlite").exists()
        assert freeze(str(large), run / "source.sqlite").counts == expected
        assert sorted(e.name for e in run.iterdir()) == ["source.seen.json", "source.sqlite"]
    assert absent > 0


def limited(bytes_: int, source: str, destination: Path) -> SourceInfo:
    """Freeze where no file may grow beyond `bytes_`."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, bytes_))
    return freeze(source, destination)


@pytest.mark.parametrize("limit", [0, 4_096, 1_000_000, 9_000_000])
def test_no_room_is_named_and_leaves_nothing(large: Path, run: Path, limit: int) -> None:
    """A volume that takes no more is named, worth another try, and holds nothing of the failed one."""
    error = as_user(os.geteuid(), limited, limit, str(large), run / "source.sqlite")
    assert isinstance(error, StorageFull), error
    assert error.transient
    assert list(run.iterdir()) == []


@pytest.mark.skipif(not IS_ROOT, reason="takes root to mount a small volume")
def test_full_volume_is_named(large: Path, run: Path) -> None:
    """A file system without room is named, and freezing succeeds once there is some."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(run)])
    if mounted.returncode != 0:
        pytest.skip("this sandbox allows no mounts")
    try:
        with pytest.raises(StorageFull):
            freeze(str(large), run / "source.sqlite")
        assert list(run.iterdir()) == []
        subprocess.run(["mount", "-o", "remount,size=80m", str(run)], check=True)
        assert freeze(str(large), run / "source.sqlite").counts == Counts(1_000, 0)
    finally:
        subprocess.run(["umount", str(run)], check=True)


def test_folder_that_cannot_be_used_is_named(source: Path, tmp_path: Path) -> None:
    """A missing folder, or one of somebody else, is refused."""
    with pytest.raises(StorageRefused, match="ENOENT"):
        freeze(str(source), tmp_path / "missing" / "source.sqlite")
    if IS_ROOT:
        with open_folder() as theirs:
            readable = theirs / "app.sqlite"
            readable.write_bytes(source.read_bytes())
            error = as_user(WORKER, freeze, str(readable), theirs / "source.sqlite")
            assert isinstance(error, StorageRefused)


@pytest.mark.parametrize("dangling", [True, False])
def test_planted_link_is_refused(source: Path, run: Path, tmp_path: Path, dangling: bool) -> None:
    """A symbolic link under the frozen source's name is neither followed nor replaced."""
    target = tmp_path / "victim"
    if not dangling:
        target.write_text("precious")
    (run / "source.sqlite").symlink_to(target)
    with pytest.raises(StorageRefused, match="not a file of ours"):
        freeze(str(source), run / "source.sqlite")
    assert (run / "source.sqlite").is_symlink()
    assert target.exists() != dangling


def test_slow_try_does_not_replace_a_later_ones_copy(source: Path, run: Path) -> None:
    """A try that ends after a later one leaves that one's copy, which exports read already."""
    destination = run / "source.sqlite"
    first = freeze(str(source), destination)
    kept = (destination.stat().st_ino, destination.read_bytes())
    saved(source, "three")
    freezing._make(str(source), destination, 5.0, True)  # what the slow try has yet to do
    assert (destination.stat().st_ino, destination.read_bytes()) == kept
    assert freeze(str(source), destination) == first
    with closing(open_frozen(destination)) as conn:
        found, _ = drift(str(source), conn)
    assert found.checkpoints.added == 3
    assert sorted(entry.name for entry in run.iterdir()) == ["source.seen.json", "source.sqlite"]


@pytest.mark.parametrize("killed", ["before", "after"])
def test_leftovers_of_a_killed_try_go(source: Path, run: Path, killed: str) -> None:
    """What a try that was killed before or after its copy had its name left, the next removes."""
    if killed == "after":
        freeze(str(source), run / "source.sqlite")
    (run / ".frozen-abcd1234.tmp").write_bytes(b"half")
    (run / ".frozen-abcd1234.tmp-journal").write_bytes(b"half")
    (run / ".scratch-abcd1234").mkdir()
    (run / ".scratch-abcd1234" / "source.sqlite").write_bytes(b"half")
    freeze(str(source), run / "source.sqlite")
    assert sorted(entry.name for entry in run.iterdir()) == ["source.seen.json", "source.sqlite"]


@pytest.mark.parametrize("content", [b"", b"not SQLite" * 1000])
def test_broken_copy_is_named(source: Path, run: Path, content: bytes) -> None:
    """A frozen source that is gone or no database says so, and what to do."""
    with pytest.raises(StorageRefused, match="cannot be read"):
        open_frozen(run / "source.sqlite")
    (run / "source.sqlite").write_bytes(content)
    with pytest.raises((StorageRefused, SourceUnreadable)):
        freeze(str(source), run / "source.sqlite")


def test_names_with_special_characters(tmp_path: Path, run: Path) -> None:
    """Characters that mean something in a URI are part of a file's name like any other."""
    path = saved(tmp_path / "a b%20?mode=rw#&ü'\".sqlite", "one")
    before = listing(tmp_path)
    assert freeze(str(path), run / "source.sqlite").threads == 1
    assert listing(tmp_path) == before
    assert seen_path(run / "source.sqlite").exists()
