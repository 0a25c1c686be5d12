"""One bound for nesting, whichever Python runs this."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import ormsgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.checkpoint_migration.convert.nesting import LIMIT, too_deep_json, too_deep_msgpack

LEAVES = [
    *(0, -1, 127, 128, -33, 2**16, 2**32, -(2**40), 2**63, 1.5, None, True),
    *("", "[", "{" * 40, "x" * 300, "é" * 66_000, b"", b"\x91" * 300, b"\xdd" * 66_000),
    *(msgpack.ExtType(1, b"\x91" * n) for n in (1, 2, 4, 8, 16, 17, 300, 66_000)),
    *([], {}, [1] * 16, [[]] * 2_000, {str(n): [n] for n in range(20)}),
]
AROUND = [LIMIT - 1, LIMIT, LIMIT + 1, LIMIT + 2, 3_000]


def wrapped(value: bytes, depth: int, opening: bytes) -> bytes:
    return opening * depth + value


@pytest.mark.parametrize("depth", AROUND)
@pytest.mark.parametrize(
    "opening",
    [b"\x91", b"\x81\xa1k", b"\xdc\x00\x01", b"\xde\x00\x01\xc0", b"\xdd\x00\x00\x00\x01"],
)
def test_msgpack_is_bounded_by_its_depth_alone(depth: int, opening: bytes) -> None:
    """Containers of every header, around a leaf and beside others, count as levels."""
    beside = b"".join(msgpack.packb(leaf) for leaf in LEAVES)
    value = wrapped(b"\xc0", depth - 1, opening)
    whole = msgpack.Packer().pack_array_header(len(LEAVES) + 1) + beside + value
    assert too_deep_msgpack(whole) is (depth > LIMIT)


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: type(leaf).__name__)
def test_what_only_looks_deep_is_not(leaf: Any) -> None:
    """Bytes of texts, binaries and ext types are not containers, however many there are."""
    assert not too_deep_msgpack(msgpack.packb([leaf] * 20))


@given(st.binary(max_size=64), st.integers(0, 2_000))
def test_any_bytes_have_an_answer(noise: bytes, depth: int) -> None:
    """Malformed bytes are neither an error nor a long wait."""
    too_deep_msgpack(b"\x91" * depth + noise * 20)
    too_deep_json(b"[" * depth + noise * 20)


def test_what_the_reader_refuses_is_too_deep() -> None:
    """LangGraph reads msgpack with a library that gives up deeper than the bound, and not before."""
    ormsgpack.unpackb(wrapped(b"\xc0", LIMIT, b"\x91"))
    with pytest.raises(ormsgpack.MsgpackDecodeError):
        ormsgpack.unpackb(wrapped(b"\xc0", 1_030, b"\x91"))


@pytest.mark.parametrize("depth", AROUND)
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"k":', "}"), ('[{"]":', "}]")])
def test_json_is_bounded_by_its_depth_alone(depth: int, opening: str, closing: str) -> None:
    """Brackets in strings and beside one another are no levels."""
    times = depth // 2 if opening == '[{"]":' else depth
    levels = 2 * times if opening == '[{"]":' else times
    beside = json.dumps([["[" * 1_000, '"[\\', {}], *[[]] * 1_000])[1:-1]
    text = "[" + beside + "," + opening * (times - 1) + "0" + closing * (times - 1) + "]"
    deepest = 1 + levels - (2 if opening == '[{"]":' else 1)
    assert too_deep_json(text.encode()) is (deepest > LIMIT)
