"""What the oracle expects of checkpoints before `v` 4 is what LangGraph itself makes of them."""

from __future__ import annotations

import copy
from typing import Any, TypedDict

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.graph import END, START, StateGraph

from include.checkpoint_migration.model import CheckpointRow
from include.checkpoint_migration.verify.older import Expected, Past, Send, edges_between, padded
from include.checkpoint_migration.verify.opener import Opener
from include.checkpoint_migration.verify.rules import expected_envelope
from include.checkpoint_migration.verify.source_checkpoint import Unreadable


class State(TypedDict):
    state: int


def graph() -> Any:
    """A graph of nodes a, b, c, one after the other.

    Where a node has two targets, LangGraph goes by the order of a set, which is another every time.
    """
    builder = StateGraph(State)
    for node in "abc":
        builder.add_node(node, lambda state: state)
    for start, end in [(START, "a"), ("a", "b"), ("b", "c"), ("c", END)]:
        builder.add_edge(start, end)
    return builder.compile()


GRAPH = graph()
EDGES = {"a": {"b"}, "b": {"c"}}
CHANNELS = [
    "state",
    "__start__",
    "a",
    "b",
    *(f"start:{node}" for node in "abc"),
    *(f"branch:{source}:if:{node}" for source in "ab" for node in "abc"),
    *(f"branch:to:{node}" for node in "abc"),
]
VERSIONS = st.integers(1, 3).map(padded)
ENTRIES = st.dictionaries(st.sampled_from(CHANNELS), VERSIONS, max_size=8)
OTHER_SENDS: list[Send] = [("msgpack", b"\x01")]


def expected(checkpoint: dict[str, Any], sends: list[Send]) -> Expected:
    data = msgpack.packb(checkpoint)
    opened = Opener(None).open(CheckpointRow("t", "", "1", None, "msgpack", data, b""))
    found = expected_envelope(opened, Past(lambda: sends, lambda: EDGES))
    values = {channel: opened.value(span) for channel, span in found.spans.items()}
    return found._replace(spans=values)


@given(ENTRIES, ENTRIES, st.fixed_dictionaries(dict.fromkeys("abc", ENTRIES)), ENTRIES)
def test_renamed_channels_are_those_of_state_graph(
    versions: dict[str, str],
    values: dict[str, str],
    seen: dict[str, dict[str, str]],
    interrupt: dict[str, str],
) -> None:
    """Below `v` 3, where the reader would rebuild other sends, names are as StateGraph makes them."""
    checkpoint = {
        "v": 2,
        "channel_values": {c: f"value of {c}" for c in values if c in versions},
        "channel_versions": versions,
        "versions_seen": {**seen, "__interrupt__": interrupt},
    }
    loaded = copy.deepcopy(checkpoint)
    GRAPH._migrate_checkpoint(loaded)
    found = expected(checkpoint, OTHER_SENDS)
    assert found.fields == {"v": 4}
    assert found.versions == loaded["channel_versions"]
    # where two channels become one, StateGraph leaves the second value behind, without a version
    reachable = {c: v for c, v in loaded["channel_values"].items() if c in found.versions}
    assert found.spans == reachable
    assert found.seen == loaded["versions_seen"]


@pytest.mark.parametrize("v", [1, 2])
@pytest.mark.parametrize("rebuilt", [[], [("msgpack", b"\x07"), ("msgpack", b"\xa1x")]])
def test_sends_that_are_rebuilt_equal_leave_v(v: int, rebuilt: list[Send]) -> None:
    """Where the reader adds nothing, or just what is stored, LangGraph upgrades it on load."""
    checkpoint = {
        "v": v,
        "channel_values": {},
        "channel_versions": {"start:a": 9, "b": 10},
        "versions_seen": {},
        "pending_sends": [7, "x"],
    }
    found = expected(checkpoint, rebuilt)
    assert found.fields == {"v": v}
    assert found.versions == {"start:a": 9, "b": 10, "__pregel_tasks": padded(10)}
    assert found.spans == {"__pregel_tasks": [7, "x"]}


@pytest.mark.parametrize(
    "rebuilt",
    [
        [("msgpack", b"\xa1x"), ("msgpack", b"\x07")],
        [("msgpack", b"\x07")],
        [("json", b"\x07"), ("msgpack", b"\xa1x")],
    ],
)
def test_sends_that_are_rebuilt_otherwise_need_v_4(rebuilt: list[Send]) -> None:
    """Another order, number or type of sends would be read in place of those that are stored."""
    checkpoint = {
        "v": 2,
        "channel_values": {},
        "channel_versions": {"start:a": padded(1)},
        "versions_seen": {},
        "pending_sends": [7, "x"],
    }
    found = expected(checkpoint, rebuilt)
    assert found.fields == {"v": 4}
    assert found.versions == {"branch:to:a": padded(1), "__pregel_tasks": padded(1)}


@pytest.mark.parametrize("versions", [{"a": None}, {"a": 1.5}, {"a": True}])
def test_versions_that_cannot_be_compared_are_unproven(versions: dict[str, Any]) -> None:
    """A version that is neither text nor a whole number has no greatest."""
    with pytest.raises(Unreadable):
        expected({"v": 2, "channel_versions": versions}, [])


def test_edges_are_what_nodes_have_seen() -> None:
    """A node that has seen the channel named after another comes after it."""
    seen = {"a": {"start:a"}, "b": {"a", "state"}, "c": {"b", "__start__"}}
    seen |= {"__start__": {"__start__"}, "__interrupt__": {"a", "b", "c"}}
    assert edges_between(seen) == EDGES
