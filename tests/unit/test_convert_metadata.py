"""Sanitising: what JSONB refuses is replaced as documented, and nothing else moves."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.checkpoint_migration.convert import jsonb
from include.checkpoint_migration.convert.blockers import Unconvertible
from include.checkpoint_migration.convert.metadata import (
    MAX_DEPTH,
    CannotSanitize,
    convert_metadata,
    sanitized,
)
from include.checkpoint_migration.verify.metadata import metadata_differs

Pair = tuple[Any, Any]
"""What the application wrote, and what must become of it."""

BAD_TEXTS: list[tuple[str, str]] = [
    ("\0", ""),
    ("\ud800", "\ufffd"),
    ("\udfff", "\ufffd"),
    ("\ude00\ud83d", "\ufffd\ufffd"),
]
ONE_CHARACTER = re.compile("[\ud800-\udbff][\udc00-\udfff]")  # two halves that belong together
whole = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
pieces = st.lists(st.one_of(st.sampled_from(BAD_TEXTS), whole.map(lambda t: (t, t))), max_size=4)
texts = pieces.map(
    lambda found: ("".join(a for a, _ in found), "".join(b for _, b in found))
).filter(lambda pair: not ONE_CHARACTER.search(pair[0]))
bad_numbers = st.sampled_from([(float("nan"), None), (float("inf"), None), (float("-inf"), None)])
plain = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, width=64))
scalars = st.one_of(
    texts,
    bad_numbers,
    plain.filter(lambda v: v not in (float("inf"), float("-inf"))).map(lambda v: (v, v)),
)


def _object(items: list[tuple[Pair, Pair]]) -> Pair:
    """Keys are numbered, so that none becomes another's."""
    return (
        {f"{n}{key[0]}": value[0] for n, (key, value) in enumerate(items)},
        {f"{n}{key[1]}": value[1] for n, (key, value) in enumerate(items)},
    )


pairs = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(
            lambda found: ([a for a, _ in found], [b for _, b in found])
        ),
        st.lists(st.tuples(texts, inner), max_size=4).map(_object),
    ),
    max_leaves=12,
)


@given(pairs, st.booleans())
def test_the_bad_is_replaced_and_the_rest_stays(pair: Pair, escaped: bool) -> None:
    """Whether written as escapes or raw, what comes out is what the documentation says."""
    written = json.dumps(pair[0], ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    result = sanitized(written)
    assert json.loads(result) == pair[1]
    assert [type(v) for v in leaves(json.loads(result))] == [type(v) for v in leaves(pair[1])]


@given(pairs)
def test_what_is_sanitised_is_accepted_and_stays(pair: Pair) -> None:
    """JSONB takes it, sanitising it again changes nothing, and the oracle agrees."""
    written = json.dumps({"m": pair[0]}).encode()
    result = sanitized(written)
    assert jsonb.refusal(result) is None
    assert sanitized(result) == result
    assert metadata_differs(written, result.decode(), written) is None


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in (key, *leaves(item))]
    return [leaf for item in value for leaf in leaves(item)] if isinstance(value, list) else [value]


def test_raw_surrogates_of_careless_writers_become_u_fffd() -> None:
    """Bytes that are UTF-8 but for a surrogate's three are read as Python reads them."""
    assert sanitized(b'{"a": "x\xed\xa0\x80y"}') == '{"a": "x\ufffdy"}'.encode()


def test_a_pair_of_escapes_is_one_character() -> None:
    """Two escapes that belong together are no lone surrogates."""
    assert json.loads(sanitized(b'["\\ud83d\\ude00", "\\u0000"]')) == ["\U0001f600", ""]


def test_a_number_beyond_doubles_becomes_null() -> None:
    """1e999 is infinity to whoever reads it in Python."""
    assert json.loads(sanitized(b"[1e999, -1e999, 1e308]")) == [None, None, 1e308]


@given(st.integers(-(10**40), 10**40), st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_keep_their_value(whole_number: int, number: float) -> None:
    """Integers of any length and doubles come through exactly."""
    result = sanitized(json.dumps([whole_number, number, "\0"]).encode())
    assert json.loads(result, parse_float=Decimal) == [whole_number, Decimal(repr(number)), ""]


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return b'{"n": "\\u0000", "x": ' + opening * depth + b"1" + closing * depth + b"}"


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        (b'{"a": 1, "a\\u0000": 2}', "two of its keys would become one"),
        (b'[{"\\ud800": 1, "\\udfff": 2}]', "two of its keys would become one"),
        (b'{"a": "\\u0000"', "it is no JSON"),
        (b"", "it is no JSON"),
        (b'{"a": "\xff\\u0000"}', "it is no JSON"),
        (b'["\\u0000", 0.12345678901234567890123]', "a number in it would be rounded"),
        (b'["\\u0000", 1e-400]', "a number in it would be rounded"),
        (b'["\\u0000", 1e-99999999999999999999]', "a number in it would be rounded"),
        (nested(MAX_DEPTH), "nested too deep"),
        (nested(600, b'{"k":', b"}"), "nested too deep"),
        (nested(900), "nested too deep"),
        (nested(100_000), "nested too deep"),
    ],
)
def test_what_cannot_be_sanitised_says_why(metadata: bytes, why: str) -> None:
    """Nothing is guessed, rounded or lost: the row stays a blocker."""
    with pytest.raises(CannotSanitize, match=why):
        sanitized(metadata)
    with pytest.raises(Unconvertible) as raised:
        convert_metadata(metadata, sanitize=True)
    assert [problem.column for problem in raised.value.problems] == ["metadata"]


def test_the_depth_that_is_allowed_passes_the_oracle_too() -> None:
    """One level less than the limit is sanitised, and verification can follow."""
    for written in (nested(MAX_DEPTH - 1), nested(MAX_DEPTH - 1, b'{"k":', b"}")):
        assert metadata_differs(written, sanitized(written).decode(), written) is None


def test_only_what_is_refused_is_sanitised() -> None:
    """Acceptable metadata keeps its very bytes, and only the other's reason is told."""
    fine = b'{"a" : 1.10, "b": "\\u00e9"}'
    assert convert_metadata(fine, sanitize=True) == (fine, None)
    assert convert_metadata(b'{"a": NaN}', sanitize=True) == (
        b'{"a": null}',
        "it holds NaN or Infinity",
    )
