"""What a checkpoint of `v` below 4 must have become, as LangGraph's own source says.

On load from SQLite, Pregel moves `pending_sends` into the channel `__pregel_tasks`, and StateGraph
renames channels below `v` 3. PostgreSQL's reader comes first: below `v` 4 it puts the parent's
writes to `__pregel_tasks` in that channel. Where that would be another list than what is stored, the
checkpoint must stand as `v` 4, with the channels renamed already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .source_checkpoint import SENDS, Opened, Unreadable

TASKS = "__pregel_tasks"
INTERRUPT = "__interrupt__"
START = "__start__"
NEWEST = 4
RENAMED_BELOW = 3

Send = tuple[str, bytes]
"""Type and bytes of a pending send."""
Edges = Mapping[str, set[str]]
"""The nodes that a node leads to."""


class Past(NamedTuple):
    """What else the source says: the parent's sends in the reader's order, and the thread's edges."""

    sends: Callable[[], list[Send]]
    edges: Callable[[], Edges]


class Expected(NamedTuple):
    """What the target must hold: plain fields, versions (before renames), and spans of values."""

    fields: dict[str, Any]
    versions: dict[str, Any]
    seen: dict[str, dict[str, Any]]
    spans: dict[str, tuple[int, int]]


def padded(version: Any) -> Any:
    """An integer version as the text from which `PostgresSaver` counts on."""
    return f"{version:032}.{0.0:016}" if type(version) is int else version


def upgraded(now: Expected, opened: Opened, past: Past | None) -> Expected:
    """Return what a checkpoint of `v` below 4 must have become, or raise `Unreadable`."""
    v = now.fields["v"]
    entries = [now.versions, *now.seen.values()]
    if any(type(padded(version)) is not str for entry in entries for version in entry.values()):
        raise Unreadable("a version is neither text nor a whole number")
    moved = _with_tasks(now, opened)
    if v >= RENAMED_BELOW:
        return moved._replace(fields={**moved.fields, "v": NEWEST})
    if past is None:
        raise Unreadable(f"nothing is known of the parent of a checkpoint of v {v}")
    rebuilt = past.sends()
    stored = [(opened.type.partition("+")[0], send) for send in opened.sends_apart()]
    if not rebuilt or rebuilt == stored:
        return moved
    return _renamed(moved._replace(fields={**moved.fields, "v": NEWEST}), past.edges())


def _with_tasks(now: Expected, opened: Opened) -> Expected:
    if opened.sends is None:
        return now
    if not now.versions:
        raise Unreadable("the source carries pending_sends and no versions")
    newest = max(map(padded, now.versions.values()))
    return Expected(
        {name: value for name, value in now.fields.items() if name != SENDS},
        {**now.versions, TASKS: newest},
        now.seen,
        {**now.spans, TASKS: opened.sends},
    )


def _renamed(now: Expected, edges: Edges) -> Expected:
    """Rename as `CompiledStateGraph._migrate_checkpoint` does: three kinds of channels, in turn."""
    versions = {channel: padded(version) for channel, version in now.versions.items()}
    seen = {
        node: {channel: padded(version) for channel, version in entries.items()}
        for node, entries in now.seen.items()
    }
    spans = dict(now.spans)

    def move(channel: str, nodes: list[str]) -> None:
        version, span = versions.pop(channel), spans.pop(channel, None)
        for node in nodes:
            new = f"branch:to:{node}"
            versions[new] = max(versions[new], version) if new in versions else version
            for entries in (seen.get(node, {}), seen.get(INTERRUPT, {})):
                if channel in entries:
                    entry = entries.pop(channel)
                    entries[new] = max(entry, entries[new]) if new in entries else entry
            if span is not None:
                spans.setdefault(new, span)

    for channel in list(versions):
        if channel.startswith("start:"):
            move(channel, [channel.split(":")[1]])
    for channel in list(versions):
        if channel.startswith("branch:") and channel.count(":") == 3:
            move(channel, [channel.split(":")[-1]])
    for channel in list(versions):
        if channel not in (START, INTERRUPT) and channel in seen:
            move(channel, sorted(edges.get(channel, ())))
            seen.get(INTERRUPT, {}).pop(channel, None)
    return Expected(now.fields, versions, seen, spans)


def edges_between(seen: Mapping[str, set[str]]) -> Edges:
    """Return a thread's edges: a node sees the channel that is named after the node before it."""
    edges: dict[str, set[str]] = {}
    for node, channels in seen.items():
        if node != INTERRUPT:
            for channel in channels & seen.keys() - {START, INTERRUPT}:
                edges.setdefault(channel, set()).add(node)
    return edges
