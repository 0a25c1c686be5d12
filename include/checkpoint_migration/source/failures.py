"""Turns what SQLite and the operating system say into this engine's errors."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

from ..errors import MigrationError, SourceBusy, SourceUnreadable, StorageFull, StorageRefused
from ..texts import quoted

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
RESTORE = "look at it with `sqlite3 FILE 'PRAGMA integrity_check'`; restore it from a backup."


def code_of(error: sqlite3.Error) -> int:
    """The extended result code, 0 where Python raised the error itself."""
    return getattr(error, "sqlite_errorcode", None) or 0


def source_error(error: sqlite3.Error, path: str | Path) -> MigrationError:
    """What a failure of SQLite says about the source."""
    code = code_of(error)
    name = quoted(str(path), 200)
    if code == sqlite3.SQLITE_READONLY_ROLLBACK:
        return hot_journal(path)
    primary = code & 0xFF
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL):
        return busy(path, "another process holds it locked")
    if primary == sqlite3.SQLITE_NOTADB:
        return unreadable(
            path,
            "is not an SQLite database",
            "name the file that the application passes to its SqliteSaver; a database that is "
            "encrypted as a whole must be decrypted first.",
        )
    if primary == sqlite3.SQLITE_CORRUPT:
        return malformed(path)
    if primary in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return unreadable(
            path,
            "cannot be opened",
            "give the worker's user the right to read it, its folder, and what lies beside it "
            "(-wal, -shm).",
        )
    if primary in (sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_TOOBIG):
        return unreadable(path, "has a row that does not fit into memory", "use a larger worker.")
    return SourceUnreadable(
        f"reading {name} failed: {getattr(error, 'sqlite_errorname', type(error).__name__)}.",
        next="look at the disk or mount behind it, then trigger the DAG again.",
        path=str(path),
    )


def unreadable(path: str | Path, what: str, next: str) -> SourceUnreadable:
    return SourceUnreadable(f"{quoted(str(path), 200)} {what}.", next=next, path=str(path))


def malformed(path: str | Path) -> SourceUnreadable:
    return unreadable(path, "is malformed: SQLite's own check of its pages fails", RESTORE)


def hot_journal(path: str | Path) -> SourceUnreadable:
    return unreadable(
        path,
        "has a hot rollback journal: a writer died in a transaction, and only a writer may undo it",
        "open the database once with the application (or `sqlite3 FILE 'SELECT 1 FROM "
        "sqlite_master'` as its user), which rolls back; then trigger the DAG again.",
    )


def busy(path: str | Path, why: str) -> SourceBusy:
    return SourceBusy(
        f"{quoted(str(path), 200)} could not be read: {why}.",
        next="nothing, the task tries again; if it repeats, `fuser -v FILE` says who holds it.",
        path=str(path),
    )


def path_error(error: OSError, path: str | Path) -> MigrationError:
    """What a failure of the operating system says about the source."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return unreadable(
            path, "does not exist on this worker", "check the path and the worker's mounts."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return unreadable(
            path, "may not be read by this user", "give the worker's user the right to read it."
        )
    return unreadable(
        path,
        f"cannot be read: {errno.errorcode.get(error.errno or 0, 'unknown error')}",
        "look at the disk or mount behind it.",
    )


def storage_error(error: OSError | sqlite3.Error, folder: Path) -> MigrationError:
    """What a failure to write says about the folder of the frozen source."""
    name = quoted(str(folder), 200)
    if isinstance(error, sqlite3.Error):
        # a full quota or a file size limit reaches SQLite as a failed write
        full = code_of(error) & 0xFF == sqlite3.SQLITE_FULL or (
            code_of(error) in (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC)
        )
        why = getattr(error, "sqlite_errorname", type(error).__name__)
    else:
        full = error.errno in NO_ROOM
        why = errno.errorcode.get(error.errno or 0, "unknown error")
    if full:
        return StorageFull(
            f"{name} has no room for the frozen source ({why}).",
            next="make room, or set export_uri to a larger volume; the task tries again.",
            folder=str(folder),
        )
    return StorageRefused(
        f"{name} cannot take the frozen source ({why}).",
        next="make the folder writable for the worker's user, or set another export_uri.",
        folder=str(folder),
    )
