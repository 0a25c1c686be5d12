"""Looks at checkpoints on both sides, and gathers what differs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
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


class Reader:
    """One look at a key after the other; `most` bounds the differences that are kept."""

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
        self.differences: list[Difference] = []
        self.found = 0
        self.checkpoints = 0
        self._edges_known: tuple[tuple[str, str] | None, Edges] = (None, frozenset())
        self.threads = 0
        self.unread = 0

    def cannot_read(self) -> None:
        """Count a checkpoint of which nothing can be said."""
        self.unread += 1

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
            ours_first = self._target.newest_id(thread_id, checkpoint_ns) == newest
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
        self.checkpoints += 1

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
        if self._removed is None:
            return False
        self._target.rest()  # it is asked over another connection, and a pooler may have one
        return self._removed(*key)

    def _note(self, key: Key, found: Found) -> None:
        self.found += 1
        if len(self.differences) < self._most:
            self.differences.append(Difference(*key, *found))


def _is_plain(found: Any) -> bool:
    """Whether a checkpoint decoded; a pickled one, or one without its key, stays opaque."""
    return isinstance(found.checkpoint, dict)
