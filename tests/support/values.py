"""Values as applications keep them in their state, for Hypothesis to draw."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.types import Interrupt, Send
from pydantic import BaseModel, SecretStr


class Colour(Enum):
    RED = "red"
    PAIR = ("a", 1)


class Level(IntEnum):
    LOW = 1
    HIGH = 2**40


class Mood(StrEnum):
    CALM = "calm"
    NUL = "a\0b"


@dataclass
class Order:
    """A dataclass of an application."""

    number: int
    items: list[Any]


class Address(BaseModel):
    """A pydantic model of an application."""

    street: str
    floor: int | None = None


class Point(NamedTuple):
    x: float
    y: Any


KINDS: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    2**63 - 1,
    -(2**63),
    2**64 - 1,
    0.0,
    -0.0,
    0.1,
    1e16,
    1e20,
    5e-324,
    float("inf"),
    float("-inf"),
    float("nan"),
    "",
    "nul\0in it",
    "\ud7ff é 🐋 \\ \" '",
    "t" * 70_000,
    b"",
    b"\x00\xff",
    bytearray(b"\x01"),
    [],
    {},
    (),
    (1, (2,)),
    {1: "int key", "1": "text key"},
    {1.5: None, b"k": 1, False: 2},
    {1, 2},
    frozenset({"a"}),
    deque([1, 2], maxlen=5),
    Decimal("1.10"),
    UUID(int=7),
    datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    datetime(2024, 1, 2, 3, 4, 5, 6),  # noqa: DTZ001 - a naive one is meant
    datetime(2024, 7, 2, 3, tzinfo=ZoneInfo("Europe/Berlin")),
    date(2024, 1, 2),
    time(3, 4, 5),
    timedelta(days=-1, microseconds=1),
    ZoneInfo("Europe/Berlin"),
    Path("/x/y"),
    re.compile("a+", re.IGNORECASE),
    ip_address("127.0.0.1"),
    ip_network("::/64"),
    Colour.RED,
    Colour.PAIR,
    Level.HIGH,
    Mood.CALM,
    Mood.NUL,
    Order(1, [Point(1.0, None)]),
    Address(street="x"),
    Point(-0.0, [1]),
    SecretStr("hush"),
    np.arange(6, dtype=np.int16).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    Send("node", {"item": 1}),
    Interrupt(value={"q": "?"}, id="some-id"),
    HumanMessage("hello", id="m1"),
    AIMessage("hi", id="m2", tool_calls=[{"name": "t", "args": {"n": None}, "id": "c"}]),
    ToolMessage("out", tool_call_id="c", id="m3", artifact={"deep": [1.5]}),
]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalars = st.one_of(
    st.sampled_from(KINDS),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    texts,
    st.binary(max_size=12),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(texts, inner, max_size=4),
        st.builds(Order, st.integers(0, 9), st.lists(inner, max_size=2)),
    ),
    max_leaves=8,
)
