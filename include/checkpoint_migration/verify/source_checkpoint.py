"""A source checkpoint as the oracle reads it: its envelope, and where each channel's value lies."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from msgpack import Unpacker  # type: ignore[import-untyped]
from msgpack.exceptions import UnpackException  # type: ignore[import-untyped]

from ..model import SourceText
from ..texts import quoted

Decrypt = Callable[[str, bytes], bytes]

SENDS = "pending_sends"
VALUES = "channel_values"
SNAPSHOT_CODE = 7  # the msgpack ext code of a DeltaChannel's snapshot
EXT_HEADERS = {0xD4: 1, 0xD5: 1, 0xD6: 1, 0xD7: 1, 0xD8: 1, 0xC7: 2, 0xC8: 3, 0xC9: 5}
SPACE = re.compile(r"[ \t\n\r]*")


class Unreadable(Exception):
    """These bytes cannot be compared; the text says why and names no value."""


class Opened(NamedTuple):
    """A checkpoint: `fields` is its envelope, `spans` says where in `data` a channel's value lies.

    `sends` is the span of `pending_sends`, None where there are none or an empty list.
    """

    type: str
    data: bytes
    fields: dict[str, Any]
    spans: dict[str, tuple[int, int]]
    sends: tuple[int, int] | None

    @property
    def is_json(self) -> bool:
        return self.type.partition("+")[0] == "json"

    def holds(self, span: tuple[int, int], blob: bytes) -> bool:
        """Whether `blob` is exactly the bytes of `span`."""
        return span[1] - span[0] == len(blob) and self.data.startswith(blob, span[0])

    def is_true(self, span: tuple[int, int]) -> bool:
        return self.holds(span, b"true" if self.is_json else b"\xc3")

    def is_snapshot(self, span: tuple[int, int]) -> bool:
        if self.is_json:
            return False
        code = EXT_HEADERS.get(self.data[span[0]])
        return code is not None and self.data[span[0] + code] == SNAPSHOT_CODE

    def sends_apart(self) -> list[bytes]:
        """The bytes of each pending send."""
        if self.sends is None:
            return []
        piece = self.data[slice(*self.sends)]
        split = _json_items if self.is_json else _msgpack_items
        return [piece[start:end] for start, end in split(piece)]

    def value(self, span: tuple[int, int]) -> Any:
        """The value of `span`, unpacked without classes: an ext stays an `ExtType`."""
        piece = self.data[slice(*span)]
        if self.is_json:
            return strict_json(piece.decode())
        try:
            return _unpacker(piece).unpack()
        except (UnpackException, ValueError, TypeError, RecursionError) as error:
            raise Unreadable(f"a value is no msgpack ({type(error).__name__})") from None


def open_msgpack(kind: str, data: bytes) -> Opened:
    """Open plain msgpack of type `kind`, or raise `Unreadable`."""
    return _opened(_open_msgpack, kind, data)


def open_json(kind: str, data: bytes) -> Opened:
    """Open plain JSON of type `kind`, or raise `Unreadable`."""
    return _opened(_open_json, kind, data)


def _opened(opening: Callable[[str, bytes], Opened], kind: str, data: bytes) -> Opened:
    try:
        return opening(kind, data)
    except (UnpackException, ValueError, TypeError, RecursionError, InvalidOperation) as error:
        name = f"{quoted(kind, 20)} ({type(error).__name__})"
        raise Unreadable(f"the source's checkpoint is no {name}") from None


def as_bytes(text: SourceText) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _unpacker(data: bytes) -> Unpacker:
    size = len(data)
    unpacker = Unpacker(read_size=size, max_buffer_size=0, max_array_len=size, max_map_len=size)
    unpacker.feed(data)
    return unpacker


def _open_msgpack(kind: str, data: bytes) -> Opened:
    unpacker = _unpacker(data)
    unpack, skip, tell = unpacker.unpack, unpacker.skip, unpacker.tell
    fields: dict[str, Any] = {}
    spans: dict[str, tuple[int, int]] = {}
    sends = None
    for _ in range(unpacker.read_map_header()):
        key = _key(unpack())
        if key == VALUES:
            spans.clear()
            for _ in range(unpacker.read_map_header()):
                channel = _key(unpack())
                start = tell()
                skip()
                spans[channel] = (start, tell())
        elif key == SENDS:
            start = tell()
            fields[SENDS] = unpack()
            sends = (start, tell()) if fields[SENDS] else None
        else:
            fields[key] = unpack()
    if tell() != len(data):
        raise Unreadable("bytes follow the source's checkpoint")
    return Opened(kind, data, fields, spans, sends)


def _msgpack_items(data: bytes) -> Iterator[tuple[int, int]]:
    unpacker = _unpacker(data)
    for _ in range(unpacker.read_array_header()):
        start = unpacker.tell()
        unpacker.skip()
        yield start, unpacker.tell()


def _json_items(data: bytes) -> Iterator[tuple[int, int]]:
    text = data.decode()
    offset = _byte_offsets(text, data)
    at = _skip(text, 1)
    while text[at] != "]":
        end = STRICT.raw_decode(text, at)[1]
        yield offset(at), offset(end)
        at = _skip(text, end)
        at = _skip(text, at + 1) if text[at] == "," else at


def _key(key: Any) -> str:
    if type(key) is not str:
        raise Unreadable("a key in the source's checkpoint is no text")
    return key


def _open_json(kind: str, data: bytes) -> Opened:
    text = data.decode()
    offset = _byte_offsets(text, data)
    fields: dict[str, Any] = {}
    spans: dict[str, tuple[int, int]] = {}
    sends = None
    end = _skip(text, 0)
    for key, start, end, value in _members(text, end):  # noqa: B020 - the last end is what is needed
        if key == VALUES:
            spans.clear()
            for channel, first, last, _ in _members(text, start):
                if channel is not None:
                    spans[channel] = (offset(first), offset(last))
        elif key is not None:
            fields[key] = value
            if key == SENDS:
                sends = (offset(start), offset(end)) if value else None
    if _skip(text, end) != len(text):
        raise Unreadable("text follows the source's checkpoint")
    return Opened(kind, data, fields, spans, sends)


def _members(text: str, at: int) -> Iterator[tuple[str | None, int, int, Any]]:
    """Yield each member's key, start, end and value, at last None with the object's end."""
    if text[at : at + 1] != "{":
        raise Unreadable("a JSON object was expected in the source's checkpoint")
    at = _skip(text, at + 1)
    while text[at : at + 1] != "}":
        key, at = STRICT.raw_decode(text, at)
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            raise Unreadable("the source's checkpoint is no JSON")
        start = _skip(text, at + 1)
        value, end = STRICT.raw_decode(text, start)
        yield _key(key), start, end, value
        at = _skip(text, end)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
        elif text[at : at + 1] != "}":
            raise Unreadable("the source's checkpoint is no JSON")
    yield None, at, at + 1, None


def _skip(text: str, at: int) -> int:
    found = SPACE.match(text, at)
    return found.end() if found else at


def _byte_offsets(text: str, data: bytes) -> Callable[[int], int]:
    """Return what turns offsets in `text`, asked for in rising order, into offsets in `data`."""
    if len(text) == len(data):
        return lambda at: at
    known = [0, 0]

    def offset(at: int) -> int:
        known[1] += len(text[known[0] : at].encode())
        known[0] = at
        return known[1]

    return offset


def _whole(digits: str) -> int | Decimal:
    return int(digits) if len(digits) < 4000 else Decimal(digits)  # Python refuses 4,300


STRICT = json.JSONDecoder(parse_int=_whole, parse_float=Decimal)
"""Tells numbers apart by how they are written: `1` is an int, `1.0` a Decimal, NaN a float."""


def strict_json(text: str) -> Any:
    """Parse JSON so that `1`, `1.0`, `true` and "1" stay four values, or raise `Unreadable`."""
    try:
        return STRICT.decode(text)
    except (ValueError, RecursionError, InvalidOperation) as error:
        raise Unreadable(f"a value is no JSON ({type(error).__name__})") from None


def same(source: Any, target: Any) -> bool:
    """Whether a value of the source is, type for type, the one that `strict_json` read."""
    kind = type(source)
    if kind is str or kind is int or kind is bool or source is None:
        return type(target) is kind and bool(source == target)
    if kind is float:
        return type(target) is Decimal and repr(source) == repr(float(target))
    if type(target) is not kind:
        return False
    if kind is dict:
        return source.keys() == target.keys() and all(same(v, target[k]) for k, v in source.items())
    if kind is list:
        return len(source) == len(target) and all(map(same, source, target))
    if kind is Decimal:
        return bool(source == target) and source.is_signed() == target.is_signed()
    return False
