"""Where a run's files lie: one private folder, names of our own, nothing written in place."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .errors import MigrationError, StorageFull, StorageRefused

FOLDER_MODE = 0o700
FILE_MODE = 0o600
_TEMPORARY = ".tmp-"


class RunFolder:
    """The folder of one run. Its files appear whole, under their final name, or not at all."""

    def __init__(self, export_uri: str, name: str) -> None:
        self.root = Path(export_uri)
        self.path = self.root / name

    @property
    def frozen(self) -> Path:
        return self.path / "source.sqlite"

    def export(self, shard: int) -> Path:
        return self.path / f"{shard:04}.jsonl.zst"

    def manifest(self, shard: int) -> Path:
        return self.path / f"{shard:04}.manifest.json"

    def create(self) -> None:
        """Make the folder, private to us; refuse one that is a link or somebody else's."""
        with storage_errors("making the run's folder", self.path):
            self.root.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                self.path.mkdir(mode=FOLDER_MODE)
            found = self.path.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise _refused(f"{self.path} is a link or a file, where the run's folder should be")
        if found.st_uid != os.geteuid():
            raise _refused(f"{self.path} belongs to another user")
        if found.st_mode & 0o077:
            self.path.chmod(FOLDER_MODE)

    def sweep(self) -> None:
        """Remove what killed tries left under temporary names."""
        if self.path.is_dir():
            for path in self.path.iterdir():
                if path.name.startswith(_TEMPORARY):
                    path.unlink(missing_ok=True)

    def clear(self, *, keep: frozenset[str]) -> None:
        """Remove everything of the run but the files named."""
        if not self.path.is_dir() or self.path.is_symlink():
            return
        for path in self.path.iterdir():
            if path.name in keep:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes its name, synced, when the block ends; killed before, it never was."""
    temporary = path.with_name(f"{_TEMPORARY}{path.name}-{secrets.token_hex(4)}")
    with storage_errors(f"writing {path.name}", path):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, FILE_MODE)
        try:
            with os.fdopen(descriptor, "wb", buffering=1 << 18) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if path.is_symlink():
                raise _refused(f"{path} is a link; somebody planted it")
            temporary.rename(path)
            sync_folder(path.parent)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            raise


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading; a link or anything that is no plain file is refused."""
    with storage_errors(f"opening {path.name}", path):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise _refused(f"{path} is no regular file")
        return os.fdopen(descriptor, "rb")


def sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def storage_errors(doing: str, path: Path) -> Iterator[None]:
    """Turn the operating system's errors while `doing` something into the failure tree."""
    try:
        yield
    except MigrationError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageFull(
                f"the volume of {path.parent} is full: {doing} ended with {_name(error)}.",
                next=f"make room below {path.parent}; the task is tried again.",
                path=str(path),
            ) from None
        if error.errno == errno.ELOOP:
            raise _refused(f"{path} is a link; somebody planted it") from None
        raise StorageRefused(
            f"{doing} ended with {_name(error)} at {path}.",
            next="make the folder that export_uri names writable for the workers, and the same "
            "folder on all of them; then run again.",
            path=str(path),
        ) from None


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


def _refused(what: str) -> StorageRefused:
    return StorageRefused(f"{what}.", next="remove it, or give another export_uri; then run again.")
