"""Source rows become target rows: blobs for values, JSON for the envelope, and a reason if not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from include.checkpoint_migration.convert.blockers import Problem, Unconvertible, key_problems
from include.checkpoint_migration.convert.formats import SPLITTERS, Split
from include.checkpoint_migration.convert.metadata import convert_metadata
from include.checkpoint_migration.convert.rows import (
    Resolve,
    convert_checkpoint,
    take_apart,
)
from include.checkpoint_migration.convert.writes import convert_write
from include.checkpoint_migration.model import CheckpointRow, TargetBlob, WriteRow
from tests.support.values import texts, values

serde = JsonPlusSerializer()
NO_NUL = texts.filter(lambda text: "\0" not in text and "\\" not in text)


def packed(value: Any) -> bytes:
    return serde.dumps_typed([value])[1][1:]


def checkpoint(channel_values: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "v": 4,
        "ts": "2025-03-04T05:06:07.000008+00:00",
        "id": "1",
        "channel_values": channel_values,
        "channel_versions": {name: f"{n}.5" for n, name in enumerate(channel_values, 1)},
        "versions_seen": {"__input__": {}},
        "updated_channels": None,
        **more,
    }


def a_row(whole: Any, kind: Any = "msgpack", **more: Any) -> CheckpointRow:
    blob = serde.dumps_typed(whole)[1] if isinstance(whole, dict) else whole
    return CheckpointRow("t", "", "1", None, kind, blob, b"{}")._replace(**more)


def taken_apart(row: CheckpointRow) -> Split:
    return take_apart(row, SPLITTERS, lambda value_type: (), dict)


def keep(channel: str, version: str, raw: bytes | None) -> tuple[str, bool]:
    return version, True


def converted(
    whole: dict[str, Any], resolve: Resolve = keep
) -> tuple[dict[str, Any], list[TargetBlob]]:
    text, blobs = convert_checkpoint(taken_apart(a_row(whole)), resolve)
    return json.loads(text), blobs


def problems_of(call: Any) -> list[Problem]:
    with pytest.raises(Unconvertible) as caught:
        call()
    return list(caught.value.problems)


# --- channels -----------------------------------------------------------------------------------


@given(st.dictionaries(NO_NUL, values, max_size=6))
def test_every_value_but_true_is_a_blob_of_its_own_bytes(channel_values: dict[str, Any]) -> None:
    """No value lies inline, primitives included, except exactly `True`, which has no blob."""
    whole = checkpoint(channel_values)
    envelope, blobs = converted(whole)
    true = {name for name, value in channel_values.items() if value is True}
    assert envelope["channel_values"] == dict.fromkeys(true, True)
    assert blobs == [
        TargetBlob(name, whole["channel_versions"][name], "msgpack", packed(value))
        for name, value in channel_values.items()
        if name not in true
    ]
    assert envelope == {**whole, "channel_values": envelope["channel_values"]}


def test_true_in_other_clothes_is_a_blob() -> None:
    """1, 1.0, "true" and [True] are values like any other."""
    envelope, blobs = converted(checkpoint({"a": 1, "b": 1.0, "c": "true", "d": [True], "e": True}))
    assert envelope["channel_values"] == {"e": True}
    assert [blob.channel for blob in blobs] == ["a", "b", "c", "d"]


def test_delta_snapshot_has_a_marker_and_its_blob() -> None:
    """A `_DeltaSnapshot` is marked inline as the saver marks it, and is a blob too."""
    snapshot = _DeltaSnapshot([1, "x"])
    envelope, blobs = converted(checkpoint({"items": snapshot, "n": 1}))
    assert envelope["channel_values"] == {"items": True}
    assert blobs[0] == TargetBlob("items", "1.5", "msgpack", packed(snapshot))


def test_channel_without_a_value_has_no_blob_and_keeps_its_version() -> None:
    """A version whose channel is absent from the values stays, asked for as a state of its own."""
    asked: list[tuple[str, str, bytes | None]] = []

    def resolve(channel: str, version: str, raw: bytes | None) -> tuple[str, bool]:
        asked.append((channel, version, raw))
        return version, True

    whole = checkpoint({"a": 1, "yes": True})
    whole["channel_versions"] |= {"gone": "9.5"}
    envelope, blobs = converted(whole, resolve)
    assert asked == [("a", "1.5", b"\x01"), ("yes", "2.5", None), ("gone", "9.5", None)]
    assert envelope["channel_versions"]["gone"] == "9.5"
    assert [blob.channel for blob in blobs] == ["a"]


def test_blob_that_an_earlier_row_brought_is_not_brought_again() -> None:
    """The row says only which version it has."""
    envelope, blobs = converted(checkpoint({"a": [1], "b": [2]}), lambda c, v, raw: (v, c == "b"))
    assert [blob.channel for blob in blobs] == ["b"]
    assert envelope["channel_versions"] == {"a": "1.5", "b": "2.5"}


def test_new_version_is_written_wherever_the_old_one_stands() -> None:
    """A renamed version is renamed in `channel_versions` and in each node that saw just that one."""
    whole = checkpoint(
        {"a": [1], "b": [2]},
        versions_seen={
            "saw it": {"a": "1.5", "b": "2.5"},
            "saw an older one": {"a": "0.5"},
            "saw the number of another channel": {"b": "1.5"},
            "saw nothing": {},
        },
    )
    envelope, blobs = converted(
        whole, lambda channel, version, raw: (f"{version}.77" if channel == "a" else version, True)
    )
    assert envelope["channel_versions"] == {"a": "1.5.77", "b": "2.5"}
    assert envelope["versions_seen"] == {
        **whole["versions_seen"],
        "saw it": {"a": "1.5.77", "b": "2.5"},
    }
    assert [(blob.channel, blob.version) for blob in blobs] == [("a", "1.5.77"), ("b", "2.5")]


def test_integer_versions_become_texts_that_count_on() -> None:
    """Versions of Python's earliest releases are padded everywhere, or nothing would be newer."""
    whole = checkpoint(
        {"a": [1]}, channel_versions={"a": 9}, versions_seen={"n": {"a": 8, "gone": 10}}
    )
    envelope, blobs = converted(whole)
    padded = {n: f"{n:032}.{0.0:016}" for n in (8, 9, 10)}
    assert envelope["channel_versions"] == {"a": padded[9]}
    assert envelope["versions_seen"] == {"n": {"a": padded[8], "gone": padded[10]}}
    assert blobs[0].version == padded[9]
    assert padded[8] < padded[9] < padded[10]


@pytest.mark.parametrize("value", [None, True, False, 1, 2.5, "x", [1, {"a": None}], {"b": [2.5]}])
def test_plain_value_without_a_version_stays_inline(value: Any) -> None:
    """No version is made up: every node that listens to the channel would look triggered."""
    envelope, blobs = converted(checkpoint({"loose": value}, channel_versions={}))
    assert envelope["channel_values"] == {"loose": value}
    assert type(envelope["channel_values"]["loose"]) is type(value)
    assert envelope["channel_versions"] == {}
    assert blobs == []


@pytest.mark.parametrize(
    "value", [-0.0, 1e20, float("nan"), "a\0", b"x", {1: 2}, {1, 2}, _DeltaSnapshot([1])]
)
def test_value_without_a_version_that_json_changes_is_refused(value: Any) -> None:
    """There is no place for it: a blob cannot be reached without a version."""
    (problem,) = problems_of(lambda: converted(checkpoint({"x": [value]}, channel_versions={})))
    assert problem.column == "checkpoint"


def test_sealed_values_are_blobs_of_the_sealed_type() -> None:
    """Of a checkpoint that came encrypted, each blob is sealed, and nothing lies in clear."""
    split = taken_apart(a_row(checkpoint({"a": "secret", "b": True})))
    text, blobs = convert_checkpoint(split, keep, lambda c, v, raw: f"{c} {v} ".encode() + raw)
    assert blobs == [TargetBlob("a", "1.5", "msgpack+aes", b"a 1.5 " + packed("secret"))]
    assert b"secret" not in text
    loose = taken_apart(a_row(checkpoint({"a": "secret"}, channel_versions={})))
    (problem,) = problems_of(lambda: convert_checkpoint(loose, keep, lambda c, v, raw: raw))
    assert "in clear" in problem.why


# --- what has no place --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "column", "why"),
    [
        (a_row({}, kind=None), "type", "NULL"),
        (a_row({}, kind="pickle"), "type", "allow_pickle"),
        (a_row({}, kind="msgpack+rot13"), "type", "cipher"),
        (a_row({}, kind="yaml"), "type", "not known"),
        (a_row({}, kind=b"msg\xff"), "type", "not known"),
        (a_row(None), "checkpoint", "NULL"),
        (a_row(b"\xc1"), "checkpoint", "no msgpack map"),
        (a_row(b"not json", kind="json"), "checkpoint", "no JSON object"),
        (a_row(checkpoint({}, v=5)), "checkpoint", "newer"),
        (a_row(checkpoint({}, v=True)), "checkpoint", "whole number"),
        (a_row(checkpoint({}, v="4")), "checkpoint", "whole number"),
        (a_row(checkpoint({}, pending_sends=[1])), "checkpoint", "pending_sends"),
        (a_row(checkpoint({}, channel_versions=[])), "checkpoint", "no channel_versions"),
        (a_row(checkpoint({}, channel_versions={"a": 1.5})), "checkpoint", "neither text nor"),
        (a_row(checkpoint({}, channel_versions={"a": None})), "checkpoint", "neither text nor"),
        (a_row(checkpoint({}, channel_versions={"a": True})), "checkpoint", "neither text nor"),
        (a_row(checkpoint({}, channel_versions={1: "1"})), "checkpoint", "name is no text"),
        (a_row(checkpoint({}, versions_seen={"n": []})), "checkpoint", "no map of maps"),
        (a_row(checkpoint({}, versions_seen={1: {}})), "checkpoint", "name is no text"),
        (a_row(checkpoint({}, versions_seen={True: {}})), "checkpoint", "name is no text"),
        *(
            (a_row(json.dumps(whole).encode(), kind="json"), "checkpoint", "a lone surrogate")
            for whole in (
                checkpoint({"\ud800": 1}),
                checkpoint({}, channel_versions={"a": "\ud800"}),
                checkpoint({}, versions_seen={"\ud800": {}}),
                checkpoint({}, versions_seen={"n": {"a": "1", "\udfff": "1"}}),
                {**checkpoint({}), "channel_values": {"\ud800": 1}},
                checkpoint({}, ts="\ud800"),
            )
        ),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_row_that_cannot_be_taken_apart_says_why(row: CheckpointRow, column: str, why: str) -> None:
    """Each such row names its column and its reason, and is never guessed at."""
    (problem,) = problems_of(lambda: taken_apart(row))
    assert problem.column == column
    assert why in problem.why


@pytest.mark.parametrize(
    ("whole", "why"),
    [
        (checkpoint({"a\0": [1]}), "NUL"),
        (checkpoint({"a\0": True}), "JSONB would change"),
        (checkpoint({"a\\b": [1]}), "backslash"),
        (checkpoint({"a": [1]}, versions_seen={"no\0de": {}}), "NUL"),
        (checkpoint({"a": [1]}, id="1\0"), "JSONB would change"),
        (checkpoint({"a": [1]}, ts=float("nan")), "JSONB would change"),
        (checkpoint({"a": [1]}, updated_channels=[b"x"]), "JSONB would change"),
    ],
    ids=str,
)
def test_checkpoint_that_a_text_column_or_jsonb_refuses_says_why(
    whole: dict[str, Any], why: str
) -> None:
    """What the server or the reader would stumble over is found before."""
    found = problems_of(lambda: converted(whole))
    assert any(why in problem.why for problem in found)
    assert {problem.column for problem in found} == {"checkpoint"}


def test_all_problems_of_a_checkpoint_are_told_at_once() -> None:
    """Nobody has to run again and again to see the next one."""
    whole = checkpoint({"a\0": [1], "b\\": [2], "loose": b"x"})
    del whole["channel_versions"]["loose"]
    found = problems_of(lambda: converted(whole))
    told = " ".join(problem.why for problem in found)
    assert all(word in told for word in ("NUL", "backslash", "without a version"))


def test_reasons_show_no_value() -> None:
    """A reason can go into a report that people pass on."""
    secret = "sesame"
    whole = checkpoint({f"{secret}\0": [secret], "loose": secret.encode()}, id=f"{secret}\0")
    del whole["channel_versions"]["loose"]
    found = problems_of(lambda: converted(whole))
    found += problems_of(lambda: convert_metadata(f'"{secret}\\u0000"'))
    found += problems_of(
        lambda: convert_write(a_write(task_id=f"{secret}\0", channel=f"{secret}\\"))
    )
    assert len(found) >= 5
    assert not any(secret in problem.why for problem in found)


def test_keys_of_texts_that_postgresql_refuses_are_named() -> None:
    """NUL and broken UTF-8 in each of a key's columns, the parent's too."""
    assert key_problems(a_row({})) == []
    bad = a_row({})._replace(
        thread_id="t\0", checkpoint_ns=b"\xff", checkpoint_id="\0", parent_checkpoint_id=b"\xfe"
    )
    assert [problem.column for problem in key_problems(bad)] == [
        "thread_id",
        "checkpoint_ns",
        "checkpoint_id",
        "parent_checkpoint_id",
    ]
    assert key_problems(a_row({})._replace(thread_id="back\\slash ☃ \n'")) == []


# --- metadata -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (None, b"{}"),
        (b"{}", b"{}"),
        ('{"a": 1e20, "b": "é\\n"}', '{"a": 1e20, "b": "é\\n"}'.encode()),
        (b'{\n "a": [\r\n1]}\n', b'{  "a": [  1]} '),
    ],
)
def test_metadata_is_the_source_text_on_one_line(source: str | bytes | None, target: bytes) -> None:
    """Numbers and escapes are not written anew; only white space may change, and NULL."""
    assert convert_metadata(source) == (target, None)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | texts.filter(lambda t: "\0" not in t),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NO_NUL, inner, max_size=3),
        max_leaves=6,
    ),
    st.sampled_from([None, 0, 2]),
    st.booleans(),
)
def test_metadata_keeps_its_content(value: Any, indent: int | None, ascii_only: bool) -> None:
    """However it was spelled, it is the same JSON on one line."""
    text, original = convert_metadata(json.dumps(value, indent=indent, ensure_ascii=ascii_only))
    assert json.loads(text) == value
    assert b"\n" not in text
    assert original is None


REFUSED = '{"a\\u0000b": [NaN, -Infinity, "x\\ud800y", "\\u0000"], "kept": [1e20, "é"]}'


def test_refused_metadata_is_a_problem_or_sanitised_at_choice() -> None:
    """By default it is refused; `sanitize` gives JSON that is accepted, and says what was wrong."""
    (problem,) = problems_of(lambda: convert_metadata(REFUSED))
    assert problem.column == "metadata"
    text, refused = convert_metadata(REFUSED, sanitize=True)
    assert json.loads(text) == {"ab": [None, None, "x\ufffdy", ""], "kept": [1e20, "é"]}
    assert refused == problem.why
    assert convert_metadata(b"{}", sanitize=True) == (b"{}", None)
    (problem,) = problems_of(lambda: convert_metadata(b"no json", sanitize=True))
    assert problem.column == "metadata"


# --- pending writes -----------------------------------------------------------------------------


def a_write(**more: Any) -> WriteRow:
    row = WriteRow("t", "", "1", "task", "~pull", 0, "channel", "msgpack", b"\xc0")
    return row._replace(**more)


@given(
    NO_NUL,
    texts.filter(lambda text: "\0" not in text),
    st.integers(-(2**31), 2**31 - 1),
    NO_NUL,
    st.sampled_from(["msgpack", "null", "bytes", "json", "pickle", "msgpack+aes", "whatever"]),
    st.binary(max_size=30),
)
def test_write_is_the_same_bytes_under_the_same_type(
    task: str, path: str, idx: int, channel: str, kind: str, value: bytes
) -> None:
    """A pending write is copied unopened, whatever its type."""
    row = a_write(task_id=task, task_path=path, idx=idx, channel=channel, type=kind, value=value)
    assert convert_write(row) == (task, path, idx, channel, kind, value)


def test_write_whose_value_is_text_is_its_bytes() -> None:
    """SQLite may hold TEXT where a BLOB was meant."""
    assert convert_write(a_write(type="json", value='"é"')).blob == '"é"'.encode()


@pytest.mark.parametrize(
    ("change", "column", "why"),
    [
        ({"type": None}, "type", "NULL"),
        ({"value": None}, "value", "NOT NULL"),
        ({"task_id": None}, "task_id", "NULL"),
        ({"task_id": "a\0"}, "task_id", "NUL"),
        ({"task_id": "a\\"}, "task_id", "backslash"),
        ({"channel": "a\\"}, "channel", "backslash"),
        ({"channel": b"\xff"}, "channel", "UTF-8"),
        ({"type": "a\\"}, "type", "backslash"),
        ({"task_path": "a\0"}, "task_path", "NUL"),
        ({"idx": None}, "idx", "32-bit"),
        ({"idx": 2**31}, "idx", "32-bit"),
        ({"idx": -(2**31) - 1}, "idx", "32-bit"),
        ({"idx": 1.0}, "idx", "32-bit"),
        ({"idx": "0"}, "idx", "32-bit"),
    ],
    ids=str,
)
def test_write_without_a_place_says_why(change: dict[str, Any], column: str, why: str) -> None:
    """Each names its column and its reason."""
    (problem,) = problems_of(lambda: convert_write(a_write(**change)))
    assert problem.column == column
    assert why in problem.why


def test_task_path_may_hold_a_backslash() -> None:
    """PostgresSaver converts it, and casts only the others to `bytea`."""
    assert convert_write(a_write(task_path="a\\b")).task_path == "a\\b"
