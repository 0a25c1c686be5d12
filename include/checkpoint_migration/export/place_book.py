"""Which content owns which version, within one place that is in memory: a thread and a namespace.

One `(thread, ns, channel, version)` can hold several contents: state that is mutated in place, forks
under integer versions, channels absent from a checkpoint that has their version. One of them keeps the
plain version; each other gets a version that is a function of the old one and of its own content alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..convert import javascript
from ..convert.formats import TRUE, Split
from ..convert.versions import ABSENT, Key, Own, Stored, digest, own_version

OwnerOf = Callable[[Key], "bytes | None"]
"""The digest of the content that is live under a plain version: None where nothing is."""


class Apart(NamedTuple):
    """A checkpoint taken apart: its split, the type its values are stored under, how they are sealed."""

    split: Split
    kind: str
    stored: Stored | None

    @property
    def own(self) -> Own:
        """How the version of a content is spelled that does not keep the plain one."""
        return javascript.own_version if self.split.javascript else own_version


class State(NamedTuple):
    """What a checkpoint has under a version: a slice and its type, or no blob."""

    kind: str
    raw: bytes | None

    def digest(self, key: Key, stored: Stored | None) -> bytes:
        """The digest of what it is stored as under the plain version."""
        if self.raw is None:
            return ABSENT
        is_sealed = "+" in self.kind  # a place may hold plain checkpoints and sealed ones
        raw = stored(key, self.raw) if is_sealed and stored is not None else self.raw
        return digest(self.kind, raw)


class PlaceBook:
    """Every state of every version of a place, in the order of its checkpoints."""

    def __init__(self, thread_id: str, checkpoint_ns: str) -> None:
        self.place = (thread_id, checkpoint_ns)
        self._last: dict[str, tuple[str, str, bytes | None]] = {}
        self._only: dict[tuple[str, str], State] = {}
        self._several: dict[tuple[str, str], list[State]] = {}
        self._final: dict[tuple[str, str], dict[State, str]] = {}
        self._stored: Stored | None = None
        self._own: Own = own_version

    def note(self, apart: Apart) -> set[str]:
        """Take down a checkpoint's states; returns the channels whose state it is the first to have."""
        split, kind, stored = apart
        self._stored, self._own = stored or self._stored, apart.own
        values, last = split.values, self._last
        true = None if split.javascript else TRUE[split.value_type]
        first: set[str] = set()
        for channel, version in split.envelope["channel_versions"].items():
            raw = values.get(channel)
            if raw == true:
                raw = None
            now = (version, kind, raw)
            if last.get(channel) != now:
                last[channel] = now
                if self._is_new(channel, version, State(kind, raw)):
                    first.add(channel)
        return first

    def _is_new(self, channel: str, version: str, state: State) -> bool:
        key = (channel, version)
        only = self._only.setdefault(key, state)
        if only is state:
            return True
        known = self._several.get(key)
        if known is None:
            if only == state:
                return False
            known = self._several[key] = [only]
        elif state in known:
            return False
        known.append(state)
        return True

    @property
    def is_contested(self) -> bool:
        """Whether a version has several contents, so that it has to be asked which one is live."""
        return bool(self._several)

    @property
    def has_moved(self) -> bool:
        """Whether a content has another version than the plain one."""
        return bool(self._final)

    def settle(self, owner_of: OwnerOf) -> None:
        """Decide who keeps each plain version that is contested: what is live already, else what came first."""
        for (channel, version), states in self._several.items():
            key = Key(*self.place, channel, version)
            digests = [state.digest(key, self._stored) for state in states]
            owner = owner_of(key)
            self._decide(key, states, digests, digests[0] if owner is None else owner)

    def occupy(self, key: Key, live: bytes) -> None:
        """Take account of a live blob: it keeps its version also where the place has one other content."""
        place = (key.channel, key.version)
        only = self._only.get(place)
        if only is not None and place not in self._several:
            ours = only.digest(key, self._stored)
            if ours != live:
                self._decide(key, [only], [ours], live)

    def _decide(self, key: Key, states: list[State], digests: list[bytes], owner: bytes) -> None:
        self._final[key.channel, key.version] = {
            state: key.version if found == owner else self._own(key.version, found)
            for state, found in zip(states, digests, strict=True)
        }

    def version_of(self, channel: str, version: str, state: State) -> str:
        """The version that a state gets, once it is settled."""
        final = self._final.get((channel, version))
        return version if final is None else final[state]
