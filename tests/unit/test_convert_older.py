"""Older checkpoints: what LangGraph makes of the stored one is what it made of the old one."""

from __future__ import annotations

import copy
import operator
from typing import Annotated, Any, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph._internal._config import recast_checkpoint_ns
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from include.checkpoint_migration.convert.formats import Split, split_json, split_msgpack
from include.checkpoint_migration.convert.older import (
    NEWEST,
    TASKS,
    CannotUpgrade,
    edges_of,
    graph_of,
    padded,
    upgraded,
    with_text_versions,
)

SERDE = JsonPlusSerializer()
NODES = "abc"


class State(TypedDict):
    log: Annotated[list[str], operator.add]


def _graph() -> Any:
    """Three nodes, one after the other.

    Where a node has two targets, LangGraph goes by the order of a set, which is another every time.
    """
    builder = StateGraph(State)
    for node in NODES:
        builder.add_node(node, lambda state: state)
    for start, end in [(START, "a"), ("a", "b"), ("b", "c"), ("c", END)]:
        builder.add_edge(start, end)
    return builder.compile()


GRAPH = _graph()
EDGES = {"a": frozenset("b"), "b": frozenset("c")}
CHANNELS = [
    "log",
    "__start__",
    *NODES,
    *(f"start:{node}" for node in NODES),
    *(f"branch:{source}:if:{node}" for source in "ab" for node in NODES),
    *(f"branch:to:{node}" for node in NODES),
]
versions = st.integers(1, 3).map(padded)
entries = st.dictionaries(st.sampled_from(CHANNELS), versions, max_size=6)
sends = st.lists(st.integers(0, 3), max_size=3)


@st.composite
def checkpoints(draw: st.DrawFn) -> dict[str, Any]:
    """An old checkpoint. A node whose channel has a version has run, and so has seen something."""
    channel_versions = draw(st.dictionaries(st.sampled_from(CHANNELS), versions, min_size=1))
    seen = draw(st.dictionaries(st.sampled_from([*NODES, "__interrupt__"]), entries))
    ran = {node: seen.get(node, {}) for node in NODES if node in channel_versions or node in seen}
    present = draw(st.sets(st.sampled_from(sorted(channel_versions))))
    return {
        "v": draw(st.integers(1, 3)),
        "ts": "2024-09-01T00:00:00+00:00",
        "id": "1",
        "channel_values": {channel: f"value of {channel}" for channel in sorted(present)},
        "channel_versions": channel_versions,
        "versions_seen": {"__input__": {}, **{n: seen[n] for n in seen if n not in ran}, **ran},
        "pending_sends": [Send("a", item) for item in draw(sends)],
    }


def packed(checkpoint: dict[str, Any]) -> Split:
    return split_msgpack(SERDE.dumps_typed(checkpoint)[1])


def raw(items: list[int]) -> tuple[bytes, ...]:
    return tuple(SERDE.dumps_typed(Send("a", item))[1] for item in items)


def read_back(split: Split, parents: list[int]) -> dict[str, Any]:
    """The stored checkpoint as `PostgresSaver` gives it: with the parent's sends below `v` 4."""
    values = [(channel.encode(), b"msgpack", blob) for channel, blob in split.values.items()]
    checkpoint = copy.deepcopy(split.envelope)
    reader = object.__new__(PostgresSaver)
    reader.serde = SERDE
    if checkpoint["v"] < 4:
        reader._migrate_pending_sends(
            [(b"msgpack", blob) for blob in raw(parents)], checkpoint, values
        )
    return {**checkpoint, "channel_values": reader._load_blobs(values)}


def loaded(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What LangGraph works with; a value whose channel has no version is nothing to it."""
    checkpoint = copy.deepcopy(checkpoint)
    GRAPH._migrate_checkpoint(checkpoint)
    kept = checkpoint["channel_versions"]
    return {
        "values": {c: v for c, v in checkpoint["channel_values"].items() if c in kept},
        "versions": kept,
        "seen": checkpoint["versions_seen"],
    }


@given(checkpoints(), sends)
def test_langgraph_works_with_the_same_after_both_readers(
    checkpoint: dict[str, Any], parents: list[int]
) -> None:
    """Whatever the parent sent, channels, versions, sends and what nodes have seen end the same."""
    split = upgraded(packed(checkpoint), lambda: raw(parents), lambda: EDGES)
    assert loaded(read_back(split, parents)) == loaded(checkpoint)


@given(checkpoints(), sends)
def test_what_the_reader_would_rebuild_wrongly_stands_as_v_4(
    checkpoint: dict[str, Any], parents: list[int]
) -> None:
    """Below `v` 4 only what the reader leaves alone or rebuilds to the same may stay."""
    split = upgraded(packed(checkpoint), lambda: raw(parents), lambda: EDGES)
    same = [send.arg for send in checkpoint["pending_sends"]] == parents
    stays = checkpoint["v"] < 3 and (not parents or same)
    assert split.envelope["v"] == (checkpoint["v"] if stays else NEWEST)


@given(checkpoints())
def test_no_value_is_lost_or_made_up(checkpoint: dict[str, Any]) -> None:
    """Every slice that is stored stood in the source, and pending sends are the whole list's bytes."""
    before = packed(checkpoint)
    after = upgraded(before, lambda: raw([9]), lambda: EDGES)
    assert set(after.values.values()) <= {*before.values.values(), before.sends_list}
    if checkpoint["pending_sends"]:
        assert SERDE.loads_typed(("msgpack", after.values[TASKS])) == checkpoint["pending_sends"]
        newest = max(checkpoint["channel_versions"].values())
        assert after.envelope["channel_versions"][TASKS] == newest
        assert "pending_sends" not in after.envelope
    else:
        assert TASKS not in after.values


def test_todays_checkpoint_is_left_alone_and_asks_nothing() -> None:
    """At `v` 4 neither the parent nor the thread is looked at."""
    split = packed(old(v=4, pending_sends=[]))
    assert upgraded(split, forbidden, forbidden) is split


def test_v_3_asks_nothing() -> None:
    """At `v` 3 nothing is renamed any more, so the thread's other rows do not matter."""
    split = upgraded(packed(old(v=3, pending_sends=[Send("a", 1)])), forbidden, forbidden)
    assert split.envelope["v"] == NEWEST


def forbidden() -> Any:
    raise AssertionError("nothing else may be read")


def old(**more: Any) -> dict[str, Any]:
    return {
        "v": 1,
        "ts": "",
        "id": "1",
        "channel_values": {},
        "channel_versions": {"log": padded(1)},
        "versions_seen": {},
        "pending_sends": [],
        **more,
    }


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"v": 5}, "its v is 5, which is newer"),
        ({"v": 4, "pending_sends": [1]}, "it carries pending_sends at v 4"),
        ({"v": "1"}, "its v is no whole number"),
        ({"v": True}, "its v is no whole number"),
        ({"v": None}, "its v is no whole number"),
        ({"v": 1.0}, "its v is no whole number"),
        (
            {"pending_sends": [1], "channel_versions": {}},
            "it carries pending_sends and no versions",
        ),
    ],
)
def test_what_cannot_be_brought_up_to_date_says_why(more: dict[str, Any], why: str) -> None:
    """The reason names no value of the application."""
    with pytest.raises(CannotUpgrade, match=why):
        upgraded(packed(old(**more)), tuple, dict)


def test_a_renamed_checkpoint_tells_where_an_edge_may_be_unknown() -> None:
    """A node's channel that leads to no node that ever ran could lead to one that never did."""
    whole = old(
        channel_versions={"log": padded(2), "a": padded(2)}, versions_seen={"a": {"log": padded(1)}}
    )
    known = upgraded(packed(whole), lambda: raw([1]), lambda: EDGES)
    assert not known.guessed
    assert known.envelope["channel_versions"] == {"log": padded(2), "branch:to:b": padded(2)}
    unknown = upgraded(packed(whole), lambda: raw([1]), dict)
    assert unknown.guessed
    assert unknown.envelope["channel_versions"] == {"log": padded(2)}  # as with a graph's last node


def test_json_sends_are_cut_out_as_they_are() -> None:
    """In a checkpoint of type json the list of sends keeps its own text."""
    split = split_json(
        b'{"v": 1, "channel_values": {}, "channel_versions": {"x": "1.0"}, "versions_seen": {},'
        b' "pending_sends": [ {"lc": 2, "n": 1.10}, 2 ]}'
    )
    assert split.sends == (b'{"lc": 2, "n": 1.10}', b"2")
    after = upgraded(split, lambda: split.sends, dict)
    assert after.values == {TASKS: b'[ {"lc": 2, "n": 1.10}, 2 ]'}
    assert after.envelope["v"] == 1


# --- versions -----------------------------------------------------------------------------------


@given(st.integers(0, 10**12))
def test_the_next_version_sorts_after_a_padded_one(version: int) -> None:
    """`PostgresSaver` counts on from it, and what it gives is greater, as text too."""
    saver = object.__new__(PostgresSaver)
    following = saver.get_next_version(padded(version), None)
    assert following > padded(version)
    assert int(following.split(".")[0]) == version + 1


@given(st.lists(st.integers(0, 10**9), min_size=2))
def test_padded_versions_keep_their_order(numbers: list[int]) -> None:
    """Texts compare as the integers did."""
    assert sorted(map(padded, numbers)) == [padded(number) for number in sorted(numbers)]


def test_text_versions_stay_the_very_same_object() -> None:
    """Nothing is copied for a checkpoint of today."""
    envelope = {"channel_versions": {"a": "1.5"}, "versions_seen": {"n": {"a": "1.5"}}}
    assert with_text_versions(envelope) is envelope


def test_integers_become_text_everywhere() -> None:
    """In `versions_seen` too, and where only one entry is an integer."""
    envelope = {"v": 1, "channel_versions": {"a": 2}, "versions_seen": {"n": {"a": 1, "b": "1.5"}}}
    assert with_text_versions(envelope) == {
        "v": 1,
        "channel_versions": {"a": padded(2)},
        "versions_seen": {"n": {"a": padded(1), "b": "1.5"}},
    }
    assert padded(2) == "00000000000000000000000000000002.00000000000000.0"


@pytest.mark.parametrize(
    ("checkpoint_ns", "graph"),
    [
        ("", ""),
        ("sub:72771e58-87af-c58e-c8f6-3f2a33ea609f", "sub"),
        ("sub:1|inner:2", "sub|inner"),
        ("sub:1|2|inner:3|4", "sub|inner"),
    ],
)
def test_calls_of_one_subgraph_are_one_graph(checkpoint_ns: str, graph: str) -> None:
    """As LangGraph casts a namespace: without the ids of tasks and the counters of calls."""
    assert graph_of(checkpoint_ns) == graph == recast_checkpoint_ns(checkpoint_ns)


# --- edges --------------------------------------------------------------------------------------


def seen(**nodes: dict[str, str]) -> dict[str, Any]:
    return {"versions_seen": {"__input__": {}, **nodes}}


def test_edges_are_what_nodes_have_seen_of_nodes() -> None:
    """Gathered over all checkpoints; a channel of state, a start or an interrupt is no edge."""
    envelopes = [
        seen(a={"start:a": "1"}),
        seen(a={"start:a": "1"}, b={"a": "2", "log": "1"}, __interrupt__={"a": "2", "b": "2"}),
        seen(c={"a": "2", "b": "3", "__start__": "1"}, __start__={"__start__": "1"}),
    ]
    assert edges_of(envelopes) == {"a": {"b", "c"}, "b": {"c"}}
    assert edges_of([]) == {}


def test_a_node_that_leads_to_itself_is_an_edge() -> None:
    """A loop is seen like any other edge."""
    assert edges_of([seen(a={"a": "2"})]) == {"a": {"a"}}
