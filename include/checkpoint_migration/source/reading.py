"""Reads the application's database while leaving no trace in its folder.

| the files | how they are read |
| --- | --- |
| nothing in a -wal, nobody writing | `immutable=1`, and nothing may have moved in the meantime |
| a -wal with its -shm | `mode=ro`: SQLite's own protocol; `readonly_shm=1` spares even the -shm |
| a -wal without its -shm | a private copy of both, since `mode=ro` would make a -shm |
| rollback mode, being written | `immutable=1` under a SHARED lock of ours, which writers wait for |

Not to be called in a process that has the database open itself: SQLite's locks are the process's.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from ..errors import SourceHasNoTables, SourceUnreadable
from .failures import (
    busy,
    code_of,
    hot_journal,
    path_error,
    source_error,
    storage_error,
    unknown_entry,
)
from .file_state import TICK, Look, beside, file_of, glance, is_named, look, opened
from .hints import explained
from .locks import release, try_shared, writer_is_alive
from .rows import decode_text

T = TypeVar("T")
TIMEOUT = 10.0  # seconds to wait for those who lock or write
PAUSE = 0.002
SCRATCH = ".scratch-"
FOR_GOOD = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
EFFECTIVE = os.access in os.supports_effective_ids


class Reading(NamedTuple):
    """A connection that sees one state of the source.

    `blocking`: writers wait for its end. `copy`: a private copy that is all there is of that
    state, the work's to take.
    """

    conn: sqlite3.Connection
    seen: Look
    blocking: bool = False
    copy: Path | None = None


class _Moved(Exception):
    """The files changed under the reader: what it read counts for nothing."""

    def __init__(self, error: sqlite3.Error | None = None) -> None:
        self.error = error


def read(
    path: str,
    work: Callable[[Reading], T],
    *,
    timeout: float = TIMEOUT,
    brief: bool = True,
    scratch: Path | None = None,
) -> T:
    """Return `work` of one consistent state of the source, whose folder stays exactly as it is.

    `work` may be called again when the files moved under it, so it must start afresh each time.
    Unless it is `brief`, writers of a database in rollback mode wait for a copy (made in `scratch`)
    and not for `work`. Raises `SourceBusy` after `timeout` seconds of locks or movement,
    `SourceUnreadable` or `SourceHasNoTables` for what is no readable database.
    """
    real = file_of(path)
    deadline = time.monotonic() + timeout
    with opened(real) as fd:
        try:
            try:
                return _without_lock(fd, real, work)
            except _Moved:
                return _retried(fd, real, deadline, partial(_with_lock, work, brief, scratch))
        except (sqlite3.Error, SourceHasNoTables, SourceUnreadable) as error:
            refusal = explained(error, real, glance(fd, real))
            if refusal is error:
                raise
            raise refusal from error
        except UnicodeDecodeError:  # Python cannot pass on what SQLite says of such a name
            raise unknown_entry(real, "a name that is no UTF-8") from None


def _retried(fd: int, path: Path, deadline: float, attempt: Callable[[int, Path], T]) -> T:
    """Try under a SHARED lock until nothing moves."""
    while True:
        try:
            with _shared(fd, path, deadline):
                return attempt(fd, path)
        except _Moved as moved:
            if not is_named(fd, path):
                raise busy(path, "another file took its place") from moved
            if time.monotonic() > deadline:
                if moved.error is not None:
                    raise source_error(moved.error, path) from moved.error
                raise busy(path, "it changed all the time while it was being read") from moved
            time.sleep(PAUSE)


def connect(path: Path, options: str) -> sqlite3.Connection:
    """A connection that cannot write.

    `trusted_schema`: a schema that calls functions, such as an application's index over
    `json_extract`, does not parse without it. Nothing of it is run: the two tables that are read
    are ordinary ones, and no view, trigger or virtual table is.
    """
    uri = f"{path.absolute().as_uri()}?{options}"
    # whoever reads ahead reads in a thread of its own
    conn = sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        conn.text_factory = decode_text
        for setting in (
            "query_only=1",
            "trusted_schema=1",
            "ignore_check_constraints=1",  # no reader enforces them; they may need functions
            "cell_size_check=1",
            "cache_size=-16000",
        ):
            conn.execute(f"PRAGMA {setting}")
    except sqlite3.Error:
        conn.close()  # left to the garbage collector it would keep its locks
        raise
    return conn


def _without_lock(fd: int, path: Path, work: Callable[[Reading], T]) -> T:
    """Read a quiet file as it lies there; nobody waits for us, and nobody may have written."""
    if not try_shared(fd):
        raise _Moved
    release(fd)
    first = glance(fd, path)
    if first.has_wal or first.journal:
        raise _Moved
    return _immutable(fd, path, work, look(fd, path), blocking=False)


def _with_lock(
    work: Callable[[Reading], T], brief: bool, scratch: Path | None, fd: int, path: Path
) -> T:
    seen = look(fd, path)
    if seen.has_wal and seen.shm:
        return _through_wal(path, work, seen)
    if seen.has_wal or not (seen.in_wal_mode or brief):
        _refuse_hot_journal(fd, path)
        with _copied(fd, path, seen, scratch) as copy, closing(connect(copy, "mode=rw")) as conn:
            release(fd)
            _begin(conn)
            return work(Reading(conn, seen, copy=None if seen.has_wal else copy))
    return _immutable(fd, path, work, seen, blocking=not seen.in_wal_mode)


def _immutable(fd: int, path: Path, work: Callable[[Reading], T], seen: Look, blocking: bool) -> T:
    _refuse_hot_journal(fd, path)
    if not seen.settled or seen.has_wal:
        raise _Moved
    try:
        with closing(connect(path, "mode=ro&immutable=1")) as conn:
            _begin(conn)
            result = work(Reading(conn, seen, blocking))
    except Exception as error:
        if glance(fd, path).database != seen.database:
            raise _Moved from error
        raise
    if glance(fd, path).database != seen.database:
        raise _Moved
    return result


def _through_wal(path: Path, work: Callable[[Reading], T], seen: Look) -> T:
    """Read beside live writers; the SHARED lock keeps both sidecars there until SQLite holds it."""
    for suffix in ("-wal", "-shm"):
        # Asked, not tried: closing a descriptor of the -shm would drop SQLite's locks on it.
        if not os.access(beside(path, suffix), os.R_OK, effective_ids=EFFECTIVE):
            raise path_error(PermissionError(errno.EACCES, ""), beside(path, suffix))
    conn: sqlite3.Connection | None = None
    try:
        conn = connect(path, "mode=ro&readonly_shm=1")
        _begin(conn)
    except sqlite3.Error as error:
        if conn is not None:
            conn.close()
        if code_of(error) & 0xFF in FOR_GOOD or code_of(error) == sqlite3.SQLITE_READONLY_ROLLBACK:
            raise
        raise _Moved(error) from error  # somebody recovers or restarts the -wal right now
    with closing(conn):
        return work(Reading(conn, seen))


def _begin(conn: sqlite3.Connection) -> None:
    """From here on the connection sees one state."""
    conn.execute("BEGIN")
    conn.execute("SELECT 1 FROM sqlite_master").fetchone()


def _refuse_hot_journal(fd: int, path: Path) -> None:
    """A journal without its writer is a dead transaction, half of which may be in the database."""
    for _ in range(2):  # a writer may begin between both questions, so they are asked twice
        if not glance(fd, path).journal or writer_is_alive(fd):
            return
        time.sleep(TICK)
    raise hot_journal(path)


@contextmanager
def _shared(fd: int, path: Path, deadline: float) -> Iterator[None]:
    while not try_shared(fd):
        if time.monotonic() > deadline:
            raise busy(path, "another process holds it locked")
        time.sleep(PAUSE)
    try:
        yield
    finally:
        release(fd)


def _is_still(fd: int, path: Path, seen: Look) -> bool:
    now = glance(fd, path)
    return (now.database, now.wal) == (seen.database, seen.wal)


@contextmanager
def _copied(fd: int, path: Path, seen: Look, scratch: Path | None) -> Iterator[Path]:
    """A private copy of the database and its -wal, gone afterwards."""
    if not seen.settled:
        raise _Moved
    try:
        folder = tempfile.TemporaryDirectory(prefix=SCRATCH, dir=scratch)
    except OSError as error:
        raise storage_error(error, scratch or Path(tempfile.gettempdir())) from error
    with folder:
        copy = Path(folder.name) / "source.sqlite"
        try:
            with open(fd, "rb", closefd=False) as file, copy.open("wb") as to:
                file.seek(0)
                shutil.copyfileobj(file, to, 1 << 20)
            if seen.has_wal:
                shutil.copyfile(beside(path, "-wal"), beside(copy, "-wal"))
        except OSError as error:
            if not _is_still(fd, path, seen):
                raise _Moved from error
            raise storage_error(error, copy.parent.parent) from error
        if not _is_still(fd, path, seen):
            raise _Moved
        yield copy
