"""Makes the frozen source, the one read-only copy that every export reads, and opens it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import stat
import tempfile
from contextlib import closing, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from ..errors import SourceError, StorageRefused
from ..model import SourceInfo
from ..settings import ThreadFilter
from ..storage import set_mode, sync_folder
from ..texts import printable
from . import thread_ts
from .beside import look_beside
from .failures import WRITE_FAILED, code_name, code_of, named, storage_error
from .file_state import Look
from .hints import explained
from .javascript import format_by_language
from .layout import describe
from .reading import SCRATCH, TIMEOUT, Reading, connect, read
from .rows import has_saver

EVERYTHING = ThreadFilter()
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
HIDDEN, TEMPORARY = ".frozen-", ".tmp"  # what is here under such a name is nobody's but ours


def inspect_source(
    path: str,
    thread_filter: ThreadFilter = EVERYTHING,
    *,
    with_store: bool = True,
    timeout: float = TIMEOUT,
    scratch: Path | None = None,
) -> SourceInfo:
    """Say what the source holds of the threads taken, and of its store unless that is not asked for;
    its folder stays exactly as it is.

    Checks the tables' pages too, unless writers would have to wait for that (rollback mode,
    being written); `freeze` then checks the copy. Where it takes a private copy to read the source,
    that lies in `scratch` meanwhile.
    Raises `SourceUnreadable`, `SourceHasNoTables` or, after `timeout` seconds, `SourceBusy`.
    """

    def work(reading: Reading) -> SourceInfo:
        info = describe(
            reading.conn,
            path,
            thread_filter,
            with_store=with_store,
            thorough=not reading.blocking,
        )
        if not has_saver(reading.conn):
            return info
        thread_ts.refuse_javascript(reading.conn, path, thread_filter)
        return replace(info, format=format_by_language(reading.conn, info, thread_filter))

    if scratch is not None:
        sweep(scratch)
    return read(path, work, timeout=timeout, scratch=scratch)


def freeze(
    path: str,
    destination: Path,
    thread_filter: ThreadFilter = EVERYTHING,
    *,
    with_store: bool = True,
    timeout: float = TIMEOUT,
) -> SourceInfo:
    """Put a consistent, checked, synced copy of the source at `destination` and describe it.

    The file appears whole under its name (mode 0400) or not at all; one that is there already is
    an earlier try's, and is kept. Beside it `seen_path` says what the source looked like. The
    description's `uri` is the source's.
    Raises what `inspect_source` raises, and `StorageFull` or `StorageRefused` for the folder.
    """
    try:
        sweep(destination.parent)
        if not _is_there(destination):
            _make(path, destination, timeout, with_store)
            _is_there(destination)  # a later try may have been quicker
    except OSError as error:
        raise storage_error(error, destination.parent) from error
    with closing(open_frozen(destination)) as conn:
        try:
            info = describe(conn, path, thread_filter, with_store=with_store, thorough=False)
            return replace(info, beside=look_beside(conn, thread_filter))
        except (sqlite3.Error, SourceError) as error:
            raise _broken(destination, error) from error


def open_frozen(path: str | Path) -> sqlite3.Connection:
    """Open the frozen source: nothing is written, locked or made beside it.

    One of the `thread_ts` layout shows today's two tables (`show_as_today`).
    TEXT comes as `str`, or as `bytes` where it is not UTF-8; a BLOB as `bytes`.
    Raises `StorageRefused` if the file is not there or cannot be read.
    """
    try:
        conn = connect(Path(path), "mode=ro&immutable=1")
    except sqlite3.Error as error:
        raise _broken(path, error) from error
    try:
        thread_ts.show_as_today(conn)
    except sqlite3.Error as error:
        conn.close()
        raise _broken(path, error) from error
    return conn


def _broken(path: str | Path, error: Exception) -> StorageRefused:
    return StorageRefused(
        f"the frozen source {named(path)} cannot be read ({code_name(error)}).",
        next="look at the volume behind export_uri; remove the file and clear freeze_source, "
        "which makes it again.",
        path=printable(os.fsencode(path)),
    )


def frozen_file(conn: sqlite3.Connection) -> Path:
    """The file of an open frozen source. Its folder is the run's, where there is room to work."""
    (name,) = conn.execute("SELECT file FROM pragma_database_list WHERE name = 'main'").fetchone()
    return Path(os.fsdecode(name))


def folder_of(frozen: sqlite3.Connection) -> Path:
    return frozen_file(frozen).parent


def seen_path(destination: Path) -> Path:
    """Where `freeze` notes what the source's files looked like, for `drift`."""
    return destination.with_suffix(".seen.json")


def _is_there(destination: Path) -> bool:
    try:
        found = destination.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise storage_error(error, destination.parent) from error
    if not stat.S_ISREG(found.st_mode):
        raise StorageRefused(
            f"{named(destination)} is not a file of ours: a link, folder or device lies where the "
            "frozen source belongs.",
            next="remove it, and see who can write to that folder.",
            path=printable(os.fsencode(destination)),
        )
    return True


def _make(path: str, destination: Path, timeout: float, with_store: bool) -> None:
    folder = destination.parent
    handle, name = tempfile.mkstemp(TEMPORARY, HIDDEN, folder)
    os.close(handle)
    temporary = Path(name)
    try:
        copy = partial(_copy, to=temporary)
        seen = read(path, copy, timeout=timeout, brief=False, scratch=folder)
        try:
            with closing(connect(temporary, "mode=ro&immutable=1")) as conn:
                describe(conn, path, EVERYTHING, with_store=with_store)
        except (sqlite3.Error, SourceError) as error:
            refusal = explained(error, path, seen)
            if refusal is error:
                raise
            raise refusal from error
        _sync(temporary, 0o400)
        _note(seen, temporary, seen_path(destination))
        _put(temporary, destination)
        sync_folder(folder)
    finally:
        for left in folder.glob(f"{temporary.name}*"):
            with suppress(OSError):
                left.unlink()


def _put(temporary: Path, destination: Path) -> None:
    """Give the copy its name, unless a later try was quicker: exports may be reading that one."""
    try:
        destination.hardlink_to(temporary)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        temporary.rename(destination)


def sweep(folder: Path) -> None:
    """Remove what a killed try left in a run's folder."""
    for left in folder.glob(f"{HIDDEN}*{TEMPORARY}*"):
        left.unlink(missing_ok=True)
    for copies in folder.glob(f"{SCRATCH}*"):
        shutil.rmtree(copies, ignore_errors=True)


def _copy(reading: Reading, *, to: Path) -> Look:
    """Copy all pages in one step: with more than one, a busy writer would restart it for ever."""
    if reading.copy is not None:
        reading.copy.replace(to)
        return reading.seen
    with closing(sqlite3.connect(to, isolation_level=None)) as copy:
        try:
            copy.execute("PRAGMA journal_mode=OFF")
            copy.execute("PRAGMA synchronous=OFF")
            reading.conn.backup(copy, pages=-1)
            copy.execute("PRAGMA journal_mode=DELETE").fetchone()
        except sqlite3.Error as error:
            if code_of(error) in WRITE_FAILED:
                raise storage_error(error, to.parent) from error
            raise
    return reading.seen


def _note(seen: Look, copy: Path, path: Path) -> None:
    handle, name = tempfile.mkstemp(TEMPORARY, HIDDEN, path.parent)
    os.close(handle)
    temporary = Path(name)
    temporary.write_text(json.dumps({**asdict(seen), "frozen": identity(copy)}))
    _sync(temporary, 0o400)
    temporary.replace(path)


def identity(copy: Path) -> list[int]:
    """Which frozen file a note belongs to: two tries may have left one each."""
    found = copy.stat()
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns]


def _sync(path: Path, mode: int) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        set_mode(handle, mode)
        os.fsync(handle)
    finally:
        os.close(handle)
