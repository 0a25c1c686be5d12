"""The classes that msgpack values name in their ext types, by `module.name`. Nothing is imported.

Reading a value for its names costs more than copying it. So a name is read once, and then known by the
bytes that spell it. And a channel's value mostly is its last one with more at the end, at times without
its beginning, as messages are: what was found in that one is not looked for again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import msgspec

CLASS_CODES = range(6)  # ext codes whose content begins with a module and a name
ARRAYS = range(0x90, 0xA0)
# Where a code stands before an array, a class may be named: bytes turned into marks tell at once.
MARKS = bytes(1 if byte in CLASS_CODES else 2 if byte in ARRAYS else 0 for byte in range(256))
NAMED = b"\x01\x02"
MOST = 4_096  # spellings that are remembered

BEFORE = 5  # bytes that an ext's code, or a list's first item, has at most before it
PROBE = 160  # bytes by which the beginning of a value is found in the last one
LONGEST, TOGETHER = 1 << 20, 8 << 20  # bytes of a value that is kept, and of all of them

NONE: AbstractSet[str] = frozenset()

Place = tuple[int, bytes]
"""Where a class is named, and the bytes that spell it."""


@dataclass(slots=True)
class _Value:
    """A channel's value and the places in it, which are counted from `begin`: where the first value
    of all began, so that they stay what they are. What follows may yet decide about those from `open` on.
    """

    raw: bytes
    begin: int = 0
    open: int = 0
    places: deque[Place] = field(default_factory=deque)


class ClassNames:
    """Finds the names in value after value, and remembers how they are spelled."""

    def __init__(self) -> None:
        self._spelled: dict[bytes, str] = {}
        self._last: dict[str, _Value] = {}
        self._kept = 0

    def of(self, channel: str, raw: bytes) -> AbstractSet[str]:
        """The classes that a value of the channel names."""
        if len(raw) <= BEFORE + PROBE and NAMED not in raw.translate(MARKS):
            return NONE
        value = self._after(self._last.pop(channel, None), raw)
        if not self._look(value):
            return self._read(raw)
        if BEFORE + PROBE < len(raw) <= LONGEST:
            self._keep(channel, value)
        return {self._spelled[spelling] for _, spelling in value.places} if value.places else NONE

    def _after(self, last: _Value | None, raw: bytes) -> _Value:
        """The value, with what is known of the last one where both are alike."""
        if last is None:
            return _Value(raw)
        self._kept -= len(last.raw)
        at = last.raw.find(raw[BEFORE : BEFORE + PROBE])
        if at < 0 or not raw.startswith(last.raw[at:], BEFORE):
            return _Value(raw)
        gone = at - BEFORE
        if last.open - gone <= 2 * BEFORE:
            return _Value(raw)
        last.raw, last.begin, last.open = raw, last.begin + gone, last.open - gone
        return last

    def _look(self, value: _Value) -> bool:
        """Find the places where they are not known; false where a name is not."""
        begin, places, start = value.begin, value.places, 0
        if value.open:  # what stands before a place decides too
            start = value.open
            while places and places[0][0] < begin + 2 * BEFORE:
                places.popleft()
            while places and places[-1][0] >= begin + start:
                places.pop()
            first: list[Place] = []
            if self._between(value, 0, 2 * BEFORE, first) is None:
                return False
            places.extendleft(reversed(first))
        last: list[Place] = []
        end = self._between(value, start, len(value.raw), last)
        if end is None:
            return False
        places.extend(last)
        value.open = end
        return True

    def _between(self, value: _Value, start: int, stop: int, found: list[Place]) -> int | None:
        """Add places to `found`; returns from where on what follows may yet decide."""
        raw, begin = value.raw, value.begin
        end = len(raw) - 1
        marks = raw[start : stop + 1].translate(MARKS)
        at = marks.find(NAMED)
        while at >= 0:
            place = start + at
            if _is_code(raw, place):
                spelling = _spelling(raw, place)
                if spelling is None:
                    end = min(end, place)
                elif spelling in self._spelled:
                    found.append((begin + place, spelling))
                elif spelling:
                    return None
            at = marks.find(NAMED, at + 1)
        return end

    def _keep(self, channel: str, value: _Value) -> None:
        if self._kept + len(value.raw) > TOGETHER:
            self._last.clear()
            self._kept = 0
        self._last[channel] = value
        self._kept += len(value.raw)

    def _read(self, raw: bytes) -> set[str]:
        names = classes_in(raw)
        marks = raw.translate(MARKS)
        at = marks.find(NAMED)
        while at >= 0 and len(self._spelled) < MOST:
            spelling = _spelling(raw, at)
            if spelling and (name := _name(spelling)) in names:
                self._spelled[spelling] = name
            at = marks.find(NAMED, at + 1)
        return names


def classes_in(raw: bytes) -> set[str]:
    """The classes that a value names, by reading it whole."""
    found: set[str] = set()
    waiting = [raw]

    def look(code: int, data: memoryview) -> None:
        inner = bytes(data)
        waiting.append(inner)
        if code in CLASS_CODES:
            found.update(_named(inner))

    decoder = msgspec.msgpack.Decoder(ext_hook=look)
    while waiting:
        try:
            decoder.decode(waiting.pop())
        except (msgspec.MsgspecError, RecursionError, ValueError, TypeError):
            continue  # verification judges the bytes; this only looks for names
    return found


def _named(inner: bytes) -> Iterable[str]:
    try:
        parts: Any = msgspec.msgpack.decode(inner, type=list[msgspec.Raw])
        module, name = (msgspec.msgpack.decode(part, type=str) for part in parts[:2])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return ()
    return (f"{module}.{name}",)


def _is_code(raw: bytes, at: int) -> bool:
    """Whether an ext's header may stand before this byte, as it does before the code of each."""
    return at > 0 and (
        0xD4 <= raw[at - 1] <= 0xD8
        or (at > 1 and raw[at - 2] == 0xC7)
        or (at > 2 and raw[at - 3] == 0xC8)
        or (at > 4 and raw[at - 5] == 0xC9)
    )


def _spelling(raw: bytes, at: int) -> bytes | None:
    """The bytes from a code to the end of the two texts after it; the code alone where they are long
    ones, nothing where they are no texts, and None where the value ends before them.
    """
    end, size = at + 2, len(raw)
    for _ in range(2):
        header = raw[end] if end < size else 0xD9
        if 0xA0 <= header <= 0xBF:
            end += 1 + (header & 0x1F)
        elif header == 0xD9:
            end += 2 + (raw[end + 1] if end + 1 < size else size)
        else:
            return raw[at : at + 1] if header in (0xDA, 0xDB) else b""
    return raw[at:end] if end <= size else None


def _name(spelling: bytes) -> str:
    """The name that a spelling spells, "" where it is none that is remembered."""
    try:
        module, name = msgspec.msgpack.decode(b"\x92" + spelling[2:], type=tuple[str, str])
    except (msgspec.MsgspecError, ValueError):
        return ""
    return f"{module}.{name}"
