"""Where a run's files lie if its workers share an object store: in the store, and on each worker."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import msgspec
from msgspec.structs import replace

from .errors import SettingsInvalid, StorageRefused
from .model import BatchEntry
from .objects import Objects, ObjectStore, in_scratch, pieces, put, store_errors
from .storage import FILE_MODE, FOLDER_MODE, RunFolder, atomic_file, storage_errors
from .uris import is_object_uri

NOTE = "source.json"  # it says which frozen source is the run's: without it there is none
LOCK = ".lock"
RUN = re.compile(r".+-[0-9a-f]{8}")  # how `Settings.folder_name` ends


class Note(msgspec.Struct, frozen=True):
    """Which frozen source is the run's."""

    sha256: str
    bytes: int


def run_folder(export_uri: str, name: str, objects: Objects | None) -> RunFolder:
    """The folder of a run, wherever it lies."""
    if not is_object_uri(export_uri):
        return RunFolder(export_uri, name)
    if objects is None:
        raise SettingsInvalid(
            "param 'export_uri' names an object store, and none can be reached from here.",
            next="name a folder.",
        )
    return BucketFolder(export_uri, name, objects)


class BucketFolder(RunFolder):
    """The folder of one run in an object store; `path` is where this worker works on it."""

    def __init__(self, export_uri: str, name: str, objects: Objects) -> None:
        super().__init__(str(objects.scratch), name)
        self._objects = objects
        self._root = export_uri

    @cached_property
    def _opened(self) -> tuple[ObjectStore, str]:
        return self._objects.open(self._root)

    @property
    def _store(self) -> ObjectStore:
        return self._opened[0]

    def _key(self, name: str) -> str:
        return f"{self._opened[1]}/{self.path.name}/{name}"

    @property
    def where(self) -> str:
        return f"{self._root}/{self.path.name}"

    def address(self, path: Path) -> str:
        return f"{self.where}/{path.relative_to(self.path).as_posix()}"

    def create(self) -> list[str]:
        with in_scratch(self.root):
            cautions = super().create()
        self._forget_runs_that_are_gone()
        return cautions

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        with in_scratch(self.root), _locked(self._lock, fcntl.LOCK_SH):
            if not self.path.is_dir():
                super().create()
            yield

    @property
    def _lock(self) -> Path:
        return self.root / f"{self.path.name}{LOCK}"

    # --- whole files ---

    def publish(self, path: Path) -> None:
        """Put a file under its name; this worker keeps its copy of the frozen source alone."""
        key = self._key(path.relative_to(self.path).as_posix())
        if path != self.frozen:
            put(self._store, path, key, self.where)
            path.unlink()
            return
        note = msgspec.json.encode(Note(_sha256(path), path.stat().st_size))
        put(self._store, path, key, self.where)
        self.keep(NOTE, note)
        self._note_here(note)

    def has_frozen(self) -> bool:
        return self.has(NOTE)

    def fetch_frozen(self) -> Path:
        """Fetch the frozen source unless this worker has it; tasks that want it at once fetch it once."""
        if not self.path.is_dir():
            super().create()
        with _locked(self.path / LOCK, fcntl.LOCK_EX):
            note = self.kept(NOTE)
            here = self.path / NOTE
            if here.is_file() and here.read_bytes() == note and self.frozen.is_file():
                return self.frozen
            wanted = msgspec.json.decode(note, type=Note)
            with atomic_file(self.frozen) as file:
                digest = hashlib.sha256()
                for piece in self._pieces(self.frozen.name, 0, wanted.bytes):
                    file.write(piece)
                    digest.update(piece)
            if digest.hexdigest() != wanted.sha256:
                self.frozen.unlink()
                raise StorageRefused(
                    f"the frozen source in {self.where} is not the one that was put there.",
                    next="trigger the DAG again, as a new run; and see who writes there.",
                )
            self._note_here(note)
        return self.frozen

    def _note_here(self, note: bytes) -> None:
        with atomic_file(self.path / NOTE) as file:
            file.write(note)

    @contextlib.contextmanager
    def fetched(self, address: str) -> Iterator[Path]:
        with self._working_copy(address, 0, max(0, self.length(address))) as path:
            yield path

    @contextlib.contextmanager
    def batch(self, address: str, entry: BatchEntry) -> Iterator[tuple[Path, BatchEntry]]:
        end = entry.offset + entry.length
        with self._working_copy(address, entry.offset, end) as path:
            yield path, replace(entry, offset=0)

    def length(self, address: str) -> int:
        key = self._key(_name_in(address))
        with store_errors("looking at an export", self.where):
            self._store.invalidate_cache()
            try:
                return int(self._store.info(key)["size"])
            except FileNotFoundError:
                return -1

    @contextlib.contextmanager
    def _working_copy(self, address: str, start: int, end: int) -> Iterator[Path]:
        """A range of an object as a file of its name, gone when the block ends."""
        name = _name_in(address)
        folder = self.path / f".tmp-{secrets.token_hex(4)}"
        with storage_errors(f"fetching {name}", folder):
            folder.mkdir(mode=FOLDER_MODE, parents=True)
        try:
            with atomic_file(folder / name) as file:
                for piece in self._pieces(name, start, end):
                    file.write(piece)
            yield folder / name
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _pieces(self, name: str, start: int, end: int) -> Iterator[bytes]:
        return pieces(self._store, self._key(name), start, end, self.where)

    # --- small files ---

    def keep(self, name: str, data: bytes) -> None:
        with store_errors(f"keeping {name}", self.where):
            self._store.pipe_file(self._key(name), data)

    def has(self, name: str) -> bool:
        with store_errors(f"looking for {name}", self.where):
            self._store.invalidate_cache()
            try:
                self._store.info(self._key(name))
            except FileNotFoundError:
                return False
        return True

    def kept(self, name: str) -> bytes:
        with store_errors(f"reading {name}", self.where):
            return self._store.cat_file(self._key(name))

    def kept_all(self, folder: str, pattern: re.Pattern[str]) -> list[tuple[str, bytes]]:
        place = self._key(folder)
        with store_errors("reading what earlier steps found", self.where):
            names = [name for name in self._listed(place) if pattern.fullmatch(_name_in(name))]
            found = self._store.cat(names) if names else {}
            return [(name, found[name]) for name in names]

    def _listed(self, place: str) -> dict[str, int]:
        self._store.invalidate_cache()
        return {name: int(i["size"]) for name, i in self._store.find(place, detail=True).items()}

    def kept_bytes(self) -> int:
        with store_errors("looking at what is kept", self.where):
            listed = self._listed(self._key("").rstrip("/"))
        return sum(size for name, size in listed.items() if "/report." not in name)

    def export_bytes(self) -> int | None:
        with store_errors("looking at what is kept", self.where):
            listed = self._listed(self._key("").rstrip("/"))
        sizes = [size for name, size in listed.items() if name.endswith(".jsonl.zst")]
        return sum(sizes) if sizes else None

    # --- cleaning up ---

    def clear(self, *, keep: frozenset[str]) -> None:
        place = self._key("").rstrip("/")
        with store_errors("removing what the run needs no more", self.where):
            kept = {f"{place}/{name}" for name in keep}
            gone = [name for name in self._listed(place) if name not in kept]
            if gone:
                self._store.rm(gone)
            # refusals of single objects come within a good answer, and the library does not tell them
            if left := self._listed(place).keys() & set(gone):
                raise StorageRefused(
                    f"{len(left):,} objects of the run could not be removed from {self.where}.",
                    next="let the connection's user delete below the prefix, then remove them.",
                    path=self.where,
                )
        self._remove_here(self.path)

    def _forget_runs_that_are_gone(self) -> None:
        """Remove this worker's copies of what no run needs: its frozen source is not in the store."""
        for folder in self.root.iterdir():
            if not RUN.fullmatch(folder.name):
                continue
            other = BucketFolder(self._root, folder.name, self._objects)
            is_ours = folder.is_dir() and not folder.is_symlink() and other._lock.is_file()
            if is_ours and folder != self.path and not other.has_frozen():
                self._remove_here(folder)

    def _remove_here(self, folder: Path) -> None:
        """Remove a working folder that no task of this worker uses."""
        lock = folder.with_name(f"{folder.name}{LOCK}")
        with contextlib.suppress(BlockingIOError), _locked(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)


def _name_in(address: str) -> str:
    """A file's own name: whoever handed on the address, it lies in this run's folder."""
    return address.rpartition("/")[2]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    descriptor = _holding(path, how)
    try:
        yield
    finally:
        os.close(descriptor)


def _holding(path: Path, how: int) -> int:
    """The lock's file, locked; another one where whoever had it removed it, for that locks nothing."""
    while True:
        with contextlib.ExitStack() as opened:
            descriptor = _lock_file(path)
            opened.callback(os.close, descriptor)
            fcntl.flock(descriptor, how)
            if _is_at(descriptor, path):
                opened.pop_all()
                return descriptor


def _lock_file(path: Path) -> int:
    with storage_errors("working on the worker's own disk", path):
        path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(path, flags, FILE_MODE)


def _is_at(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    return False
