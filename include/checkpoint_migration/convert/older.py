"""What releases before checkpoint `v` 4 left: pending sends, integer versions, channels of old names.

LangGraph brings such checkpoints up to date when it loads them from SQLite. PostgreSQL's reader
does it in its own way first: below `v` 4 it rebuilds the sends from the *parent's* writes, in an
order of its own, also for a sibling that never had them. So what must not be rebuilt is stored as
`v` 4. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .formats import SENDS, Split

TASKS = "__pregel_tasks"
INTERRUPT = "__interrupt__"
START = "__start__"
NEWEST = 4
RENAMED_BELOW = 3  # StateGraph renames channels on load below this `v`

Sends = Sequence[bytes]
Edges = Mapping[str, frozenset[str]]
"""node -> the nodes that it is known to lead to."""


class CannotUpgrade(Exception):
    """The checkpoint cannot be brought up to date without loss. `str()` names no value."""


def padded(version: Any) -> Any:
    """An integer version of langgraph up to 0.0.50 as the text from which today's counts on."""
    return f"{version:032}.{0.0:016}" if type(version) is int else version


def with_text_versions(envelope: dict[str, Any]) -> dict[str, Any]:
    """The envelope with every version as text."""
    versions, seen = envelope["channel_versions"], envelope["versions_seen"]
    if all(type(v) is str for v in versions.values()) and all(
        type(v) is str for entries in seen.values() for v in entries.values()
    ):
        return envelope
    return {
        **envelope,
        "channel_versions": {channel: padded(v) for channel, v in versions.items()},
        "versions_seen": {
            node: {channel: padded(v) for channel, v in entries.items()}
            for node, entries in seen.items()
        },
    }


def upgraded(split: Split, parents_sends: Callable[[], Sends], edges: Callable[[], Edges]) -> Split:
    """The checkpoint as it must be stored so that both readers see the same.

    `parents_sends` are the sends that PostgreSQL's reader would rebuild, in its order; `edges` is
    asked only where channels must be renamed.
    """
    v = split.envelope.get("v")
    if type(v) is not int:
        raise CannotUpgrade("its v is no whole number")
    if v >= NEWEST:
        if split.sends:
            raise CannotUpgrade(f"it carries pending_sends at v {v}")
        if v > NEWEST:
            raise CannotUpgrade(f"its v is {v}, which is newer than this release knows")
        return split
    # LangGraph moves sends into a channel on load, whatever the v; so they are one from the start.
    moved = _with_sends_as_channel(split)
    if v >= RENAMED_BELOW:
        return _at_newest(moved)
    # Below RENAMED_BELOW the v has to stay where it can, because StateGraph still renames channels
    # on load: it can where the sends that the reader rebuilds are those that are stored.
    rebuilt = parents_sends()
    if not rebuilt or tuple(rebuilt) == split.sends:
        return moved
    return _at_newest(_renamed(moved, edges()))


def _at_newest(split: Split) -> Split:
    return split._replace(envelope={**split.envelope, "v": NEWEST})


def _with_sends_as_channel(split: Split) -> Split:
    """Pending sends as the channel that LangGraph makes of them, at the greatest version of all."""
    if not split.sends:
        return split
    versions = split.envelope["channel_versions"]
    if not versions:
        raise CannotUpgrade("it carries pending_sends and no versions")
    envelope = {key: value for key, value in split.envelope.items() if key != SENDS}
    envelope["channel_versions"] = {**versions, TASKS: max(versions.values())}
    values = {**split.values, TASKS: split.sends_list}
    return split._replace(envelope=envelope, values=values)


def _renamed(split: Split, edges: Edges) -> Split:
    """Channels renamed as StateGraph does on load, which it will not do any more at `v` 4."""
    versions = dict(split.envelope["channel_versions"])
    seen = {node: dict(entries) for node, entries in split.envelope["versions_seen"].items()}
    values = dict(split.values)
    # `start:` before `branch:`, as StateGraph does it: where two lead to one node, the first one's
    # value stays.
    for channel in sorted(versions, key=lambda name: name.startswith("branch:")):
        node = _target_of(channel)
        if node is not None:
            version, value = versions.pop(channel), values.pop(channel, None)
            _arrive(channel, node, version, value, versions, seen, values)
    guessed = False
    for channel in list(versions):
        if channel in seen and channel not in (START, INTERRUPT):
            # it goes even where no edge is known: a channel that no graph has would hold every
            # later call at a static interrupt
            version, value = versions.pop(channel), values.pop(channel, None)
            for node in sorted(edges.get(channel, ())):
                _arrive(channel, node, version, value, versions, seen, values)
            seen.get(INTERRUPT, {}).pop(channel, None)
            guessed = guessed or not edges.get(channel)
    envelope = {**split.envelope, "channel_versions": versions, "versions_seen": seen}
    return split._replace(envelope=envelope, values=values, guessed=guessed)


def _target_of(channel: str) -> str | None:
    """The node that a `start:node` or `branch:source:condition:node` channel leads to."""
    if channel.startswith("start:"):
        return channel.split(":")[1]
    if channel.startswith("branch:") and channel.count(":") == 3:
        return channel.rsplit(":", maxsplit=1)[-1]
    return None


def _arrive(
    channel: str,
    node: str,
    version: str,
    value: bytes | None,
    versions: dict[str, str],
    seen: dict[str, dict[str, str]],
    values: dict[str, bytes],
) -> None:
    """Let what waited in `channel` wait in `branch:to:node`."""
    name = f"branch:to:{node}"
    versions[name] = max(version, versions.get(name, version))
    for entries in (seen.get(node, {}), seen.get(INTERRUPT, {})):
        if channel in entries:
            entry = entries.pop(channel)
            entries[name] = max(entry, entries.get(name, entry))
    if name not in values and value is not None:
        values[name] = value


def graph_of(checkpoint_ns: str) -> str:
    """The graph that a namespace belongs to: its path without the ids of tasks, one a call."""
    parts = (part for part in checkpoint_ns.split("|") if not part.isdigit())
    return "|".join(part.split(":")[0] for part in parts)


def edges_of(envelopes: Any) -> dict[str, frozenset[str]]:
    """The edges between nodes that a graph's checkpoints show: a node sees the channel named
    after the node before it, and every node that ever ran stands in `versions_seen`.
    """
    seen: dict[str, set[str]] = {}
    for envelope in envelopes:
        for node, entries in envelope["versions_seen"].items():
            seen.setdefault(node, set()).update(entries)
    found: dict[str, set[str]] = {}
    for node, channels in seen.items():
        for channel in channels:
            if channel in seen and channel not in (START, INTERRUPT) and node != INTERRUPT:
                found.setdefault(channel, set()).add(node)
    return {node: frozenset(targets) for node, targets in found.items()}
