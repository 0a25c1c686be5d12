"""A source that lies in an object store: fetched once, whole, and only while nobody writes it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import SourceBusy, SourceError, SourceUnreadable
from ..objects import Objects, ObjectStore, pieces, store_errors
from ..storage import atomic_file
from ..texts import quoted
from ..uris import is_object_uri

# What lies beside a database that was in use, and how SQLite itself brings it to an end.
SIDECARS = {
    "-wal": (
        "which holds what the database does not yet",
        "write it back (PRAGMA wal_checkpoint(TRUNCATE))",
    ),
    "-journal": (
        "by which SQLite takes back what was not committed",
        "open it once where both lie (PRAGMA journal_mode = DELETE)",
    ),
}
WHAT_TELLS = ("ETag", "size", "LastModified", "VersionId")


@contextmanager
def at_hand(source: str, objects: Objects | None, folder: Path) -> Iterator[tuple[str, str | None]]:
    """Where the source can be read, and, of one that had to be fetched, what tells its state.

    What an error of the block says of a file that was fetched, it says of the object.
    """
    if objects is None or not is_object_uri(source):
        yield source, None
        return
    path, seen = _fetch(objects, source, folder)
    try:
        yield str(path), seen
    except SourceError as error:
        for told in (quoted(str(path), 200), str(path)):
            error.what = error.what.replace(told, quoted(source, 200))
            error.next = error.next.replace(told, quoted(source, 200))
        error.facts = {k: source if v == str(path) else v for k, v in error.facts.items()}
        raise


def look_at_object(objects: Objects, uri: str) -> str:
    """What tells one state of the source from another: equal before and after, nobody wrote it."""
    store, key = objects.open(uri)
    info = _info(store, key, uri)
    if info is None:
        raise SourceUnreadable(
            f"there is no object {quoted(uri, 200)}.",
            next="name the database's own object; the connection's user must be allowed to read it.",
        )
    for suffix, (what, how) in SIDECARS.items():
        beside = _info(store, key + suffix, uri)
        if beside is not None and beside["size"]:
            raise SourceUnreadable(
                f"beside {quoted(uri, 200)} lies its {suffix}, {what}.",
                next=f"stop the application, have SQLite {how}, put the database there again, and remove "
                "the object beside it.",
            )
    seen = repr([info.get(name) for name in WHAT_TELLS])
    return hashlib.sha256(seen.encode()).hexdigest()[:16]


def _fetch(objects: Objects, uri: str, folder: Path) -> tuple[Path, str]:
    """The source as a file in `folder`, and what tells its state. One that was fetched so is kept."""
    before = look_at_object(objects, uri)
    path = folder / f"fetched-{before}.sqlite"
    if path.exists():
        return path, before
    forget_fetched(folder)
    store, key = objects.open(uri)
    size = (_info(store, key, uri) or {"size": 0})["size"]
    with atomic_file(path) as file:
        for piece in pieces(store, key, 0, size, uri):
            file.write(piece)
        if look_at_object(objects, uri) != before or file.tell() != size:
            raise SourceBusy(
                f"{quoted(uri, 200)} changed while it was being fetched.",
                next="stop who writes it; the task is tried again.",
            )
    return path, before


def forget_fetched(folder: Path) -> None:
    """Remove what was fetched: the frozen source is all that is needed from now on."""
    for path in folder.glob("fetched-*.sqlite"):
        path.unlink(missing_ok=True)


def _info(store: ObjectStore, key: str, uri: str) -> dict[str, Any] | None:
    with store_errors("looking at the source", uri):
        store.invalidate_cache()
        try:
            found = store.info(key)
        except FileNotFoundError:
            return None
        return None if found.get("type") == "directory" else found
