"""Private SQLite files in the run's folder, for what a shard may have too much of for memory.

A private database of SQLite's own, and what it sorts, would go to the worker's `TMPDIR`, which may
be small or not there at all.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from .errors import StorageFull, StorageRefused
from .storage import FILE_MODE, storage_errors
from .texts import printable

PREFIX = ".tmp-"  # RunFolder.sweep removes what a killed try leaves under such a name
NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE)
BROKEN = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)


def open_scratch(folder: Path | None, what: str, tables: str) -> sqlite3.Connection:
    """A database with these tables, in a file without a name, gone once it is closed.

    Nothing of it survives a crash, nor is to. Without a folder it lies where SQLite keeps its
    temporary files.
    """
    if folder is None:
        return _opened("", tables)
    path = folder / f"{PREFIX}{what.replace(' ', '-')}-{secrets.token_hex(4)}"
    with storage_errors(f"making a scratch file for the {what}", path):
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(path, flags, FILE_MODE))
        try:
            with scratch_errors(folder, what):
                # a volume need not know locks: nobody else has the name
                uri = f"file:{quote(os.fsencode(path.absolute()))}?mode=rw&nolock=1"
                conn = _opened(uri, tables)
        finally:
            with suppress(OSError):  # a volume that keeps open files: sweep removes it
                path.unlink()
    return conn


def _opened(uri: str, tables: str) -> sqlite3.Connection:
    """SQLite opens a file when it is first used: with its tables it is, before its name goes."""
    # one thread at a time has it, and not always the one that made it
    conn = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    try:
        conn.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {tables}")
    except sqlite3.Error:
        conn.close()
        raise
    return conn


@contextmanager
def scratch_errors(folder: Path | None, what: str) -> Iterator[None]:
    """Turn what a scratch database cannot write into the failure tree, and name the folder.

    The frozen source is read in such blocks too: a failure to read is left to who reads it.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None) or 0
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        where = "the worker's TMPDIR" if folder is None else printable(os.fsencode(folder))
        if code in NO_ROOM:
            raise StorageFull(
                f"{where} has no room for the {what} ({name}).",
                next="make room there, or set export_uri to a larger volume; the task is tried again.",
                folder=where,
            ) from error
        if code & 0xFF in BROKEN and code != sqlite3.SQLITE_IOERR_READ:
            raise StorageRefused(
                f"{where} cannot hold the {what} ({name}).",
                next="look at the volume behind export_uri; then clear the task.",
                folder=where,
            ) from error
        raise
