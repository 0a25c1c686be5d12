"""What is remembered of a channel's last value changes no answer: names are those of the whole value."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from include.checkpoint_migration.convert import class_names
from include.checkpoint_migration.convert.class_names import ClassNames, classes_in
from tests.support.values import Address, Colour, Order, Point, values

SERDE = JsonPlusSerializer()
ITEMS = [
    HumanMessage("How long does it take? " * 8, id="h1"),
    AIMessage(
        "A day. " * 20,
        usage_metadata={"input_tokens": 149, "output_tokens": 405, "total_tokens": 554},
    ),
    AIMessage("", id="a2"),
    ToolMessage("late " * 200, tool_call_id="1"),
    Order(1, [Address(street="x"), Colour.RED]),
    Point(1.0, None),
    "a text " * 30,
    {"count": 149, "model": "small"},
    b"\xc7\x1d\x05\x93\xa3mod\xa4Name\xc0" * 3,
    [149, 405, 2.5],
]


def packed(value: Any) -> bytes:
    return SERDE.dumps_typed(value)[1]


@given(st.lists(st.lists(st.sampled_from(range(len(ITEMS))), max_size=20), max_size=8))
@example([[0, 1, 2], [0, 1, 2, 4], [1, 2, 4, 0], [4, 0], [0], [0, 1], [1, 1, 1]])
@example([[*range(10)] * n for n in range(1, 5)])
@settings(max_examples=200, deadline=None)
def test_a_list_that_grows_is_trimmed_or_changes_has_its_own_names(lists: list[list[int]]) -> None:
    """Value after value of a channel, whatever became of the items before."""
    names = ClassNames()
    for chosen in lists:
        raw = packed([ITEMS[n] for n in chosen])
        assert names.of("messages", raw) == classes_in(raw)


@given(st.lists(values, max_size=6), st.integers(0, 400), st.integers(0, 400))
@settings(deadline=None)
def test_so_has_any_cut_of_any_bytes(found: list[Any], begin: int, end: int) -> None:
    """Also bytes that begin or end within a name, which no serializer writes."""
    names, before = ClassNames(), ClassNames()
    whole = packed([*ITEMS[:2], *found, *ITEMS[4:]])
    for raw in (
        whole,
        whole[begin:],
        whole[begin : len(whole) - end],
        whole[begin:] + whole,
        whole,
    ):
        assert names.of("c", raw) == before.of(str(len(raw)), raw)


def test_names_are_read_once_and_then_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Token counts whose bytes look like a class's, and values that did not grow, need no second reading."""
    read: list[bytes] = []
    whole = class_names.classes_in
    monkeypatch.setattr(class_names, "classes_in", lambda raw: read.append(raw) or whole(raw))
    names = ClassNames()
    for n in range(30):
        raw = packed([*ITEMS[:4] * (n % 7 + 1), f"{n}" * n])
        assert len(names.of("messages", raw)) == 3
    assert len(read) == 1


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many channels, and of a value that is large."""
    monkeypatch.setattr(class_names, "TOGETHER", 10_000)
    monkeypatch.setattr(class_names, "LONGEST", 4_000)
    names = ClassNames()
    for n in range(40):
        raw = packed([Order(n, [])] + ["x" * 100] * n)
        assert names.of(f"channel {n % 20}", raw) == classes_in(raw)
        assert names._kept == sum(len(last.raw) for last in names._last.values()) <= 10_000
