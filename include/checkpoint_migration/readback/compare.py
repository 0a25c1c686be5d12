"""Looks at checkpoints on both sides, and gathers what differs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from langgraph.checkpoint.base import CheckpointTuple

from ..findings import Difference
from .equality import first_difference
from .javascript import is_javascript
from .older import Edges, edges_of, graph_of
from .rules import Found, tuple_differences
from .savers import Key, SourceSide, SourceUnreadable, TargetSide, Unreadable, delta_history, id_of

HISTORY = 20  # checkpoints of a namespace that a walk lists
EXTRAS = 400  # rows of the target's own that a walk passes on its way
DELTA_COUNTERS = "counters_since_delta_snapshot"  # metadata of a thread with DeltaChannels

NOT_LATEST = (
    "PostgresSaver takes another checkpoint for the latest one; the database's collation may"
    " order these ids in another way"
)
OTHER_ORDER = "list() gives this namespace's checkpoints in another order, or not all of them"
NOT_LISTED = "list() does not give it"

Removed = Callable[[str, str, str], bool]


@dataclass(slots=True)
class Looked:
    """What looks found: `found` counts all differences, `differences` holds the first ones.

    `unread` counts checkpoints of which nothing can be said.
    """

    checkpoints: int = 0
    found: int = 0
    unread: int = 0
    differences: list[Difference] = field(default_factory=list)

    def add(self, other: Looked, most: int) -> None:
        """Count others in, and keep up to `most` differences."""
        self.checkpoints += other.checkpoints
        self.found += other.found
        self.unread += other.unread
        self.differences += other.differences[: most - len(self.differences)]


class Reader:
    """One look at a key after the other; `most` bounds the differences that are kept of a portion."""

    def __init__(
        self,
        source: SourceSide,
        target: TargetSide,
        sanitized: bool,
        removed: Removed | None,
        most: int,
    ) -> None:
        self._source = source
        self._target = target
        self._sanitized = sanitized
        self._removed = removed
        self._most = most
        self._looked = Looked()
        self._edges_known: tuple[tuple[str, str] | None, Edges] = (None, frozenset())

    def look(self, looks: list[Look]) -> Looked:
        """Take a portion of looks; the transaction that they were in has ended then."""
        self._looked = Looked()
        for how, key in looks:
            how(self, key)
        self._target.rest()
        return self._looked

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
        metadata: Any = before.metadata  # JSON of any kind
        counters = metadata.get(DELTA_COUNTERS) if isinstance(metadata, dict) else None
        if is_javascript(before.checkpoint):
            return  # of its DeltaChannels Python's saver knows nothing
        if isinstance(counters, dict) and isinstance(after, CheckpointTuple):
            self._delta(key, sorted(counters))

    def walk(self, key: Key) -> None:
        """A namespace's newest checkpoints as `list` gives them: the same, in the same order."""
        thread_id, checkpoint_ns, newest = key
        ids, largest = self._source.newest(thread_id, checkpoint_ns, HISTORY)
        left = [i for i in ids if not self._was_removed((thread_id, checkpoint_ns, i))]
        wanted = set(left)
        try:
            most = HISTORY + EXTRAS
            listed = self._target.history(thread_id, checkpoint_ns, largest, before=None, most=most)
            first = next(listed, None)
            if first is not None and id_of(first) == newest:
                listed = chain([first], listed)
            elif left:  # whatever the application has added since is newer than all of ours
                start = left.pop(0)
                wanted.discard(start)
                listed = self._target.history(
                    thread_id, checkpoint_ns, largest, before=start, most=most
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
            if left and passed < most:
                lost = (thread_id, checkpoint_ns, left[0])
                self._note(lost, Found("checkpoints", "checkpoint_id", NOT_LISTED))
        except SourceUnreadable:
            self._looked.unread += 1
        except Unreadable as error:
            self._note(key, Found("checkpoints", "checkpoint", f"list() raises {error}"))

    def _delta(self, key: Key, channels: list[str]) -> None:
        try:
            before = delta_history(self._source, key, channels)
        except Unreadable:
            self._looked.unread += 1
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
            self._looked.unread += 1
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
        self._looked.checkpoints += 1

    def _pair(self, key: Key, before: CheckpointTuple, after: CheckpointTuple) -> None:
        if not _is_plain(before):
            self._looked.unread += 1
            return
        # An application that prunes a checkpoint's parent leaves it with none.
        parent = before.parent_config
        if parent is not None and after.parent_config is None:
            gone = (key[0], key[1], str(parent["configurable"]["checkpoint_id"]))
            before = before._replace(parent_config=None) if self._was_removed(gone) else before
        try:
            for found in tuple_differences(
                before, after, sanitized=self._sanitized, edges=lambda: self._edges(key)
            ):
                self._note(key, found)
        except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
            why = f"it has another shape than a checkpoint's ({type(error).__name__})"
            self._note(key, Found("checkpoints", "checkpoint", why))

    def _edges(self, key: Key) -> Edges:
        place = key[0], graph_of(key[1])
        if self._edges_known[0] != place:
            self._edges_known = place, edges_of(self._source.versions_seen(*place))
        return self._edges_known[1]

    def _was_removed(self, key: Key) -> bool:
        return self._removed is not None and self._removed(*key)

    def _note(self, key: Key, found: Found) -> None:
        self._looked.found += 1
        if len(self._looked.differences) < self._most:
            self._looked.differences.append(Difference(*key, *found))


Look = tuple[Callable[[Reader, Key], None], Key]
"""How to look at a key: a method of `Reader`, and the key."""


def _is_plain(found: Any) -> bool:
    """Whether a checkpoint decoded; a pickled one, or one without its key, stays opaque."""
    return isinstance(found.checkpoint, dict)
