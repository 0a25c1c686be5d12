"""Which checkpoints are read back, and what is held against what."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from langgraph.checkpoint.base import CheckpointTuple

from ..model import Difference
from ..postgres import Connect, connection
from ..settings import ThreadFilter
from .raw import Decrypt
from .rules import Found, tuple_differences
from .same import first_difference
from .sides import Key, SourceSide, SourceUnreadable, TargetSide, Unreadable, delta_history, id_of

HISTORY = 20  # checkpoints of a namespace that a walk lists
EXTRAS = 400  # rows of the target's own that a walk passes on its way
NAMESPACES = 16  # of each thread, in byte order, beside those that are drawn
DELTA_COUNTERS = "counters_since_delta_snapshot"  # metadata of a thread with DeltaChannels


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What the savers said. `found` counts all differences, `differences` holds the first ones.

    `unread` counts the checkpoints that SqliteSaver itself cannot read as plain data, such as
    pickled ones: nothing is said of them.
    """

    threads: int
    checkpoints: int
    found: int
    differences: tuple[Difference, ...]
    unread: int


def read_back(
    frozen_path: Path,
    connect: Connect,
    schema: str,
    taken: ThreadFilter,
    *,
    seed: str,
    sample: int = 200,
    sanitized: bool = False,
    decrypt: Decrypt | None = None,
    removed: Callable[[str, str, str], bool] | None = None,
    most_differences: int = 100,
) -> ReadBack:
    """Compare a sample of the frozen source with the live tables of `schema`, through both savers.

    The sample: each taken thread's latest checkpoint in each of its namespaces (up to 16), and
    `sample` other checkpoints and as many histories, drawn by `seed` alone. Neither side is
    changed, nothing is unpickled or imported, and memory does not grow with the database. Rows
    that only the target has are the application's own and are passed over; a missing one of
    which `removed(thread_id, checkpoint_ns, checkpoint_id)` is true is no difference.
    Raises `TargetUnreachable` or `TargetBusy` when PostgreSQL does not answer.
    """
    source = SourceSide(frozen_path, decrypt)
    with closing(source), connection(connect, "reading back through the savers") as conn:
        target = TargetSide(conn, schema, decrypt)
        reader = _Reader(source, target, sanitized, removed, most_differences)
        others, namespaces = _Draw(seed, sample), _Draw(seed, sample)
        for key, is_latest, place in _keys(source, taken, reader, target):
            if not is_latest:
                others.offer(key)
                continue
            namespaces.offer(key)
            if place < NAMESPACES:
                reader.latest(key)
        for key in others.drawn():
            reader.one(key)
        for key in namespaces.drawn():
            reader.walk(key)
        return reader.result()


def _keys(
    source: SourceSide, taken: ThreadFilter, reader: _Reader, target: TargetSide
) -> Iterator[tuple[Key, bool, int]]:
    """Each taken key, whether it is its namespace's latest, and which namespace of the thread's."""
    for thread_id, of_thread in groupby(source.all_keys(), itemgetter(0)):
        if not taken.takes(thread_id):
            target.rest()
            continue
        reader.threads += 1
        for place, (_, of_namespace) in enumerate(groupby(of_thread, itemgetter(1))):
            last: Key | None = None
            for key in of_namespace:
                if not all(isinstance(part, str) for part in key):
                    reader.unread += 1
                    continue
                if last is not None:
                    yield last, False, place
                last = key
            if last is not None:
                yield last, True, place


class _Draw:
    """The keys whose hashes are the smallest: the same ones for the same seed, in any order."""

    def __init__(self, seed: str, size: int) -> None:
        self._seed = seed.encode()
        self._size = size
        self._heap: list[tuple[int, Key]] = []

    def offer(self, key: Key) -> None:
        text = b"\0".join([self._seed, *(part.encode() for part in key)])
        item = (-int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()), key)
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, item)
        elif self._heap:
            heapq.heappushpop(self._heap, item)

    def drawn(self) -> list[Key]:
        return sorted(key for _, key in self._heap)


class _Reader:
    """Looks at keys on both sides and gathers what differs."""

    def __init__(
        self,
        source: SourceSide,
        target: TargetSide,
        sanitized: bool,
        removed: Callable[[str, str, str], bool] | None,
        most: int,
    ) -> None:
        self._source = source
        self._target = target
        self._sanitized = sanitized
        self._removed = removed
        self._most = most
        self._differences: list[Difference] = []
        self._found = 0
        self._checkpoints = 0
        self.threads = 0
        self.unread = 0

    def result(self) -> ReadBack:
        return ReadBack(
            self.threads, self._checkpoints, self._found, tuple(self._differences), self.unread
        )

    def one(self, key: Key) -> None:
        """A checkpoint by its id."""
        before = self._before(key)
        if before is not None:
            self._against(key, before, self._after(lambda: self._target.get(key)))

    def latest(self, key: Key) -> None:
        """A namespace's latest: by that name, by its id, and with what a DeltaChannel needs."""
        before = self._before(key)
        if before is None:
            return
        after = self._after(lambda: self._target.latest(key[0], key[1]))
        if isinstance(after, CheckpointTuple) and (other := id_of(after)) != key[2]:
            mine = self._source.has((key[0], key[1], other))
            if (mine or other.encode() < key[2].encode()) and not self._was_removed(key):
                self._note(key, Found("checkpoints", "checkpoint_id", NOT_LATEST))
            after = self._after(lambda: self._target.get(key))
        self._against(key, before, after)
        counters = (before.metadata or {}).get(DELTA_COUNTERS)
        if isinstance(counters, dict) and isinstance(after, CheckpointTuple):
            self._delta(key, sorted(counters))

    def walk(self, key: Key) -> None:
        """A namespace's newest checkpoints as `list` gives them: the same, in the same order."""
        thread_id, checkpoint_ns, newest = key
        ids, largest = self._source.newest(thread_id, checkpoint_ns, HISTORY)
        left = [i for i in ids if not self._was_removed((thread_id, checkpoint_ns, i))]
        wanted = set(left)
        try:
            latest = self._target.latest(thread_id, checkpoint_ns)
            ours_first = latest is not None and id_of(latest) == newest
            # Whatever the application has added since is newer than all of ours.
            start = None if ours_first or not left else left[0]
            if start is not None:
                wanted.discard(left.pop(0))
            listed = self._target.history(
                thread_id, checkpoint_ns, largest, before=start, most=HISTORY + EXTRAS
            )
            passed = 0
            with closing(self._source.history(thread_id, checkpoint_ns, HISTORY)) as mine:
                for after in listed:
                    passed += 1
                    if id_of(after) not in wanted:
                        continue
                    before = next((m for m in mine if id_of(m) in wanted), None)
                    if before is None or id_of(before) != id_of(after):
                        self._note(key, Found("checkpoints", "checkpoint_id", OTHER_ORDER))
                        return
                    left.remove(id_of(before))
                    self._pair((thread_id, checkpoint_ns, id_of(before)), before, after)
                    if not left:
                        return
            if left and passed < HISTORY + EXTRAS:
                lost = (thread_id, checkpoint_ns, left[0])
                self._note(lost, Found("checkpoints", "checkpoint_id", NOT_LISTED))
        except SourceUnreadable:
            self.unread += 1
        except Unreadable as error:
            self._note(key, Found("checkpoints", "checkpoint", f"list() raises {error}"))

    def _delta(self, key: Key, channels: list[str]) -> None:
        try:
            before = delta_history(self._source, key, channels)
        except Unreadable:
            self.unread += 1
            return
        try:
            where = first_difference(before, delta_history(self._target, key, channels))
        except Unreadable as error:
            where = f"it raises {error}"
        if where:
            self._note(key, Found("checkpoint_writes", "blob", f"in its delta history, {where}"))

    def _before(self, key: Key) -> CheckpointTuple | None:
        try:
            before = self._source.get(key)
        except Unreadable:
            before = None
        if before is None or not _is_plain(before):
            self.unread += 1
            return None
        return before

    def _after(
        self, read: Callable[[], CheckpointTuple | None]
    ) -> CheckpointTuple | Unreadable | None:
        try:
            return read()
        except Unreadable as error:
            return error

    def _against(
        self, key: Key, before: CheckpointTuple, after: CheckpointTuple | Unreadable | None
    ) -> None:
        if isinstance(after, Unreadable):
            self._note(key, Found("checkpoints", "checkpoint", f"PostgresSaver raises {after}"))
        elif after is not None:
            self._pair(key, before, after)
        elif not self._was_removed(key):
            self._note(key, Found("checkpoints", "checkpoint_id", "it is not there"))
        self._checkpoints += 1

    def _pair(self, key: Key, before: CheckpointTuple, after: CheckpointTuple) -> None:
        if not _is_plain(before):
            self.unread += 1
            return
        # An application that prunes a checkpoint's parent leaves it with none.
        parent = before.parent_config
        if parent is not None and after.parent_config is None:
            gone = (key[0], key[1], str(parent["configurable"]["checkpoint_id"]))
            before = before._replace(parent_config=None) if self._was_removed(gone) else before
        try:
            for found in tuple_differences(before, after, sanitized=self._sanitized):
                self._note(key, found)
        except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
            why = f"it has another shape than a checkpoint's ({type(error).__name__})"
            self._note(key, Found("checkpoints", "checkpoint", why))

    def _was_removed(self, key: Key) -> bool:
        return self._removed is not None and self._removed(*key)

    def _note(self, key: Key, found: Found) -> None:
        self._found += 1
        if len(self._differences) < self._most:
            self._differences.append(Difference(*key, *found))


def _is_plain(found: Any) -> bool:
    """Whether a checkpoint decoded; a pickled one, or one without its key, stays opaque."""
    return isinstance(found.checkpoint, dict)


NOT_LATEST = (
    "PostgresSaver takes another checkpoint for the latest one; the database's collation may"
    " order these ids in another way"
)
OTHER_ORDER = "list() gives this namespace's checkpoints in another order, or not all of them"
NOT_LISTED = "list() does not give it"
