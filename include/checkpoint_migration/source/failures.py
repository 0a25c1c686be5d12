"""Turns what SQLite and the operating system say into this engine's errors."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
from pathlib import Path
from typing import Any

from ..errors import MigrationError, SourceBusy, SourceUnreadable, StorageFull, StorageRefused
from ..texts import printable, quoted

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# a full quota or a file size limit reaches SQLite as a failed write
WRITE_FAILED = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC)
RESTORE = (
    "look at a copy with `sqlite3 COPY 'PRAGMA integrity_check'`; `sqlite3 FILE .recover` may save "
    "the rows into a new file; else restore it from a backup."
)
MISSING = re.compile(r"(?:no such|unknown) (collation sequence|function|module|tokenizer): (.+)")
ENTRY = re.compile(r"malformed database schema \((.*?)\)", re.DOTALL)


def code_of(error: sqlite3.Error) -> int:
    """The extended result code, 0 where Python raised the error itself."""
    return getattr(error, "sqlite_errorcode", None) or 0


def code_name(error: Exception) -> str:
    """The result code's name; of what Python raised itself, its type's."""
    return getattr(error, "sqlite_errorname", type(error).__name__)


def named(path: str | Path) -> str:
    """A path to be read by people: each byte that is no UTF-8 in hex."""
    return quoted(os.fsencode(path), 200)


def source_error(error: sqlite3.Error, path: str | Path) -> MigrationError:
    """What a failure of SQLite says about the source."""
    code = code_of(error)
    if code == sqlite3.SQLITE_READONLY_ROLLBACK:
        return hot_journal(path)
    if code == sqlite3.SQLITE_CANTOPEN_ISDIR:
        return unreadable(path, "is a folder", "name the database file in it.")
    if code in (sqlite3.SQLITE_IOERR_GETTEMPPATH, sqlite3.SQLITE_CANTOPEN_NOTEMPDIR):
        return StorageRefused(
            "SQLite found no folder for temporary files.",
            next="give the worker's user a folder that it may write as TMPDIR.",
        )
    if code == sqlite3.SQLITE_IOERR_NOMEM:
        return _too_large(path)
    if code == sqlite3.SQLITE_IOERR_CORRUPTFS:
        return unreadable(
            path,
            "lies on a damaged file system",
            "check the file system, then the database; restore it from a backup if need be.",
        )
    return _by_family(error, path)


def _by_family(error: sqlite3.Error, path: str | Path) -> MigrationError:
    family, name = code_of(error) & 0xFF, code_name(error)
    if family in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL):
        return busy(path, "another process holds it locked")
    if family == sqlite3.SQLITE_SCHEMA:
        return busy(path, "its tables were altered while it was being read")
    if family == sqlite3.SQLITE_NOTADB:
        return unreadable(
            path,
            "is not an SQLite database",
            "name the file that the application passes to its SqliteSaver; a database that is "
            "encrypted as a whole must be decrypted first.",
        )
    if family == sqlite3.SQLITE_CORRUPT:
        entry = ENTRY.search(str(error))
        return malformed(path) if entry is None else unknown_entry(path, quoted(entry[1]))
    if family == sqlite3.SQLITE_ERROR:
        return _not_understood(error, path)
    if family in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return unreadable(
            path,
            f"cannot be opened ({name})",
            "give the worker's user the right to read it, its folder, and what lies beside it "
            "(-wal, -shm).",
        )
    if family in (sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_TOOBIG):
        return _too_large(path)
    if family == sqlite3.SQLITE_FULL:
        return StorageFull(
            f"reading {named(path)} took more temporary room than there is ({name}).",
            next="make room in the run's folder and in the worker's TMPDIR; the task tries again.",
            path=printable(os.fsencode(path)),
        )
    if family == sqlite3.SQLITE_READONLY:
        return unreadable(
            path,
            f"has a -wal that only its own application may put in order ({name})",
            "open the database once with the application, or copy it together with its -wal while "
            "the application is stopped, and name the copy.",
        )
    return unreadable(
        path,
        f"could not be read ({name})",
        "look at the disk or mount behind it, then trigger the DAG again.",
    )


def unknown_entry(path: str | Path, what: str) -> SourceUnreadable:
    """A table, index or the like whose description does not parse, so that no table can be read."""
    return unreadable(
        path,
        f"describes {what} in a way that SQLite {sqlite3.sqlite_version} of this worker does "
        "not understand",
        "if the application works with the file, its SQLite is another one: use a worker with an "
        "SQLite as new as the application's, or copy the tables checkpoints and writes into a file "
        "of their own (`ATTACH`) and name that.",
    )


def _not_understood(error: sqlite3.Error, path: str | Path) -> SourceUnreadable:
    lack = MISSING.match(str(error))
    what = f"the {lack[1]} {quoted(lack[2])}" if lack else "something"
    return unreadable(
        path,
        f"needs {what} of the application's own to be read ({code_name(error)})",
        "in a copy of the file drop the index, generated column or constraint of checkpoints and "
        "writes that needs it, and name the copy.",
    )


def _too_large(path: str | Path) -> SourceUnreadable:
    return unreadable(path, "has a row that does not fit into memory", "use a larger worker.")


def unreadable(path: str | Path, what: str, next: str, **facts: Any) -> SourceUnreadable:
    shown = printable(os.fsencode(path))
    return SourceUnreadable(f"{named(path)} {what}.", next=next, path=shown, **facts)


def malformed(path: str | Path, table: str | None = None) -> SourceUnreadable:
    """Pages that do not fit together, of the file or of one of the two tables."""
    where = "" if table is None else f" of the table {table!r}"
    what = f"is malformed: SQLite's own check of the pages{where} fails"
    return unreadable(path, what, RESTORE, malformed=True)


def hot_journal(path: str | Path) -> SourceUnreadable:
    return unreadable(
        path,
        "has a hot rollback journal: a writer died in a transaction, and only a writer may undo it",
        "open the database once with the application (or `sqlite3 FILE 'SELECT 1 FROM "
        "sqlite_master'` as its user), which rolls back; then trigger the DAG again.",
    )


def busy(path: str | Path, why: str) -> SourceBusy:
    return SourceBusy(
        f"{named(path)} could not be read: {why}.",
        next="nothing, the task tries again; if it repeats, `fuser -v FILE` says who holds it.",
        path=printable(os.fsencode(path)),
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
    name, shown = named(folder), printable(os.fsencode(folder))
    if isinstance(error, sqlite3.Error):
        code = code_of(error)
        full = code & 0xFF == sqlite3.SQLITE_FULL or code in WRITE_FAILED
        why = code_name(error)
    else:
        full = error.errno in NO_ROOM
        why = errno.errorcode.get(error.errno or 0, "unknown error")
    if full:
        return StorageFull(
            f"{name} has no room for the frozen source ({why}).",
            next="make room, or set export_uri to a larger volume; the task tries again.",
            folder=shown,
        )
    return StorageRefused(
        f"{name} cannot take the frozen source ({why}).",
        next="make the folder writable for the worker's user, or set another export_uri.",
        folder=shown,
    )
