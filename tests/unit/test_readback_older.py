"""Checkpoints of old channel names, held against LangGraph's own renaming of them."""

from __future__ import annotations

import json
from typing import Any

from langgraph.checkpoint.base import CheckpointTuple
from langgraph.graph import END, START, StateGraph

from include.checkpoint_migration.readback.older import edges_of
from include.checkpoint_migration.readback.rules import tuple_differences


def old(**changes: Any) -> dict[str, Any]:
    """A checkpoint of `v` 1 with channels of the names that StateGraph gave them then."""
    made = {
        "v": 1,
        "channel_values": {"log": ["in"], "start:a": "__start__", "b": "b", "branch:a:to:c": "a"},
        "channel_versions": {"log": "1", "start:a": "2", "b": "3", "branch:a:to:c": "4"},
        "versions_seen": {
            "a": {"start:a": "2"},
            "b": {"start:a": "1"},
            "c": {"b": "2", "branch:a:to:c": "1"},
            "__interrupt__": {"start:a": "2", "b": "2"},
        },
    }
    return {**made, **changes}


def upgraded_by_langgraph() -> dict[str, Any]:
    """The same as today's StateGraph stores it after loading it."""

    def node(state: Any) -> Any:
        return state

    builder: Any = StateGraph(dict)
    for name in "abc":
        builder.add_node(name, node)
    for edge in ((START, "a"), ("b", "c"), ("c", END), ("a", END)):
        builder.add_edge(*edge)
    checkpoint = json.loads(json.dumps(old()))
    builder.compile()._migrate_checkpoint(checkpoint)
    return {**checkpoint, "v": 4}


def old_pair(before: dict[str, Any], after: dict[str, Any]) -> list[Any]:
    left = CheckpointTuple({}, before, {}, None, [])  # type: ignore[arg-type]
    right = CheckpointTuple({}, after, {}, None, [])  # type: ignore[arg-type]
    edges = edges_of([before["versions_seen"]])
    return list(tuple_differences(left, right, edges=lambda: edges))


def test_channels_of_old_names_are_held_against_langgraphs_own_renaming() -> None:
    """Stored as `v` 4, an old checkpoint must be what StateGraph makes of it; below it is as it was."""
    new = upgraded_by_langgraph()
    assert set(new["channel_versions"]) == {"log", "branch:to:a", "branch:to:c"}
    assert old_pair(old(), new) == []
    assert old_pair(old(), old()) == []
    assert old_pair(old(), old(v=4)), "the old names would no longer be understood"
    for spoil in (
        lambda c: c["channel_versions"].update({"branch:to:a": "1"}),
        lambda c: c["channel_versions"].pop("branch:to:c"),
        lambda c: c["channel_values"].pop("branch:to:a"),
        lambda c: c["versions_seen"]["c"].pop("branch:to:c"),
        lambda c: c["versions_seen"]["__interrupt__"].update({"start:a": "2"}),
        lambda c: c["channel_values"].update({"log": ["out"]}),
    ):
        spoilt = json.loads(json.dumps(new))
        spoil(spoilt)
        assert old_pair(old(), spoilt)


def test_a_channel_of_a_node_that_leads_nowhere_must_go() -> None:
    """Where no later node is known of, a node's channel goes, as it does when StateGraph loads it."""
    before = old()
    before["versions_seen"]["c"].pop("b")
    after = {
        "v": 4,
        "channel_values": {"log": ["in"], "branch:to:a": "__start__", "branch:to:c": "a"},
        "channel_versions": {"branch:to:a": "2", "branch:to:c": "4", "log": "1"},
        "versions_seen": {
            "a": {"branch:to:a": "2"},
            "b": {"start:a": "1"},
            "c": {"branch:to:c": "1"},
            "__interrupt__": {"branch:to:a": "2"},
        },
    }
    assert old_pair(before, after) == []
    left = json.loads(json.dumps(after))
    left["channel_versions"]["b"], left["channel_values"]["b"] = "3", "b"
    assert old_pair(before, left)
