"""Export folders as people mount them: without modes, without owners, for everybody.

The volumes are real mounts: bindfs does to a folder what Azure Files, EFS access points and NFS servers
do to theirs.
"""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from include.checkpoint_migration.errors import MigrationError, StorageRefused
from tests.support.engine import Migration
from tests.support.faults import BATCH_SIZE, Rows, Trial, live_rows
from tests.support.postgres import Database
from tests.support.sqlite_sources import IS_ROOT, OWNER, WORKER, as_user, listing, open_folder

Mount = Callable[..., Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mounts a folder, with bindfs's options, as the volume of the exports."""
    if not IS_ROOT:
        pytest.skip("takes root to mount a volume")
    behind, volume = tmp_path / "behind", tmp_path / "volume"
    behind.mkdir()
    volume.mkdir()

    def mounted(*options: str) -> Path:
        subprocess.run(["bindfs", *options, behind, volume], check=True)
        return volume

    try:
        yield mounted
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            subprocess.run(["umount", volume], check=True, capture_output=True)


@pytest.fixture
def on(database: Database, source: Path, expected: Rows) -> Callable[[Path], Trial]:
    """A trial whose exports lie on a volume."""
    return lambda volume: Trial(database, source, volume / "exports", expected)


def warned(report: dict[str, Any]) -> list[str]:
    return [w["message"] for w in report["warnings"] if w["kind"] == "volume"]


NO_CHMOD = ("--chmod-deny", "-p", "0600,u+X,g+rX,o+rX")
IGNORED = ("--chmod-ignore", "-p", "0750")
ONE_OWNER = (f"--force-user={OWNER}", f"--force-group={OWNER}", "--chmod-deny", "--chown-deny")
SQUASHED = ("--create-for-user=65534", "--create-for-group=65534", "--chown-deny")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param((), [], id="a plain volume"),
        pytest.param(("--chmod-deny",), [], id="modes at birth alone"),
        pytest.param(NO_CHMOD, ["keeps no modes"], id="chmod is refused"),
        pytest.param(IGNORED, ["keeps no modes"], id="chmod is ignored"),
        pytest.param(ONE_OWNER, [f"to user {OWNER}"], id="one owner of all files"),
        pytest.param(SQUASHED, ["to user 65534"], id="root is squashed"),
        pytest.param(
            (*ONE_OWNER, "-p", "0755"), [f"to user {OWNER}", "keeps no modes"], id="neither"
        ),
    ],
)
def test_a_volume_that_keeps_no_modes_or_owners_is_warned_of(
    on: Callable[[Path], Trial], mount: Mount, options: tuple[str, ...], said: list[str]
) -> None:
    """The run ends `identical`, and both its log and its report say what the volume does not keep."""
    trial = on(mount(*options))
    report = trial.migration.all()
    trial.concluded(report)
    warnings = warned(report)
    assert len(warnings) == len(said)
    for part, message in zip(said, warnings, strict=True):
        assert part in message
        assert str(trial.exports) in message
        assert any(message in line for line in trial.migration.log)


def test_a_second_run_of_the_same_kind_is_as_good(
    on: Callable[[Path], Trial], mount: Mount
) -> None:
    """What an earlier try left under another owner is gone on with, from any step."""
    trial = on(mount(*ONE_OWNER))
    trial.migration.to_staging()
    trial.migration.check()
    trial.last_try()


@pytest.mark.parametrize("mode", ["0777", "0757"])
def test_a_volume_that_anybody_may_write_is_refused(
    on: Callable[[Path], Trial], mount: Mount, mode: str
) -> None:
    """World-writable without the sticky bit: whoever may rename a file could have another one loaded."""
    volume = mount("--chmod-ignore", "-p", mode)
    trial = on(volume)
    with trial.fails(StorageRefused, transient=False):
        trial.migration.check()
    [error] = trial.errors
    assert "world-writable without the sticky bit" in error.what
    assert f"mode is {mode}" in error.what
    assert not [path for path in volume.rglob("*") if path.is_file()]
    assert trial.live() == "before"


def test_a_root_that_anybody_may_write_needs_the_sticky_bit(trial: Trial) -> None:
    """The folder of all runs may be everybody's, as /tmp is, but not so that others rename ours."""
    trial.exports.mkdir()
    trial.exports.chmod(0o777)
    with trial.fails(StorageRefused, transient=False):
        trial.migration.check()
    assert list(trial.exports.iterdir()) == []
    [error] = trial.errors
    assert f"chmod +t on {trial.exports}" in error.next
    trial.exports.chmod(0o1777)
    trial.last_try()
    assert stat.S_IMODE(trial.exports.stat().st_mode) == 0o1777


def whole(migration: Migration) -> dict[str, Any]:
    report = migration.all()
    modes = {stat.S_IMODE(p.stat().st_mode) & 0o077 for p in migration.folder.rglob("*")}
    return {"report": report, "open to others": modes - {0}, "uid": os.geteuid()}


@pytest.mark.skipif(not IS_ROOT, reason="takes root to be somebody else")
def test_a_worker_that_owns_neither_source_nor_exports_migrates(
    database: Database, source: Path, expected: Rows
) -> None:
    """A worker of its own uid, in a folder that root made for everybody, works in a folder of its own."""
    with open_folder() as theirs, open_folder(mode=0o1777) as exports:
        copy = theirs / "app.sqlite"
        copy.write_bytes(source.read_bytes())
        os.chown(copy, OWNER, OWNER)
        before = listing(theirs)
        migration = Migration(database.dsn, copy, exports, {"batch_size": BATCH_SIZE})
        told = as_user(WORKER, whole, migration)
        assert not isinstance(told, Exception), told
        assert told["report"]["verdict"] == "identical", told["report"]["error"]
        assert told["uid"] == WORKER
        assert told["open to others"] == set()
        assert warned(told["report"]) == []
        assert listing(theirs) == before
    assert live_rows(database.dsn) == expected


@pytest.mark.skipif(not IS_ROOT, reason="takes root to give a folder away")
@pytest.mark.parametrize("mode", [0o700, 0o755, 0o1777])
def test_a_folder_that_another_user_made_beforehand_is_refused(trial: Trial, mode: int) -> None:
    """On a volume that keeps owners, whose folder it is may read what is in it, whatever its mode."""
    trial.exports.mkdir()
    trial.migration.folder.mkdir()
    os.chown(trial.migration.folder, OWNER, OWNER)
    trial.migration.folder.chmod(mode)
    with trial.fails(StorageRefused, transient=False):
        trial.migration.check()
    assert list(trial.migration.folder.iterdir()) == []
    with pytest.raises(MigrationError):
        trial.migration.conclude()
    assert list(trial.migration.folder.iterdir()) == []


def test_a_folder_that_turns_read_only_keeps_the_report_from_nobody(
    on: Callable[[Path], Trial], mount: Mount, tmp_path: Path
) -> None:
    """A report that does not fit its folder is written to the next one, with all that was found."""
    from include import checkpoint_migration as engine

    volume = mount()
    trial = on(volume)
    trial.migration.to_staging()
    trial.migration.promote()
    trial.migration.witness()
    subprocess.run(["umount", volume], check=True)
    mount("-r")
    elsewhere = engine.RunFolder(str(tmp_path / "elsewhere"), "migrate_checkpoints-0")
    report, path = engine.report(trial.migration.run, [elsewhere])
    assert path == str(elsewhere.path / "report.json")
    assert Path(path).exists()
    assert (report.verdict, report.succeeded) == ("identical", True)
    assert "EROFS" in next(w.message for w in report.warnings if w.kind == "report_elsewhere")
    assert any("not cleaned up in the run's folder" in line for line in trial.migration.log)
