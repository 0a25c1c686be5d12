"""Looks at a database's files without SQLite: is it one, is it quiet, did it move."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote_to_bytes

from ..errors import SourceHasNoTables
from ..texts import printable
from .failures import named, path_error, unreadable

MAGIC = b"SQLite format 3\0"
TICK = 0.05  # longer than any kernel's step of mtime
LONG_AGO = 2.0


@dataclass(frozen=True, slots=True)
class Look:
    """What a database's files looked like at one moment.

    `settled`: a write from then on cannot fail to show, because mtime's clock has moved on.
    """

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    header: str
    wal: tuple[int, int, int, str] | None
    shm: bool
    journal: bool
    settled: bool

    @property
    def in_wal_mode(self) -> bool:
        return bytes.fromhex(self.header)[18:20] != b"\1\1"

    @property
    def has_wal(self) -> bool:
        return self.wal is not None and self.wal[1] > 0

    @property
    def database(self) -> tuple[int | str, ...]:
        """Equal before and after: nobody wrote the database's own file."""
        return (self.device, self.inode, self.size, self.mtime_ns, self.ctime_ns, self.header)


def file_of(source: str) -> Path:
    """The database's own file, links followed: SQLite looks for sidecars there.

    A source is a path, or a `file:` URI where the path is no UTF-8.
    """
    name = source.removeprefix("file://")
    path = source if name == source else os.fsdecode(unquote_to_bytes(name))
    return Path(os.path.realpath(path))


def beside(path: Path, suffix: str) -> Path:
    """What SQLite keeps next to a database: `-wal`, `-shm` or `-journal`."""
    return path.with_name(path.name + suffix)


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """The database's own file, for looks and locks; refuses what cannot be an SQLite database.

    Close it last: closing any descriptor of a file drops this process's POSIX locks on it,
    and those of a connection opened meanwhile are among them.
    """
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise unreadable(path, "is a folder", "name the database file in it.")
        if not stat.S_ISREG(found.st_mode):
            raise unreadable(path, "is not a file", "name an SQLite database.")
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise path_error(error, path) from error
    try:
        header = os.pread(fd, len(MAGIC), 0)
        if not header:
            raise SourceHasNoTables(
                f"{named(path)} is empty: it has 0 bytes, and no tables.",
                next="name the file that the application passes to its SqliteSaver.",
                path=printable(os.fsencode(path)),
            )
        if header != MAGIC:
            raise unreadable(
                path,
                "is not an SQLite database",
                "name the file that the application passes to its SqliteSaver; a database that is "
                "encrypted as a whole must be decrypted first.",
            )
        yield fd
    finally:
        os.close(fd)


def look(fd: int, path: Path) -> Look:
    """Look, and wait a moment where the file was written just now, so that the look is settled."""
    seen = glance(fd, path)
    if _age(seen) > LONG_AGO:
        return replace(seen, settled=is_named(fd, path))
    time.sleep(TICK)
    again = glance(fd, path)
    same = (seen.database, seen.wal) == (again.database, again.wal)
    return replace(again, settled=same and is_named(fd, path))


def glance(fd: int, path: Path) -> Look:
    """Look once."""
    try:
        found = path.stat()
        return Look(
            device=found.st_dev,
            inode=found.st_ino,
            size=found.st_size,
            mtime_ns=found.st_mtime_ns,
            ctime_ns=found.st_ctime_ns,
            header=os.pread(fd, 100, 0).hex(),
            wal=_wal(beside(path, "-wal")),
            shm=os.path.lexists(beside(path, "-shm")),
            journal=_journal(beside(path, "-journal")),
            settled=False,
        )
    except OSError as error:
        raise path_error(error, path) from error


def _wal(path: Path) -> tuple[int, int, int, str] | None:
    try:
        found = path.stat()
        return (found.st_ino, found.st_size, found.st_mtime_ns, _start(path, 32).hex())
    except FileNotFoundError:
        return None


def _journal(path: Path) -> bool:
    """Whether there is a rollback journal that holds something; one out of sight counts."""
    try:
        return path.stat().st_size > 0 and _start(path, 1) != b"\0"
    except FileNotFoundError:
        return False


def _start(path: Path, length: int) -> bytes:
    try:
        with path.open("rb", buffering=0) as file:
            return file.read(length)
    except PermissionError:
        return b""


def is_named(fd: int, path: Path) -> bool:
    """Whether the path still leads to the opened file, and not to one that took its place."""
    ours, named = os.fstat(fd), path.stat()
    return (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino)


def _age(seen: Look) -> float:
    newest = max(seen.mtime_ns, seen.ctime_ns, seen.wal[2] if seen.wal else 0)
    return (time.time_ns() - newest) / 1e9
