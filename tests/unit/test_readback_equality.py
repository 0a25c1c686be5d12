"""The read-back's strict equality of plain data, and the place that it names."""

from __future__ import annotations

from typing import Any

import ormsgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.checkpoint_migration.readback.equality import first_difference, same
from include.checkpoint_migration.readback.raw_serializer import Opaque, RawSerializer

NAN = float("nan")
DIFFERENT = [
    (1, True),
    (1, 1.0),
    (0.0, -0.0),
    (1e20, 10**20),
    ("1", b"1"),
    (b"1", bytearray(b"1")),
    ([1], (1,)),
    (None, False),
    ([], {}),
    ([1, 2], [2, 1]),
    ([1], [1, 1]),
    ({"a": 1}, {"a": 2}),
    ({"a": 1}, {"b": 1}),
    ({1: "x"}, {True: "x"}),
    ({1: "x"}, {"1": "x"}),
    ({1.0: "x"}, {1: "x"}),
    (NAN, 0.0),
    (Opaque("ext 5", b"x"), Opaque("ext 0", b"x")),
    (Opaque("ext 5", b"x"), b"x"),
    ("e\u0301", "\u00e9"),
]


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_what_python_takes_for_equal_is_told_apart(a: Any, b: Any) -> None:
    """Types, signs, order and keys count, at the top and however deep, both ways."""
    for left, right in ((a, b), (b, a)):
        assert not same(left, right)
        assert not same([{"x": [left]}], [{"x": [right]}])


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (1, 1.0, True),
        (1e20, 10**20, True),
        (1e23, 10**23, True),
        (1.7976931348623157e308, 17976931348623157 * 10**292, True),
        (1.0, 10**400, False),
        (-0.0, 0, True),
        (1, True, False),
        (1, 2.0, False),
        ({"a": [1.0]}, {"a": [1]}, True),
        (0.1, 0.1000001, False),
        ("1", 1, False),
    ],
)
def test_by_value_numbers_are_what_jsonb_keeps(a: Any, b: Any, equal: bool) -> None:
    """By value, numbers are equal whatever their spelling, and nothing else is relaxed."""
    assert same(a, b, by_value=True) is equal
    assert same(b, a, by_value=True) is equal


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=10,
)


@given(VALUES)
def test_a_value_is_the_same_as_its_copy_through_msgpack(value: Any) -> None:
    """Equality holds for every value that a serializer brings back, NaN and -0.0 among them."""
    try:
        raw = ormsgpack.packb(value, option=ormsgpack.OPT_NON_STR_KEYS)
    except ormsgpack.MsgpackEncodeError:
        return  # integers beyond 64 bits, surrogates
    serde = RawSerializer()
    assert same(serde.loads_typed(("msgpack", raw)), serde.loads_typed(("msgpack", raw)))
    assert same(value, serde.loads_typed(("msgpack", raw)))


FEW = st.recursive(
    st.sampled_from([None, False, True, 0, 1, 0.0, -0.0, 1.0, NAN, "", "1", b"", b"1"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from([0, 1, True, 1.0, "1"]), inner, max_size=2)
    ),
    max_leaves=3,
)


@given(FEW, FEW)
def test_equality_is_as_strict_as_the_bytes(a: Any, b: Any) -> None:
    """Of values that are often alike, those are the same that Python spells the same."""
    assert same(a, b) is (spelled(a) == spelled(b))


def spelled(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(sorted(f"{k!r}:{spelled(v)}" for k, v in value.items())) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(spelled, value)) + "]"
    return repr(value)


def test_a_difference_names_its_place_and_no_value() -> None:
    """The place is a path of positions: no key and no value of a database shows in it."""
    a = {"name": ["x", {"mail": "ann@example.org", "n": [1, 2, 3]}]}
    b = {"name": ["x", {"mail": "ann@example.org", "n": [1, 2, 4]}]}
    assert first_difference(a, b) == "{0}[1]{1}[2] has another value"
    assert first_difference(1, "1") == "it is of another type"
    assert first_difference([NAN], [NAN]) is None


def test_nesting_deeper_than_pythons_stack_is_compared() -> None:
    """Depth costs memory, not stack."""
    a: Any = 1
    b: Any = 2
    for _ in range(20_000):
        a, b = [a], [b]
    where = first_difference(a, b)
    assert where is not None
    assert where.startswith("[0][0]")
    assert len(where) < 100
