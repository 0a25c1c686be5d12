"""How the oracle opens a source checkpoint: where each value lies, and what it refuses."""

from __future__ import annotations

import json
import pickle
from collections import defaultdict
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.checkpoint_migration.errors import KeyNeeded
from include.checkpoint_migration.model import CheckpointRow
from include.checkpoint_migration.verify.opener import Opener
from include.checkpoint_migration.verify.source_checkpoint import (
    Opened,
    Unreadable,
    same,
    strict_json,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | TEXT
EXTS = st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20))
VALUES = st.recursive(
    SCALARS | st.binary(max_size=20) | EXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=4,
)
JSON_VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=4,
)
SPACES = st.text(" \t\r\n", max_size=3)


def opened(data: bytes | str | None, kind: Any = "msgpack") -> Opened:
    return Opener(None).open(CheckpointRow("t", "", "1", None, kind, data, b"{}"))


def pack(value: Any) -> bytes:
    packed = msgpack.packb(value)
    assert isinstance(packed, bytes)
    return packed


@given(st.dictionaries(TEXT, VALUES, max_size=4), st.booleans())
def test_spans_of_msgpack_are_the_bytes_of_each_value(values: dict[str, Any], first: bool) -> None:
    """Whatever the values, each channel's span is exactly what packing it alone gives."""
    rest = {"v": 4, "channel_versions": dict.fromkeys(values, "1")}
    whole = {"channel_values": values, **rest} if first else {**rest, "channel_values": values}
    checkpoint = opened(pack(whole))
    assert checkpoint.fields == rest
    assert checkpoint.spans.keys() == values.keys()
    for channel, span in checkpoint.spans.items():
        packed = pack(values[channel])
        assert checkpoint.holds(span, packed)
        assert not checkpoint.holds(span, packed + b"\0")
        assert not checkpoint.holds(span, packed[:-1])


@given(st.dictionaries(TEXT, JSON_VALUES, max_size=4), st.booleans(), SPACES)
def test_spans_of_json_are_the_bytes_of_each_value(
    values: dict[str, Any], ascii_only: bool, space: str
) -> None:
    """Spaces and letters of several bytes move no border of a value."""

    def dumped(value: Any) -> str:
        return json.dumps(value, ensure_ascii=ascii_only, separators=(f"{space},", f":{space}"))

    members = f",{space}".join(f"{dumped(c)}{space}:{space}{dumped(v)}" for c, v in values.items())
    text = f'{space}{{"ü":{space}[1]{space},"channel_values":{{{space}{members}}},"v":4}}{space}'
    checkpoint = opened(text.encode(), "json")
    assert checkpoint.fields == {"ü": [1], "v": 4}
    assert checkpoint.spans.keys() == values.keys()
    for channel, span in checkpoint.spans.items():
        assert checkpoint.holds(span, dumped(values[channel]).encode())


def test_later_of_two_equal_keys_counts() -> None:
    """As for every reader, the last of two members with one name is the one."""
    twice = b'{"channel_values": {"a": 1, "b": 2}, "channel_values": {"a": 3, "a": 44}}'
    checkpoint = opened(twice, "json")
    assert checkpoint.spans.keys() == {"a"}
    assert checkpoint.holds(checkpoint.spans["a"], b"44")
    checkpoint = opened(b"\x82" + 2 * (pack("channel_values") + pack({"a": 7})))
    assert checkpoint.holds(checkpoint.spans["a"], b"\x07")


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 8, 16, 17, 300, 70_000])
@pytest.mark.parametrize("code", [0, 6, 7])
def test_snapshot_is_an_ext_of_code_seven(size: int, code: int) -> None:
    """A DeltaChannel's snapshot is known by its ext code, in every length that msgpack has."""
    ext = msgpack.ExtType(code, b"\x07" * size)
    checkpoint = opened(pack({"channel_values": {"a": ext, "b": b"\x07\x07\x07"}}))
    assert checkpoint.is_snapshot(checkpoint.spans["a"]) is (code == 7)
    assert not checkpoint.is_snapshot(checkpoint.spans["b"])


def test_true_is_exactly_true() -> None:
    """Only the value True itself counts as True, not 1 nor a list of it."""
    values = {"a": True, "b": 1, "c": [True], "d": "true", "e": False}
    for data, kind in [
        (pack({"channel_values": values}), "msgpack"),
        (json.dumps({"channel_values": values}).encode(), "json"),
    ]:
        checkpoint = opened(data, kind)
        assert [c for c, span in checkpoint.spans.items() if checkpoint.is_true(span)] == ["a"]
        values_again = [checkpoint.value(span) for span in checkpoint.spans.values()]
        assert values_again == list(values.values())


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (None, "msgpack"),
        (b"", "msgpack"),
        (b"\x80\x80", "msgpack"),
        (b"\x90", "msgpack"),
        (b"\x81\x01\x01", "msgpack"),
        (b"\x81\xa1\xff\x01", "msgpack"),
        (pack({"channel_values": [1]}), "msgpack"),
        (pack({"channel_values": {1: 1}}), "msgpack"),
        (pack({"secret": "secret"})[:-1], "msgpack"),
        (b"\x81\xa1a" + b"\x91" * 100_000, "msgpack"),
        (b"\x81\xa1a\xdd\x7f\xff\xff\xff", "msgpack"),
        (b"\xdf\xff\xff\xff\xff", "msgpack"),
        (b"", "json"),
        (b"[]", "json"),
        (b'{"a": 1', "json"),
        (b'{"a": 1} 2', "json"),
        (b'{"a" 1}', "json"),
        (b'{"a": secret}', "json"),
        (b'{"a": 1 "b": 2}', "json"),
        (b"{1: 1}", "json"),
        (b'{"channel_values": []}', "json"),
        (b'{"a": "\xff"}', "json"),
        (b'{"a": ' + b"[" * 100_000, "json"),
        (b"\x80", "pickle"),
        (b"\x80", None),
        (b"\x80", b"msgpack"),
        (b"\x80", "secret"),
    ],
)
def test_what_cannot_be_opened_is_named_and_not_shown(data: bytes | None, kind: Any) -> None:
    """Broken or hostile bytes end in an error of ours, which shows none of them."""
    with pytest.raises(Unreadable) as refused:
        opened(data, kind)
    assert "secret" not in str(refused.value) or kind == "secret"


def test_encrypted_checkpoint_needs_a_key() -> None:
    """Without a key nothing can be said of an encrypted checkpoint."""
    with pytest.raises(KeyNeeded):
        opened(b"\x80", "msgpack+aes")


@given(st.binary(max_size=60), st.sampled_from(["msgpack", "json"]))
def test_any_bytes_open_or_are_refused(data: bytes, kind: str) -> None:
    """There are no bytes that end in anything else than a checkpoint or `Unreadable`."""
    try:
        checkpoint = opened(data, kind)
        for span in checkpoint.spans.values():
            checkpoint.value(span)
    except Unreadable:
        pass


@given(JSON_VALUES)
def test_a_value_is_the_same_after_json(value: Any) -> None:
    """What JSON keeps exactly is found the same, whatever it is; NaN is the same as nothing."""
    text = json.dumps(value)
    if "NaN" not in text and "Infinity" not in text:
        assert same(value, strict_json(text))


DIFFERENT: list[tuple[Any, str]] = [
    (1, "1.0"),
    (1.0, "1"),
    (1, "true"),
    (True, "1"),
    (0, "false"),
    (0, "null"),
    (1, '"1"'),
    (-0.0, "0.0"),
    (1e20, "100000000000000000000"),
    (0.1, "0.10000000000000002"),
    (2**53, str(2**53 + 1)),
    (float("nan"), "null"),
    (b"a", '"a"'),
    ([1], "[1, 1]"),
    ([1, 2], "[2, 1]"),
    ({"a": 1}, "{}"),
    ({"a": 1}, '{"a": 1, "b": 1}'),
    ({"a": 1}, '{"a": 1.0}'),
    ({}, "[]"),
    (msgpack.ExtType(1, b""), '""'),
]


@pytest.mark.parametrize(("source", "target"), DIFFERENT)
def test_values_of_other_types_are_not_the_same(source: Any, target: str) -> None:
    """Numbers, booleans and texts are told apart, as LangGraph would."""
    assert not same(source, strict_json(target))


def test_numbers_that_python_refuses_are_still_compared() -> None:
    """Whole numbers of 5,000 digits are compared exactly."""
    digits = "7" * 5_000
    assert same(strict_json(digits), strict_json(digits))
    assert not same(strict_json(digits), strict_json(digits[:-1] + "8"))


class Canary:
    """Tells whether it was revived."""

    sang = False

    def __reduce__(self) -> Any:
        return (Canary._sing, ())

    @staticmethod
    def _sing() -> Any:
        Canary.sang = True
        return Canary()


def pickled(values: dict[str, Any]) -> CheckpointRow:
    data = pickle.dumps({"v": 4, "channel_values": values, "versions_seen": defaultdict(dict)})
    return CheckpointRow("t", "", "1", None, "pickle", data, b"{}")


def test_pickle_is_revived_only_where_it_is_allowed() -> None:
    """Without leave of the user no pickle runs, whatever it holds."""
    Canary.sang = False
    with pytest.raises(Unreadable):
        Opener(None).open(pickled({"a": Canary()}))
    assert not Canary.sang
    Opener(None, allow_pickle=True).open(pickled({"a": Canary()}))
    assert Canary.sang


def test_pickled_values_are_equal_if_what_they_revive_to_is() -> None:
    """A set, which has no order, equals its like; another value, type or a broken pickle does not."""
    checkpoint = Opener(None, allow_pickle=True).open(
        pickled({"s": {"x", "y"}, "t": True, "n": 1, "c": Canary()})
    )
    assert checkpoint.fields == {"v": 4, "versions_seen": {}}
    assert type(checkpoint.fields["versions_seen"]) is dict
    spans = checkpoint.spans
    for protocol in (2, 4, 5):
        assert checkpoint.holds(spans["s"], pickle.dumps({"y", "x"}, protocol))
        assert checkpoint.holds(spans["n"], pickle.dumps(1, protocol))
        assert not checkpoint.holds(spans["n"], pickle.dumps(1.0, protocol))
        assert not checkpoint.holds(spans["s"], pickle.dumps(["x", "y"], protocol))
    assert not checkpoint.holds(spans["n"], b"broken")
    assert [c for c, span in spans.items() if checkpoint.is_true(span)] == ["t"]
    assert not any(checkpoint.is_snapshot(span) for span in spans.values())


@pytest.mark.parametrize(
    "data", [b"", b"broken", pickle.dumps([1]), pickle.dumps({"channel_values": 1})]
)
def test_what_does_not_revive_is_unreadable(data: bytes) -> None:
    """A pickle that is no checkpoint ends in an error of ours."""
    with pytest.raises(Unreadable):
        Opener(None, allow_pickle=True).open(
            CheckpointRow("t", "", "1", None, "pickle", data, b"{}")
        )
