"""Serialized checkpoints taken apart: the envelope, and each channel's value as its raw bytes.

One function a type. Nothing is revived: a value is a slice of the source's bytes, never an object,
so no class that a database names is looked up, imported or called.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import msgspec

from .nesting import LIMIT, TOO_DEEP, too_deep_json, too_deep_msgpack

VALUES = "channel_values"
SENDS = "pending_sends"
NO_SENDS = b"\x90"
SHALLOW = LIMIT - 2  # levels of a channel's value: two maps are around it

_raw_map = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
_raw_list = msgspec.msgpack.Decoder(list[msgspec.Raw])
_anything = msgspec.msgpack.Decoder()
_UNSET = msgspec.UNSET


class _Today(msgspec.Struct, forbid_unknown_fields=True):
    """What today's releases write, read in one go; whatever else there is, is read key by key."""

    v: Literal[4]
    ts: str
    id: str
    channel_values: dict[str, msgspec.Raw]
    channel_versions: dict[str, str]
    versions_seen: dict[str, dict[str, str]]
    updated_channels: list[str] | msgspec.UnsetType | None = _UNSET


_today = msgspec.msgpack.Decoder(_Today)


class NotSplittable(Exception):
    """The bytes are not what their type says, or have no lossless split. `str()` names no value."""


class Split(NamedTuple):
    """A checkpoint taken apart. `envelope` holds plain data; `values` the slice of each channel.

    `typed`: a decoder has found the envelope to be what today's releases write, texts and no more.
    `sends` are the slices of `pending_sends`, which checkpoints before `v` 4 carry, and `sends_list`
    the slice of the whole list; the envelope keeps the key with an empty one. `guessed`: an edge of
    the graph had to be inferred for it. `javascript`: LangGraph.js wrote it.
    """

    envelope: dict[str, Any]
    values: dict[str, bytes]
    value_type: str
    sends: tuple[bytes, ...] = ()
    sends_list: bytes = b""
    guessed: bool = False
    typed: bool = False
    javascript: bool = False


def split_msgpack(blob: bytes) -> Split:
    """Split a checkpoint that `JsonPlusSerializer` wrote as msgpack."""
    try:
        whole = _today.decode(blob)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return _split_by_keys(blob)
    slices = {channel: bytes(raw) for channel, raw in whole.channel_values.items()}
    for raw in slices.values():
        if len(raw) > SHALLOW and too_deep_msgpack(raw, SHALLOW):
            raise NotSplittable(TOO_DEEP)
    envelope = {
        "v": whole.v,
        "ts": whole.ts,
        "id": whole.id,
        "channel_versions": whole.channel_versions,
        "versions_seen": whole.versions_seen,
    }
    if whole.updated_channels is not _UNSET:
        envelope["updated_channels"] = whole.updated_channels
    return Split(envelope, slices, "msgpack", sends_list=NO_SENDS, typed=True)


def _split_by_keys(blob: bytes) -> Split:
    if too_deep_msgpack(blob):
        raise NotSplittable(TOO_DEEP)
    try:
        parts = _raw_map.decode(blob)
        if VALUES not in parts:
            raise NotSplittable(f"it has no {VALUES}")
        values = _raw_map.decode(parts.pop(VALUES))
        sends_list = bytes(parts.get(SENDS, NO_SENDS))
        sends = tuple(bytes(raw) for raw in _raw_list.decode(sends_list))
        if sends:
            parts[SENDS] = msgspec.Raw(NO_SENDS)
        envelope = {key: _anything.decode(raw) for key, raw in parts.items()}
    except RecursionError:
        raise NotSplittable(TOO_DEEP) from None
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):
        raise NotSplittable("it is no msgpack map of a checkpoint") from None
    slices = {channel: bytes(raw) for channel, raw in values.items()}
    return Split(envelope, slices, "msgpack", sends, sends_list)


def split_json(blob: bytes) -> Split:
    """Split a checkpoint that was written as JSON, Python's `NaN` and `Infinity` included.

    Slices are cut by position, because decoding and encoding again would change numbers.
    """
    if too_deep_json(blob):
        raise NotSplittable(TOO_DEEP)
    try:
        text = blob.decode("utf-8")
        parts = _json_members(text)
        if VALUES not in parts:
            raise NotSplittable(f"it has no {VALUES}")
        values = _json_members(parts.pop(VALUES))
        sends_list = parts.get(SENDS, "[]")
        sends = tuple(item.encode() for item in _json_items(sends_list))
        if sends:
            parts[SENDS] = "[]"
        envelope = {key: json.loads(raw) for key, raw in parts.items()}
    except RecursionError:
        raise NotSplittable(TOO_DEEP) from None
    except ValueError:
        raise NotSplittable("it is no JSON object of a checkpoint") from None
    slices = {channel: raw.encode() for channel, raw in values.items()}
    return Split(envelope, slices, "json", sends, sends_list.encode())


_scan = json.JSONDecoder().raw_decode
_SPACE = " \t\r\n"


def _json_members(text: str) -> dict[str, str]:
    """The members of a JSON object: each key with the text of its value."""
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        raise ValueError("not an object")
    members: dict[str, str] = {}
    at = _skip(text, at + 1)
    if text[at : at + 1] == "}":
        at += 1
    else:
        while True:
            if text[at : at + 1] != '"':
                raise ValueError("no key")
            key, at = _scan(text, at)
            at = _skip(text, at)
            if text[at : at + 1] != ":":
                raise ValueError("no colon")
            start = _skip(text, at + 1)
            _, end = _scan(text, start)
            members[key] = text[start:end]
            at = _skip(text, end)
            mark, at = text[at : at + 1], _skip(text, at + 1)
            if mark == "}":
                break
            if mark != ",":
                raise ValueError("no comma")
    if _skip(text, at) != len(text):
        raise ValueError("something follows")
    return members


def _json_items(text: str) -> list[str]:
    """The items of a JSON array, each as its text."""
    at = _skip(text, 0)
    if text[at : at + 1] != "[":
        raise ValueError("not an array")
    items: list[str] = []
    at = _skip(text, at + 1)
    while text[at : at + 1] != "]":
        _, end = _scan(text, at)
        items.append(text[at:end])
        at = _skip(text, end)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
        elif text[at : at + 1] != "]":
            raise ValueError("no comma")
    return items


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


Splitter = Callable[[bytes], Split]
SPLITTERS: dict[str, Splitter] = {"msgpack": split_msgpack, "json": split_json}
TRUE = {"msgpack": b"\xc3", "json": b"true", "pickle": b"\x80\x04\x88."}

_EXTS = frozenset(bytes((first,)) for first in (*range(0xC7, 0xCA), *range(0xD4, 0xD9)))


def is_delta_snapshot(value_type: str, raw: bytes) -> bool:
    """Whether a slice is a `_DeltaSnapshot` (msgpack ext code 7): its header alone tells."""
    if value_type == "pickle":
        return b"_DeltaSnapshot" in raw[:80]
    if raw[:1] not in _EXTS or value_type != "msgpack":
        return False
    first = raw[0]
    if 0xD4 <= first <= 0xD8:  # fixext: code follows
        return raw[1:2] == b"\x07"
    at = {0xC7: 2, 0xC8: 3, 0xC9: 5}[first]  # ext 8, 16, 32: code follows the length
    return raw[at : at + 1] == b"\x07"


def plain_value(value_type: str, raw: bytes) -> Any:
    """A slice as plain data (dicts, lists, scalars; msgpack ext stays an opaque `Ext`)."""
    if value_type == "pickle":
        raise NotSplittable("a pickled value belongs to a channel without a version")
    try:
        return _anything.decode(raw) if value_type == "msgpack" else json.loads(raw)
    except (RecursionError, ValueError, msgspec.MsgspecError):
        raise NotSplittable("a value is no well-formed data of its type") from None
