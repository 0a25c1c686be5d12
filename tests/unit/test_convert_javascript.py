"""Versions of LangGraph.js: fractions that a number of JavaScript keeps, and who wrote a checkpoint."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.checkpoint_migration.convert.javascript import LARGEST, own_version, split_either

counts = st.integers(0, LARGEST - 1) | st.integers(0, 99)
states = st.binary(min_size=32, max_size=32)


@given(counts, states)
def test_a_fraction_is_printed_as_it_is_stored(count: int, state: bytes) -> None:
    """The shortest digits of the double are the text itself, so that the reader's join finds the blob."""
    version = own_version(str(count), state)
    assert repr(float(version)) == version
    assert len(version.lstrip("-0.").replace(".", "")) >= 14


@given(counts, states)
def test_a_fraction_lies_where_its_count_does(count: int, state: bytes) -> None:
    """Above its count and below the next; of what was never written, below 0, which triggers nothing."""
    version = Decimal(own_version(str(count), state))
    assert count < version < count + 1 if count else -1 < version < 0


@given(counts, states, states)
def test_a_fraction_depends_on_count_and_content_alone(
    count: int, one: bytes, other: bytes
) -> None:
    """The same again for the same, another for another content."""
    assert own_version(str(count), one) == own_version(str(count), one)
    assert (own_version(str(count), one) == own_version(str(count), other)) == (one == other)


@pytest.mark.parametrize(
    ("start", "is_javascript"),
    [
        (b'{"v":4,"id":"1","ts":"2026-11-21T19:04:42.661Z"', True),
        (b'{"v":1,"ts":"2024-08-01T00:00:00.000Z","id":"1"', True),
        (b'{"v": 1, "ts": "2024-08-01T00:00:00.000Z", "id": "1"', False),
        (b'{"v":1,"ts":"2024-08-01T00:00:00.000000+00:00","id":"1"', False),
    ],
)
def test_a_checkpoint_tells_who_wrote_it(start: bytes, is_javascript: bool) -> None:
    """JSON.stringify leaves no spaces and a Date ends in Z; Python does neither."""
    split = split_either(start + b',"channel_values":{"a": "\xc3\xa9"}}')
    assert split.javascript is is_javascript
    assert split.values == {"a": b'"\xc3\xa9"'}
