"""Where a run's files lie: one private folder, names of our own, nothing written in place."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .errors import MigrationError, StorageFull, StorageRefused
from .model import BatchEntry

FOLDER_MODE = 0o700
FILE_MODE = 0o600
OF_OTHERS = 0o077
_TEMPORARY = ".tmp-"

# What volumes say that keep no modes, and those that cannot sync a folder.
NO_MODES = (errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF)


class RunFolder:
    """The folder of one run. Its files appear whole, under their final name, or not at all.

    All workers share it. `bucket.BucketFolder` is the same where they share an object store: then
    `path` is the worker's own, and what others are to have is published, fetched and kept.
    """

    def __init__(self, export_uri: str, name: str) -> None:
        self.root = Path(export_uri)
        self.path = self.root / name

    @property
    def where(self) -> str:
        """How people and other workers find it."""
        return str(self.path)

    def address(self, path: Path) -> str:
        """How other workers find a file of it."""
        return str(path)

    @property
    def frozen(self) -> Path:
        return self.path / "source.sqlite"

    def export(self, shard: int) -> Path:
        return self.path / f"{shard:04}.jsonl.zst"

    def manifest(self, shard: int) -> Path:
        return self.path / f"{shard:04}.manifest.json"

    def create(self) -> list[str]:
        """Make the folder, private to us; return what people should know of how private it is.

        Refused is one that is a link or somebody else's, or that anybody may rename or write.
        """
        with storage_errors("making the run's folder", self.path):
            self.root.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            _refuse_open_to_all(self.root, self.root.stat())
            with contextlib.suppress(FileExistsError):
                self.path.mkdir(mode=FOLDER_MODE)
            found = self.path.lstat()
            if not stat.S_ISDIR(found.st_mode):
                raise _refused(f"{self.path} is a link or a file, where the run's folder should be")
            ours = found.st_uid == os.geteuid()
            if not ours and found.st_uid != _owner_of_what_we_make(self.path):
                raise _refused(f"{self.path} belongs to another user")
            if found.st_mode & OF_OTHERS:
                set_mode(self.path, FOLDER_MODE)
                found = self.path.lstat()
            _refuse_open_to_all(self.path, found)
        return list(self._cautions(found, ours))

    def _cautions(self, found: os.stat_result, ours: bool) -> Iterator[str]:
        if not ours:
            yield (
                f"the volume of {self.path} gives every file to user {found.st_uid}, whoever writes it: "
                "who may read the conversations is for the volume to say"
            )
        if found.st_mode & OF_OTHERS:
            yield (
                f"the volume of {self.path} keeps no modes: the run's folder has "
                f"{stat.S_IMODE(found.st_mode):04o} instead of {FOLDER_MODE:04o}, so that other users of "
                "the machine may read the conversations in it"
            )

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """A step works in it."""
        yield

    def publish(self, path: Path) -> None:
        """Let other workers have a file of it, which is whole."""

    def has_frozen(self) -> bool:
        return self.frozen.is_file()

    def fetch_frozen(self) -> Path:
        """Where this worker reads the frozen source."""
        return self.frozen

    @contextlib.contextmanager
    def fetched(self, address: str) -> Iterator[Path]:
        """A published file, to be read in the block."""
        yield Path(address)

    @contextlib.contextmanager
    def batch(self, address: str, entry: BatchEntry) -> Iterator[tuple[Path, BatchEntry]]:
        """A batch of an export file, to be read in the block: the file, and where in it."""
        yield Path(address), entry

    def length(self, address: str) -> int:
        """The bytes of a published file; -1 where there is none."""
        path = Path(address)
        return path.stat().st_size if path.exists() else -1

    def keep(self, name: str, data: bytes) -> None:
        """Keep a small file, in the place of an older one."""
        path = self.path / name
        with storage_errors(f"keeping {path.name}", path):
            path.parent.mkdir(mode=FOLDER_MODE, exist_ok=True)
        with atomic_file(path) as file:
            file.write(data)

    def has(self, name: str) -> bool:
        return (self.path / name).is_file()

    def kept(self, name: str) -> bytes:
        """A small file; raises `StorageRefused` where it is not there."""
        with open_regular(self.path / name) as file:
            return file.read()

    def kept_all(self, folder: str, pattern: re.Pattern[str]) -> list[tuple[str, bytes]]:
        """The small files of a folder in it whose names match, with what they hold."""
        place = self.path / folder
        with storage_errors("reading what earlier steps found", place):
            if not place.is_dir():
                return []
            names = [path.name for path in place.iterdir() if pattern.fullmatch(path.name)]
        return [(str(place / name), self.kept(f"{folder}/{name}")) for name in names]

    def kept_bytes(self) -> int:
        """What lies in it beside its reports."""
        kept = (path for path in self.path.glob("*") if not path.name.startswith("report."))
        return sum(path.stat().st_size for path in kept if path.is_file())

    def export_bytes(self) -> int | None:
        """What its export files take together; None where there are none."""
        sizes = [f.stat().st_size for f in self.path.glob("*.jsonl.zst") if f.is_file()]
        return sum(sizes) if sizes else None

    def sweep(self) -> None:
        """Remove what killed tries left under temporary names."""
        with storage_errors("removing what an earlier try left", self.path):
            if self.path.is_dir():
                for path in self.path.iterdir():
                    if path.name.startswith(_TEMPORARY):
                        _remove(path)

    def clear(self, *, keep: frozenset[str]) -> None:
        """Remove everything of the run but the files named."""
        with storage_errors("removing what the run needs no more", self.path):
            if not self.path.is_dir() or self.path.is_symlink():
                return
            for path in self.path.iterdir():
                if path.name in keep:
                    continue
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def set_mode(file: Path | int, mode: int) -> None:
    """Set a file's mode where its volume keeps modes; many that are mounted do not."""
    try:
        os.chmod(file, mode)  # noqa: PTH101 - a descriptor too
    except OSError as error:
        if error.errno not in NO_MODES:
            raise


def _owner_of_what_we_make(folder: Path) -> int:
    """Who owns a file that we make: not us, where the volume gives all files to one user."""
    probe = folder / f"{_TEMPORARY}owner-{secrets.token_hex(4)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(probe, flags, FILE_MODE)
    try:
        return os.fstat(descriptor).st_uid
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            probe.unlink()


def _refuse_open_to_all(folder: Path, found: os.stat_result) -> None:
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        raise StorageRefused(
            f"anybody on the machine may rename or replace what lies in {folder}: its mode is "
            f"{stat.S_IMODE(found.st_mode):04o}, world-writable without the sticky bit.",
            next=f"run chmod o-w or chmod +t on {folder}; where the volume keeps no modes, mount it with "
            "others (dir_mode=0700 or 0770), or give another export_uri. Then run again.",
            path=str(folder),
        )


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
    """Have a folder's names on disk, where its volume can."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise
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
