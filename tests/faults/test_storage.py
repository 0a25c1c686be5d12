"""The volume behind `export_uri` is full, or somebody planted something there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.checkpoint_migration.errors import StorageError, StorageFull, StorageRefused
from tests.support.faults import (
    Child,
    Rows,
    Trial,
    load_one,
    plan,
    receipts,
    step_with_files_limited,
)
from tests.support.postgres import Database
from tests.support.volumes import as_root, mounted

FINAL = ("source.sqlite", "plan.json", "0000.jsonl.zst", "0000.manifest.json")


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A volume that is large enough for check_schema to begin, and soon full."""
    with mounted(tmp_path / "volume", "96m") as place:
        yield place


def fill(volume: Path, leave: int) -> Path:
    """Fill a volume but for so many bytes."""
    ballast = volume / "ballast"
    free = os.statvfs(volume)
    ballast.write_bytes(b"\0" * max(0, free.f_bavail * free.f_frsize - leave))
    return ballast


def test_what_a_killed_task_left_under_temporary_names_is_swept(
    database: Database, source: Path, expected: Rows, tmp_path: Path
) -> None:
    """Files, and the folders in which workers fetch batches from a bucket."""
    trial = Trial(database, source, tmp_path / "exports", expected)
    left = trial.migration.folder / ".tmp-0123abcd"
    trial.migration.check()
    left.mkdir()
    (left / "0000.jsonl.zst").write_bytes(b"half of it")
    (trial.migration.folder / ".tmp-4567cdef").write_bytes(b"half of it")
    trial.migration.check()
    assert not list(trial.migration.folder.glob(".tmp-*"))
    trial.last_try()


@pytest.mark.parametrize("step", ["freeze", "export"])
@pytest.mark.parametrize("leave", [0, 4096])
def test_a_full_volume_is_named_and_nothing_takes_a_final_name(
    database: Database, source: Path, expected: Rows, volume: Path, step: str, leave: int
) -> None:
    """Without room a step fails as transient, leaves no file under a final name, and goes on with room."""
    trial = Trial(database, source, volume / "exports", expected)
    trial.exports.mkdir()
    trial.migration.check()
    if step == "export":
        trial.migration.freeze()
    ballast = fill(volume, leave)
    with trial.fails(StorageFull, transient=True):
        getattr(trial.migration, step)()
    done = {"source.sqlite", "source.seen.json"} if step == "export" else set()
    left = {path.name for path in trial.migration.folder.iterdir() if path.is_file()}
    assert not left & (set(FINAL) - done - {"plan.json"})
    ballast.unlink()
    trial.last_try()


@pytest.mark.parametrize("limit", [0, 1, 1000])
def test_a_file_that_may_not_grow_is_an_error_of_the_storage(trial: Trial, limit: int) -> None:
    """A limit on the size of files is met as a full volume is."""
    trial.migration.check()
    trial.migration.freeze()
    trial.migration.export()
    for name in FINAL[2:]:
        (trial.migration.folder / name).unlink()
    child = Child(step_with_files_limited, trial.migration, "export_one", (), limit)
    assert child.wait() == 0
    assert isinstance(child.error, StorageError)
    trial.holds(child.error)
    assert not set(FINAL[2:]) & {path.name for path in trial.migration.folder.iterdir()}
    trial.last_try()


@pytest.mark.parametrize("name", FINAL)
@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_under_a_final_name_is_refused(
    trial: Trial, tmp_path: Path, name: str, dangling: bool
) -> None:
    """Where a file of the run belongs, a link is refused and what it points to stays as it is."""
    victim = tmp_path / "victim"
    if not dangling:
        victim.write_bytes(b"mine")
    trial.migration.check()
    (trial.migration.folder / name).symlink_to(victim)
    with trial.fails(StorageRefused, transient=False):
        trial.migration.all()
    assert victim.exists() is not dangling
    assert dangling or victim.read_bytes() == b"mine"
    (trial.migration.folder / name).unlink()
    trial.last_try()


@pytest.mark.parametrize("name", FINAL[2:])
def test_an_export_is_not_read_through_a_link(trial: Trial, tmp_path: Path, name: str) -> None:
    """Files are opened without following links, so that one is not read through a link either."""
    exports, [first, *_] = plan(trial.migration)
    path = trial.migration.folder / name
    moved = path.rename(tmp_path / "moved")
    path.symlink_to(moved)
    with trial.fails(StorageRefused, transient=False):
        load_one(trial.migration, first)
    assert receipts(trial.database) == []
    path.unlink()
    moved.rename(path)
    trial.go_on(exports, load=True)


def test_a_runs_folder_that_is_a_link_is_refused(trial: Trial, tmp_path: Path) -> None:
    """Whoever makes a link in place of the run's folder does not get the conversations."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    trial.exports.mkdir()
    trial.migration.folder.symlink_to(elsewhere)
    with trial.fails(StorageRefused, transient=False):
        trial.migration.check()
    assert list(elsewhere.iterdir()) == []
    trial.migration.folder.unlink()
    trial.last_try()


def test_a_runs_folder_of_another_user_is_refused(trial: Trial) -> None:
    """A folder that somebody else made beforehand is theirs to read: nothing is written there."""
    trial.exports.mkdir()
    trial.migration.folder.mkdir(mode=0o777)
    as_root("chown", "1234", str(trial.migration.folder))
    with trial.fails(StorageRefused, transient=False):
        trial.migration.check()
    assert list(trial.migration.folder.iterdir()) == []
    as_root("chown", str(os.geteuid()), str(trial.migration.folder))
    trial.last_try()


def test_an_export_uri_that_is_no_folder_is_refused(trial: Trial) -> None:
    """A file where the folder of all exports should be is named."""
    trial.exports.write_bytes(b"a file")
    with pytest.raises(StorageRefused):
        trial.migration.check()
    assert trial.exports.read_bytes() == b"a file"
    assert trial.live() == "before"


def test_what_a_run_writes_is_private(trial: Trial) -> None:
    """Folders 0700, files 0600 or less, whatever the folder was before: these are conversations."""
    trial.exports.mkdir()
    trial.migration.folder.mkdir(mode=0o777)
    trial.migration.folder.chmod(0o777)
    trial.migration.to_staging()
    modes = {path: path.stat().st_mode & 0o777 for path in trial.migration.folder.rglob("*")}
    modes[trial.migration.folder] = trial.migration.folder.stat().st_mode & 0o777
    assert len(modes) > 6
    for path, mode in modes.items():
        assert mode == 0o700 if path.is_dir() else mode in (0o600, 0o400), path
