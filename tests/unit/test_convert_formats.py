"""Checkpoints are cut at the right bytes, and nothing in them is brought to life."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ormsgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Send

from include.checkpoint_migration.convert.formats import (
    TRUE,
    NotSplittable,
    is_delta_snapshot,
    plain_value,
    split_json,
    split_msgpack,
)
from include.checkpoint_migration.convert.nesting import LIMIT
from tests.support.values import KINDS, texts, values

serde = JsonPlusSerializer()


def packed(value: Any) -> bytes:
    kind, data = serde.dumps_typed([value])  # in a list, so that None and bytes are msgpack too
    assert kind == "msgpack"
    return data[1:]


def checkpoint(channel_values: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "v": 4,
        "ts": "2025-03-04T05:06:07.000008+00:00",
        "id": "1",
        "channel_values": channel_values,
        "channel_versions": dict.fromkeys(channel_values, "1.0"),
        "versions_seen": {"__input__": {}},
        "updated_channels": None,
        **more,
    }


@pytest.mark.parametrize("value", KINDS, ids=lambda value: f"{type(value).__name__}")
def test_slice_is_what_the_serializer_writes_for_the_value_alone(value: Any) -> None:
    """A channel's slice is byte for byte what `JsonPlusSerializer` gives for that value."""
    blob = serde.dumps_typed(checkpoint({"before": [1], "it": value, "after": "x"}))[1]
    split = split_msgpack(blob)
    assert split.values["it"] == packed(value)
    assert split.value_type == "msgpack"
    assert list(split.values) == ["before", "it", "after"]


@given(st.dictionaries(texts, values, max_size=5))
def test_slices_and_envelope_are_the_whole_checkpoint(channel_values: dict[str, Any]) -> None:
    """Nothing is lost, added or reordered by the cut, whatever the channels are called."""
    whole = checkpoint(channel_values)
    split = split_msgpack(serde.dumps_typed(whole)[1])
    assert {name: packed(value) for name, value in channel_values.items()} == split.values
    assert list(split.values) == list(channel_values)
    assert {**split.envelope, "channel_values": channel_values} == whole


@given(
    st.dictionaries(texts, values, max_size=3),
    st.permutations(list(checkpoint({}))),
    st.sampled_from([{}, {"updated_channels": ["a"]}, {"versions_seen": {"n": {"a": "1.0"}}}]),
)
def test_read_in_one_go_it_is_what_it_is_key_by_key(
    channel_values: dict[str, Any], order: list[str], more: dict[str, Any]
) -> None:
    """One key that today's releases do not write, and a checkpoint is read in the other way."""
    whole = {**checkpoint(channel_values), **more}
    blob = serde.dumps_typed({key: whole[key] for key in order})[1]
    other = serde.dumps_typed({**{key: whole[key] for key in order}, "unknown": 1})[1]
    at_once, by_keys = split_msgpack(blob), split_msgpack(other)
    assert (at_once.typed, by_keys.typed) == (True, False)
    assert by_keys.envelope.pop("unknown") == 1
    assert at_once._replace(typed=False) == by_keys


@pytest.mark.parametrize(
    "change",
    [
        *({"v": v} for v in (3, 4.0, "4", True)),
        *(
            {"ts": 1},
            {"id": None},
            {"channel_versions": {"a": 1}},
            {"versions_seen": {"n": {"a": 1.0}}},
        ),
        *({"updated_channels": [1]}, {"pending_sends": []}),
    ],
    ids=str,
)
def test_another_type_anywhere_in_the_envelope_is_seen(change: dict[str, Any]) -> None:
    """It is not taken for what today's releases write, and keeps its type."""
    split = split_msgpack(serde.dumps_typed(checkpoint({}, **change))[1])
    assert not split.typed
    for key, value in change.items():
        assert (split.envelope[key], type(split.envelope[key])) == (value, type(value))


@pytest.mark.parametrize(
    "beside", [[], ["x" * 2_000], [["x"] * 100] * 20], ids=["alone", "long", "many"]
)
def test_depth_is_counted_from_the_checkpoint_on(beside: list[Any]) -> None:
    """The two maps around a channel's value are levels too."""
    for levels, is_split in ((LIMIT - 2, True), (LIMIT - 1, False)):
        value = b"\x91" * (levels - 1) + b"\xc0"
        whole = serde.dumps_typed(checkpoint({"c": [*beside, "HERE"]}))[1]
        blob = whole.replace(packed("HERE"), value)
        if is_split:
            assert split_msgpack(blob).values["c"].endswith(value)
        else:
            with pytest.raises(NotSplittable, match="nested"):
                split_msgpack(blob)


def test_classes_that_a_value_names_are_not_looked_up(tmp_path: Path) -> None:
    """An ext that would run a command when it is revived is cut out like any other bytes."""
    canary = tmp_path / "canary"
    call = ormsgpack.packb(["os", "system", f"touch {canary}"])
    ext = ormsgpack.packb(ormsgpack.Ext(0, call))
    blob = ormsgpack.packb(
        {"v": 4, "channel_values": {"c": ormsgpack.Ext(0, call)}, "channel_versions": {}}
    )
    split = split_msgpack(blob)
    assert split.values["c"] == ext
    plain_value("msgpack", split.values["c"])
    assert not canary.exists()


def test_pending_sends_are_slices_too() -> None:
    """Sends of older checkpoints come as they are, one by one, and the envelope holds none."""
    sends = [Send("w", {"item": 1}), Send("w", {"item": 2})]
    for split, write in (
        (split_msgpack(serde.dumps_typed(checkpoint({}, v=1, pending_sends=sends))[1]), packed),
        (split_json(b'{"channel_values": {}, "pending_sends": [ {"a": 1.0} ,2]}'), None),
    ):
        assert split.envelope["pending_sends"] == []
        if write is not None:
            assert split.sends == tuple(write(send) for send in sends)
            assert split.sends_list == write(sends)
        else:
            assert split.sends == (b'{"a": 1.0}', b"2")
            assert split.sends_list == b'[ {"a": 1.0} ,2]'


@pytest.mark.parametrize("split", [split_msgpack, split_json])
@given(st.binary(max_size=60))
def test_garbage_is_refused_by_name(split: Any, blob: bytes) -> None:
    """Bytes that are no checkpoint raise `NotSplittable` and nothing else."""
    try:
        split(blob)
    except NotSplittable as error:
        assert str(error)


@pytest.mark.parametrize("cut", range(1, 120, 7))
def test_cut_checkpoint_is_refused(cut: int) -> None:
    """A checkpoint whose last bytes are missing, or that something follows, is refused."""
    blob = serde.dumps_typed(checkpoint({"a": {"deep": [1, "x" * 40]}}))[1]
    for broken in (blob[:-cut], blob + b"\xc0" * cut):
        with pytest.raises(NotSplittable):
            split_msgpack(broken)


@pytest.mark.parametrize(
    ("split", "blob"),
    [
        (split_msgpack, b"\x81\xa1x" + b"\x91" * 100_000 + b"\xc0"),
        (split_json, b'{"channel_values": {"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}"),
        (split_json, b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    ],
)
def test_deep_nesting_is_refused_by_name(split: Any, blob: bytes) -> None:
    """What no saver could read because it is nested too deep is no crash."""
    with pytest.raises(NotSplittable, match="nested"):
        split(blob)


json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=8),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
spaces = st.sampled_from(["", " ", "\n\t", "\r\n  "])


@given(st.dictionaries(st.text(max_size=6), json_values, max_size=5), spaces, st.booleans())
def test_json_slices_are_the_texts_of_the_values(
    channel_values: dict[str, Any], space: str, ascii_only: bool
) -> None:
    """JSON is cut by position: `1.0`, `1e5`, `NaN`, escapes and white space stay as they are."""
    if not ascii_only:
        channel_values = {
            k: v
            for k, v in channel_values.items()
            if _encodable(json.dumps([k, v], ensure_ascii=False))
        }

    def dumped(value: Any) -> str:
        return json.dumps(value, ensure_ascii=ascii_only, separators=(f"{space},", f":{space}"))

    members = f"{space},{space}".join(
        f"{dumped(k)}{space}:{space}{dumped(v)}" for k, v in channel_values.items()
    )
    text = f'{space}{{"v": 4,{space}"channel_values":{space}{{{space}{members}{space}}}{space}}}{space}'
    split = split_json(text.encode())
    assert split.values == {k: dumped(v).encode() for k, v in channel_values.items()}
    assert split.envelope == {"v": 4}
    assert split.value_type == "json"


def _encodable(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1,}',
        '{"a" 1}',
        '{"a": 1 "b": 2}',
        '{"a": 1} x',
        "{a: 1}",
        "[1]",
        '{"a": }',
        '{"a": 1',
    ],
)
def test_text_that_is_no_json_object_is_refused(text: str) -> None:
    """What Python's own reader refuses is refused, and what is no object."""
    with pytest.raises(NotSplittable):
        split_json(text.encode())


def test_only_exactly_true_is_true() -> None:
    """1, "true", [True] and True in another type's spelling are not."""
    assert TRUE["msgpack"] == packed(True)
    assert TRUE["json"] == b"true"
    others = [value for value in KINDS if value is not True]
    assert TRUE["msgpack"] not in map(packed, (*others, [True], "true"))
    assert TRUE["json"] not in (b"1", b'"true"', b"[true]", b"\xc3", b"false")


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 250, 300, 65_000, 70_000])
def test_delta_snapshot_is_known_by_its_header(size: int) -> None:
    """`_DeltaSnapshot` is told from every other value, at every size that msgpack spells anew."""
    snapshot = packed(_DeltaSnapshot("x" * size))
    assert snapshot[0] in range(0xC7, 0xCA) or snapshot[0] in range(0xD4, 0xD9)
    assert is_delta_snapshot("msgpack", snapshot)
    assert not is_delta_snapshot("json", snapshot)
    assert not is_delta_snapshot("msgpack", packed([_DeltaSnapshot("x" * size)]))
    assert not is_delta_snapshot("msgpack", packed({"x" * size}))


def test_no_other_value_is_a_delta_snapshot() -> None:
    """Nor are the empty slice, and texts and numbers that begin with the same bytes."""
    assert not any(is_delta_snapshot("msgpack", packed(value)) for value in KINDS)
    assert not is_delta_snapshot("msgpack", b"")
