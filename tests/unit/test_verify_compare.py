"""The rules of the oracle, each on its own: versions, envelopes, values, metadata, writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.checkpoint_migration.model import CheckpointRow, WriteRow
from include.checkpoint_migration.verify.compare import (
    Blob,
    Finding,
    Pair,
    compare_checkpoint,
    compare_write,
    parse_envelope,
    write_key,
)
from include.checkpoint_migration.verify.metadata import by_value, metadata_differs, sanitised
from include.checkpoint_migration.verify.opener import Opener
from include.checkpoint_migration.verify.rules import expected_envelope, version_allowed
from include.checkpoint_migration.verify.source_checkpoint import Unreadable

V1 = f"{1:032}.0.25"
PADDED = f"{7:032}.{0.0:016}"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
VALUES = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.floats(), TEXT, st.binary())


def pack(value: Any) -> bytes:
    packed = msgpack.packb(value)
    assert isinstance(packed, bytes)
    return packed


def findings(
    source: dict[str, Any], target: dict[str, Any], blobs: dict[tuple[str, str], bytes]
) -> list[Finding]:
    row = CheckpointRow("t", "", "1", None, "msgpack", pack(source), b"{}")
    opened = Opener(None).open(row)
    envelope = parse_envelope(json.dumps(target))
    found = dict.fromkeys(envelope.blob_keys()) | {
        key: Blob("msgpack", blob) for key, blob in blobs.items()
    }
    pair = Pair(opened, expected_envelope(opened), envelope, found, lambda _, data: data)
    return list(compare_checkpoint(pair))


@given(st.dictionaries(TEXT, VALUES, max_size=5), st.dictionaries(TEXT, TEXT, max_size=3))
def test_rebuilt_values_equal_the_source_and_any_changed_one_does_not(
    values: dict[str, Any], absent: dict[str, str]
) -> None:
    """From blobs and inline values alone the source's map is found again, and nothing but it."""
    versions = {**absent, **dict.fromkeys(values, V1)}
    envelope = {"v": 4, "channel_versions": versions, "versions_seen": {"node": versions}}
    inline = {channel: True for channel, value in values.items() if value is True}
    blobs = {(c, V1): pack(value) for c, value in values.items() if value is not True}
    target = {**envelope, "channel_values": inline}
    source = {**envelope, "channel_values": values}
    assert findings(source, target, blobs) == []
    for key, blob in blobs.items():
        assert findings(source, target, {**blobs, key: blob + b"\xc0"})
        assert findings(source, target, {k: other for k, other in blobs.items() if k != key})
    for channel in inline:
        assert findings(source, {**target, "channel_values": {}}, blobs)
        assert findings(source, target, {**blobs, (channel, V1): b"\xc3"})
    for channel in absent.keys() - values.keys():
        assert findings(source, target, {**blobs, (channel, absent[channel]): b"\xc0"})


@pytest.mark.parametrize(
    ("source", "target", "right"),
    [
        (V1, V1, True),
        (V1, V1 + ".123", True),
        (V1, V1 + ".00000000000000000000", True),
        (V1, V1 + ".", False),
        (V1, V1 + "123", False),
        (V1, V1 + ".12a", False),
        (V1, V1 + ".1.2", False),
        (V1, V1 + ".-1", False),
        (V1, V1 + ".١", False),
        (V1, V1[:-1], False),
        (V1, "x" + V1, False),
        (V1, None, False),
        ("3", "3.5", True),
        ("3", 3, False),
        (7, PADDED, True),
        (7, PADDED + ".5", True),
        (7, "7", False),
        (7, "7.5", False),
        (7, f"{7:032}", False),
        (7, f"{8:032}.{0.0:016}", False),
        (None, None, True),
        (True, 1, False),
        (1.5, "1.5", False),
    ],
)
def test_versions_stay_or_are_renamed_as_documented(source: Any, target: Any, right: bool) -> None:
    """A version is the source's, or that with a dot and digits; integers are padded."""
    assert version_allowed(source, target) is right


def minimal(**fields: Any) -> dict[str, Any]:
    return {"v": 4, "channel_values": {}, "channel_versions": {}, "versions_seen": {}, **fields}


@pytest.mark.parametrize(
    ("source", "target", "right"),
    [
        ({}, {}, True),
        ({"v": 3}, {"v": 4}, True),
        ({"v": 3}, {"v": 3}, False),
        ({"v": 4}, {"v": 3}, False),
        ({"v": 3, "pending_sends": []}, {"v": 4}, True),
        ({"v": 3, "pending_sends": []}, {"v": 4, "pending_sends": []}, True),
        ({"v": 3, "pending_sends": []}, {"v": 4, "pending_sends": [1]}, False),
        ({"v": 4}, {"v": 4, "pending_sends": []}, False),
        ({"v": 5}, {"v": 5}, True),
        ({"updated_channels": None}, {"updated_channels": None}, True),
        ({"updated_channels": None}, {}, False),
        ({"new": {"a": [1.5]}}, {"new": {"a": [1.5]}}, True),
        ({"new": {"a": [1.0]}}, {"new": {"a": [1]}}, False),
        ({"new": 1}, {}, False),
        ({}, {"new": None}, False),
    ],
)
def test_envelopes_are_equal_field_by_field(
    source: dict[str, Any], target: dict[str, Any], right: bool
) -> None:
    """Every field is there with its type, unknown ones too; v 3 became 4."""
    assert (findings(minimal(**source), minimal(**target), {}) == []) is right


@pytest.mark.parametrize(
    "source",
    [
        {"v": 2},
        {"v": "4"},
        {"v": True},
        {"v": 4, "pending_sends": [1]},
        {"v": 3, "pending_sends": [1]},
        {"channel_versions": []},
        {"versions_seen": {"a": 1}},
    ],
)
def test_envelopes_without_a_rule_are_unproven(source: dict[str, Any]) -> None:
    """What no rule covers is not called equal."""
    row = CheckpointRow("t", "", "1", None, "msgpack", pack(minimal(**source)), b"{}")
    with pytest.raises(Unreadable):
        expected_envelope(Opener(None).open(row))


def test_pending_sends_become_the_channel_of_tasks() -> None:
    """What a checkpoint of v 3 carries stands at the greatest version, byte for byte."""
    sends = [{"node": "a"}, {"node": "b"}]
    versions = {"x": "2", "y": "10", "z": "1"}
    source = minimal(v=3, channel_versions=versions, pending_sends=sends)
    right = minimal(channel_versions={**versions, "__pregel_tasks": "2"})
    blob = {("__pregel_tasks", "2"): pack(sends)}
    assert findings(source, right, blob) == []
    assert findings(source, right, {("__pregel_tasks", "2"): pack(sends[::-1])})
    assert findings(source, right, {})
    assert findings(source, minimal(channel_versions=versions), {})
    low = minimal(channel_versions={**versions, "__pregel_tasks": "10"})
    assert findings(source, low, {("__pregel_tasks", "10"): pack(sends)})


EQUAL: list[tuple[str, str]] = [
    ('{"a": 1, "b": [2]}', '{"b": [2], "a": 1}'),
    ("1e20", "100000000000000000000"),
    ("-0.0", "0.0"),
    ("1.0", "1"),
    ("1.50", "1.5"),
    ('"\\u00e9"', '"é"'),
    ('"\\ud83d\\ude00"', '"😀"'),
    ('{"a": 1, "a": 2}', '{"a": 2}'),
]


@pytest.mark.parametrize(("source", "target"), EQUAL)
def test_metadata_is_equal_by_value(source: str, target: str) -> None:
    """JSONB keeps values and not how they are written; order, 1e20 and -0.0 are no difference."""
    assert metadata_differs(source.encode(), target, None) is None


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("1", "true"),
        ("true", "1"),
        ("1", '"1"'),
        ("0.1", "0.10000000000000001"),
        ("null", "{}"),
        ("[1]", "[[1]]"),
        ("NaN", "null"),
        ("Infinity", '"Infinity"'),
        ('"\\ud800"', '"?"'),
        ("{", "{}"),
        ("\xff", "{}"),
        ("[" * 100_000 + "]" * 100_000, "[]"),
        ("1e999999999999999999999", "0"),
    ],
)
def test_metadata_of_another_value_differs(source: str, target: str) -> None:
    """Other values, unreadable ones and bombs are differences that show no value."""
    why = metadata_differs(source.encode("latin-1"), target, None)
    assert why
    assert source not in why


def test_metadata_that_was_null_is_empty() -> None:
    """NULL in an old row is the empty object in PostgreSQL."""
    assert metadata_differs(None, "{}", None) is None
    assert metadata_differs(None, "null", None)


@given(
    st.recursive(
        TEXT | st.booleans(), lambda i: st.lists(i) | st.dictionaries(TEXT, i), max_leaves=4
    )
)
def test_metadata_without_blockers_is_sanitised_to_itself(value: Any) -> None:
    """Sanitising changes what PostgreSQL refuses, and nothing else."""
    clean = json.loads(json.dumps(value).replace("\\u0000", ""))
    assert sanitised(by_value(json.dumps(clean))) == by_value(json.dumps(clean))


WRITE = WriteRow("t", "", "1", "task", "~path", 3, "channel", "msgpack", b"\x01")


@pytest.mark.parametrize(
    ("column", "value"),
    [("task_path", ""), ("channel", "other"), ("type", None), ("type", "json"), ("value", b"")],
)
def test_writes_differ_by_each_column(column: str, value: Any) -> None:
    """Every column of a pending write counts."""
    assert list(compare_write(WRITE, tuple(WRITE))) == []
    [found] = compare_write(WRITE, tuple(WRITE._replace(**{column: value})))
    assert found.column == ("blob" if column == "value" else column)


def test_text_values_of_writes_are_their_bytes() -> None:
    """A value that SQLite holds as TEXT is its UTF-8; one that is NULL equals nothing."""
    text = WRITE._replace(value="é")
    assert list(compare_write(text, tuple(WRITE._replace(value="é".encode())))) == []
    assert list(compare_write(WRITE._replace(value=None), tuple(WRITE)))


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row._replace(thread_id=b"t"),
        lambda row: row._replace(task_id=b"task\xff"),
        lambda row: row._replace(idx="3"),
        lambda row: row._replace(idx=None),
        lambda row: row._replace(idx=3.0),
    ],
)
def test_keys_that_are_no_text_equal_no_row(change: Callable[[WriteRow], WriteRow]) -> None:
    """An id that is a BLOB or broken, or an `idx` that is no integer, has no row in PostgreSQL."""
    assert write_key(change(WRITE)) != write_key(WRITE)
    assert sorted([write_key(WRITE), write_key(change(WRITE))])
