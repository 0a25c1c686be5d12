"""Object stores: what is asked of one, and what its answers mean.

A store is any of fsspec's file systems; how a connection becomes one is for the caller to know. An
object appears whole or not at all, which is the store's own promise.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .errors import MigrationError, StorageFull, StorageRefused, StorageUnreachable
from .foreign import told_of
from .storage import storage_errors

PIECE = 8 << 20  # what one request brings or takes: so much of a file is in memory at a time
SCRATCH = "CHECKPOINT_MIGRATION_SCRATCH"
PIECES = 9_000  # S3 takes no more than 10,000 parts


class ObjectStore(Protocol):
    """What is asked of a store: a few functions of fsspec's `AbstractFileSystem`."""

    def cat_file(self, path: str, *, start: int | None = None, end: int | None = None) -> bytes: ...
    def cat(self, path: list[str]) -> Any: ...
    def pipe_file(self, path: str, value: bytes) -> Any: ...
    def put_file(self, lpath: str, rpath: str, **options: Any) -> Any: ...
    def info(self, path: str) -> dict[str, Any]: ...
    def find(self, path: str, *, detail: bool = False) -> Any: ...
    def rm(self, path: list[str]) -> Any: ...
    def invalidate_cache(self, path: str | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class Objects:
    """How object stores are reached: `open` gives a URI's store and path. `scratch` is this worker's own."""

    open: Callable[[str], tuple[ObjectStore, str]]
    scratch: Path


def put(store: ObjectStore, path: Path, key: str, where: str) -> None:
    """Put a file under a key: whole, or not at all."""
    with storage_errors(f"reading {path.name}", path):
        chunk = max(PIECE, path.stat().st_size // PIECES)
    with store_errors(f"putting {path.name}", where):
        store.put_file(str(path), key, chunksize=chunk, max_concurrency=2)


def pieces(store: ObjectStore, key: str, start: int, end: int, where: str) -> Iterator[bytes]:
    """A range of an object; one that ends too early gives less, which its digest tells."""
    while start < end:
        with store_errors("reading a range", where):
            piece = _piece(store, key, start, min(end, start + PIECE))
        if not piece:
            return
        yield piece
        start += len(piece)


def _piece(store: ObjectStore, key: str, start: int, end: int) -> bytes:
    try:
        return store.cat_file(key, start=start, end=end)
    except OSError as error:
        # how a range is answered that begins behind the object's end
        if error.errno == errno.EINVAL:
            return b""
        raise


@contextlib.contextmanager
def store_errors(doing: str, where: str) -> Iterator[None]:
    """Turn what a store answers while `doing` something into the failure tree.

    Its messages are not told, for they may hold what was signed.
    """
    try:
        yield
    except MigrationError:
        raise
    except (FileNotFoundError, PermissionError) as error:
        raise StorageRefused(
            f"{doing} in {where} was refused ({told_of(error)}).",
            next="see that the bucket is there, and that the connection's user may list, read, write and "
            "delete below the prefix; then clear the task.",
            path=where,
        ) from error
    except Exception as error:
        raise StorageUnreachable(
            f"{doing} in {where} failed ({told_of(error)}).",
            next="see whether the store answers; the task is tried again.",
            path=where,
        ) from error


@contextlib.contextmanager
def in_scratch(scratch: Path) -> Iterator[None]:
    """What this worker's own folder cannot take is told as that: no other export_uri would help."""
    try:
        yield
    except (StorageFull, StorageRefused) as error:
        place = error.facts.get("path") or error.facts.get("folder")
        if place is None or not Path(place).is_relative_to(scratch):
            raise
        then = "the task is tried again." if error.transient else "then clear the task."
        if error.transient or "needed" in error.facts:
            todo = f"make room there, or let {SCRATCH} name a larger disk"
        else:
            todo = f"let {SCRATCH} name a folder of this worker's own that its user alone may write"
        raise type(error)(
            error.what, safe=error.safe, next=f"{todo}; {then}", **error.facts
        ) from error
