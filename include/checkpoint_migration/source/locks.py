"""Takes part in SQLite's locking protocol with a file descriptor of our own.

While a SHARED lock is held nobody can write a database in rollback mode, change its journal mode,
or remove the -wal of one in WAL mode. On Linux the lock belongs to the open file, not to the
process, so that it also holds against (and does no harm to) a connection in this very process.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from contextlib import suppress

PENDING, RESERVED, SHARED = 0x40000000, 0x40000001, 0x40000002
SHARED_BYTES = 510
HELD = (errno.EAGAIN, errno.EACCES)
OF_OPEN_FILES = hasattr(fcntl, "F_OFD_SETLK")
FLOCK = "hhqqi4x"  # struct flock of Linux on 64 bits: type, whence, start, length, pid


def try_shared(fd: int) -> bool:
    """Take a SHARED lock, or return False at once. True also where a mount knows no locks."""
    if not _lock(fd, PENDING, 1):  # a writer that waits for readers to leave goes first
        return False
    try:
        return _lock(fd, SHARED, SHARED_BYTES)
    finally:
        _unlock(fd, PENDING, 1)


def release(fd: int) -> None:
    _unlock(fd, SHARED, SHARED_BYTES)


def writer_is_alive(fd: int) -> bool:
    """Whether somebody is in a write transaction of rollback mode."""
    if OF_OPEN_FILES:
        asked = struct.pack(FLOCK, fcntl.F_RDLCK, os.SEEK_SET, RESERVED, 1, 0)
        try:
            answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked)
        except OSError:
            return False
        return bool(struct.unpack(FLOCK, answer)[0] != fcntl.F_UNLCK)
    free = _lock(fd, RESERVED, 1)
    if free:
        _unlock(fd, RESERVED, 1)
    return not free


def _lock(fd: int, start: int, length: int) -> bool:
    try:
        _set(fd, fcntl.F_RDLCK, fcntl.LOCK_SH, start, length)
    except OSError as error:
        return error.errno not in HELD
    return True


def _unlock(fd: int, start: int, length: int) -> None:
    with suppress(OSError):  # a mount without locks; closing the file would release it anyway
        _set(fd, fcntl.F_UNLCK, fcntl.LOCK_UN, start, length)


def _set(fd: int, kind: int, flock: int, start: int, length: int) -> None:
    if OF_OPEN_FILES:
        wanted = struct.pack(FLOCK, kind, os.SEEK_SET, start, length, 0)
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, wanted)
    else:
        fcntl.lockf(fd, flock | fcntl.LOCK_NB, length, start)
