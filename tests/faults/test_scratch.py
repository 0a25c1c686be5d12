"""What spills lies in the run's folder: a small `TMPDIR`, or none, is no matter, a full disk is named."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from include.checkpoint_migration.errors import StorageFull, StorageRefused
from include.checkpoint_migration.export.version_book import VersionBook
from include.checkpoint_migration.scratch import open_scratch, scratch_errors
from tests.support.application import Application
from tests.support.engine import Migration
from tests.support.faults import (
    Child,
    Trial,
    export_by_file_with_files_limited,
    step_with_files_limited,
)
from tests.support.postgres import Database
from tests.support.sqlite_sources import ROOT, open_folder, saved
from tests.support.volumes import as_root, mounted

TABLE = "CREATE TABLE rows (x BLOB); BEGIN;"
# Everything in a process of its own, whose file system cannot be written but for the run's folder.
MIGRATE = """
import json, os, sys
from tests.support.engine import Migration
exports, source, dsn, probe = sys.argv[1:]
try:
    open(os.path.join(probe, "probe"), "w")
except OSError as error:
    print("probe:", error.errno)
report = Migration(dsn, source, exports, run_id="boxed", max_export_tasks=1).all()
print(json.dumps({"verdict": report["verdict"], "error": report["error"]}))
"""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A volume of 1 MB."""
    with mounted(tmp_path / "small", "1m") as place:
        yield place


def open_files() -> list[str]:
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the listing's own
            links.append(str(entry.readlink()))
    return links


# --- one file -----------------------------------------------------------------------------------


def test_a_scratch_file_is_in_the_folder_and_has_no_name(tmp_path: Path) -> None:
    """What is written goes to the folder's volume, under no name, and is gone when it is closed."""
    with closing(open_scratch(tmp_path, "test", TABLE)) as conn:
        conn.execute("PRAGMA cache_size=1")
        conn.execute("INSERT INTO rows VALUES (zeroblob(3000000))")
        assert list(tmp_path.iterdir()) == []
        (ours,) = [link for link in open_files() if link.startswith(str(tmp_path))]
        assert ours.startswith(f"{tmp_path}/.tmp-test-")
        assert ours.endswith("(deleted)")
        assert conn.execute("SELECT length(x) FROM rows").fetchone() == (3_000_000,)
    assert list(tmp_path.iterdir()) == []


def test_a_full_folder_is_named(small: Path) -> None:
    """No room for what spills is transient, and says where."""

    def fill() -> None:
        with closing(open_scratch(small, "list of blobs", TABLE)) as conn:
            conn.execute("PRAGMA cache_size=1")
            with scratch_errors(small, "list of blobs"):
                for _ in range(30):
                    conn.execute("INSERT INTO rows VALUES (randomblob(100000))")

    with pytest.raises(StorageFull, match="no room for the list of blobs") as caught:
        fill()
    assert str(small) in caught.value.what
    assert list(small.iterdir()) == []


def test_a_full_version_book_is_named(small: Path) -> None:
    """The book closes itself, and a failure of the frozen source is not taken for its own."""

    def fill() -> None:
        with VersionBook(small) as book:
            book._db.execute("PRAGMA cache_size=1")
            book.turn_to("t", "")
            for number in range(30_000):
                book.note(number, "c" * 100, str(number), "msgpack", b"x")

    def ask_for_what_is_not_there() -> None:
        with VersionBook(small) as book:
            book._db.execute("SELECT * FROM missing")

    with pytest.raises(StorageFull, match="no room for the version book"):
        fill()
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        ask_for_what_is_not_there()
    assert list(small.iterdir()) == []


def test_a_folder_that_takes_no_file_is_named(tmp_path: Path) -> None:
    """A folder that is not there is refused by name."""
    with pytest.raises(StorageRefused, match="scratch file for the test"):
        open_scratch(tmp_path / "missing", "test", TABLE)


# --- whole migrations ---------------------------------------------------------------------------

WIDE, LONG = 400, 300  # channels and checkpoints: 120,000 versions, 50 MB in the version book


@pytest.fixture
def many_states(tmp_path: Path) -> Path:
    """A source whose version book and list of blobs do not fit into their caches."""
    (tmp_path / "app").mkdir()
    path = saved(tmp_path / "app" / "app.sqlite", "one")
    names = [f"channel-{'w' * 290}-{number:03}" for number in range(WIDE)]
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("PRAGMA journal_mode=DELETE")
        conn.execute("BEGIN")
        for number in range(LONG):
            name = f"1f1e5de6-0000-6000-8000-{number:012}"
            checkpoint = {
                "v": 4,
                "id": name,
                "ts": "2026-11-21T18:51:07.263846+00:00",
                "channel_values": dict.fromkeys(names, number),
                "channel_versions": dict.fromkeys(names, f"{number + 1:032}.{0.5:016}"),
                "versions_seen": {},
                "updated_channels": None,
            }
            conn.execute(
                "INSERT INTO checkpoints VALUES ('wide', '', ?, NULL, 'msgpack', ?, '{}')",
                (name, msgspec.msgpack.encode(checkpoint)),
            )
        conn.execute("COMMIT")
    return path


BOX = """
set -e
exports=$1 temporary=$2; shift 2
mount --make-rprivate /
mount --bind "$exports" "$exports"
[ -z "$temporary" ] || mount -t tmpfs -o size=8m,mode=777 tmpfs "$temporary"
mount -o remount,bind,ro /dev/shm
mount -o remount,bind,ro /
exec "$@"
"""


@pytest.mark.slow
@pytest.mark.parametrize("small_tmpdir", [False, True], ids=["no TMPDIR", "TMPDIR of 8 MB"])
def test_nothing_but_the_runs_folder_is_written(
    database: Database, many_states: Path, tmp_path: Path, small_tmpdir: bool
) -> None:
    """Under a read-only root, with a small TMPDIR or none, a run that spills ends `identical`."""
    as_root("unshare", "-m", "true")
    exports, temporary = tmp_path / "exports", tmp_path / "temporary"
    for folder in (exports, temporary):
        folder.mkdir()
    box = [] if os.geteuid() == 0 else ["sudo", "-n", "--preserve-env"]
    box += ["unshare", "-m", "bash", "-c", BOX, "box", str(exports)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for name in ("TMPDIR", "SQLITE_TMPDIR"):
        environment[name] = str(temporary if small_tmpdir else tmp_path)
    done = subprocess.run(
        [*box, str(temporary) if small_tmpdir else "", sys.executable, "-c", MIGRATE]
        + [str(exports), str(many_states), database.dsn, str(tmp_path)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    probe, told = done.stdout.splitlines()
    assert probe == f"probe: {errno.EROFS}"
    assert json.loads(told) == {"verdict": "identical", "error": None}
    (folder,) = exports.iterdir()
    assert {path.name for path in folder.iterdir()} == {"report.html", "report.json"}


def test_a_source_that_is_copied_to_be_read_is_copied_into_the_runs_folder(
    database: Database, tmp_path: Path
) -> None:
    """check_schema, too, keeps the copy of a database whose -shm is missing in the run's folder."""
    with open_folder() as folder, Application(folder / "app.sqlite", "wal") as app:
        app.insert(3)
        (tmp_path / "app").mkdir()
        for name in ("app.sqlite", "app.sqlite-wal"):
            shutil.copy(folder / name, tmp_path / "app" / name)
    made: list[str] = []
    real = tempfile.mkdtemp

    def noted(suffix: Any = None, prefix: Any = None, dir: Any = None) -> str:
        made.append(str(dir))
        return str(real(suffix, prefix, dir))

    tempfile.mkdtemp = noted  # type: ignore[assignment]
    try:
        migration = Migration(database.dsn, tmp_path / "app" / "app.sqlite", tmp_path / "exports")
        migration.check()
    finally:
        tempfile.mkdtemp = real
    assert set(made) == {str(migration.folder)}


@pytest.mark.parametrize("limit", [0, 4096])
def test_a_version_book_that_may_not_grow_is_named(trial: Trial, limit: int) -> None:
    """A limit on files, which the book meets first, is a full volume; the next try is clean."""
    trial.migration.check()
    trial.migration.freeze()
    trial.migration.export()
    for name in ("0000.jsonl.zst", "0000.manifest.json"):
        (trial.migration.folder / name).unlink()
    child = Child(export_by_file_with_files_limited, trial.migration, limit)
    assert child.wait() == 0
    assert isinstance(child.error, StorageFull)
    assert "version book" in child.error.what
    assert str(trial.migration.folder) in child.error.what
    trial.holds(child.error)
    assert not [p for p in trial.migration.folder.iterdir() if p.name.startswith(".tmp-")]
    trial.last_try()


def test_a_list_of_blobs_that_may_not_grow_is_named(trial: Trial) -> None:
    """The oracle's own file meets the limit, says so by name, and nothing of it stays."""
    migration = trial.migration
    migration.check()
    migration.freeze()
    exports = migration.export()
    migration.load(exports)
    child = Child(step_with_files_limited, migration, "verify", (exports,), 0)
    assert child.wait() == 0
    assert isinstance(child.error, StorageFull)
    assert "list of blobs" in child.error.what
    assert str(migration.folder) in child.error.what
    trial.holds(child.error)
    assert not [p for p in migration.folder.iterdir() if p.name.startswith(".tmp-")]
    trial.go_on(exports)
