"""Checkpoints below `v` 3 that were stored as `v` 4: held against LangGraph's own renaming of them.

StateGraph renames channels when it loads an old checkpoint, and leaves one of `v` 4 alone. So the
stored one must be what StateGraph would have made of the old one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

RENAMED_BELOW = 3

Edges = frozenset[tuple[str, str]]


def edges_of(seen_by_nodes: Iterable[Mapping[str, Mapping[str, Any]]]) -> Edges:
    """The edges that a thread's `versions_seen` show: a node sees the channel of the one before."""
    seen: dict[str, set[str]] = {}
    for of_checkpoint in seen_by_nodes:
        for node, channels in of_checkpoint.items():
            seen.setdefault(node, set()).update(channels)
    nodes = {node for node in seen if not node.startswith("__")}
    return frozenset(
        (channel, node) for node in nodes for channel in seen[node] if channel in nodes
    )


def graph_of(checkpoint_ns: str) -> str:
    """The path of the graph that a namespace belongs to, without tasks and counters."""
    return "|".join(part.split(":")[0] for part in checkpoint_ns.split("|") if not part.isdigit())


def renamed(checkpoint: dict[str, Any], edges: Edges) -> dict[str, Any]:
    """What StateGraph makes of a checkpoint that it loads, for the graph that the edges tell of."""
    checkpoint = _copied(checkpoint)
    # Not public; there is no other way to ask LangGraph itself, which this is to agree with.
    _graph(_nodes(checkpoint), edges)._migrate_checkpoint(checkpoint)  # noqa: SLF001
    return checkpoint


def _nodes(checkpoint: dict[str, Any]) -> set[str]:
    """The nodes that a checkpoint knows of."""
    found = {node for node in checkpoint["versions_seen"] if not node.startswith("__")}
    for channel in checkpoint["channel_versions"]:
        if channel.startswith("start:"):
            found.add(channel.split(":")[1])
        elif channel.startswith("branch:") and channel.count(":") == 3:
            found.add(channel.split(":")[-1])
    return found


def _graph(nodes: set[str], edges: Edges) -> Any:
    # Imported here: it takes longer than all the rest of LangGraph, for what few databases hold.
    from langgraph.graph import END, START, StateGraph

    builder: Any = StateGraph(dict)
    for node in nodes | {name for edge in edges for name in edge}:
        builder.add_node(node, _unused)
        builder.add_edge(START, node)
        builder.add_edge(node, END)
    for before, after in edges:
        builder.add_edge(before, after)
    if not nodes and not edges:
        builder.add_edge(START, END)
    graph: Any = builder.compile()
    graph.builder.edges = sorted(builder.edges)  # a set's order is another in every process
    return graph


def _unused(state: Any) -> Any:
    return state


def _copied(checkpoint: dict[str, Any]) -> dict[str, Any]:
    return {
        **checkpoint,
        "channel_values": {**checkpoint["channel_values"]},
        "channel_versions": {**checkpoint["channel_versions"]},
        "versions_seen": {node: {**seen} for node, seen in checkpoint["versions_seen"].items()},
    }
