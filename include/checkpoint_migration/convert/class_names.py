"""The classes that msgpack values name in their ext types, by `module.name`. Nothing is imported.

Reading a value for its names costs more than copying it, and values of one application name the same
few classes. So a name is read once, and then looked for by the very bytes that spell it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

CLASS_CODES = range(6)  # ext codes whose content begins with a module and a name
ARRAYS = range(0x90, 0xA0)
# Where a code stands before an array, a class may be named: bytes turned into marks tell at once.
MARKS = bytes(1 if byte in CLASS_CODES else 2 if byte in ARRAYS else 0 for byte in range(256))
NAMED = b"\x01\x02"
MOST = 64  # names that are looked for by their bytes


class ClassNames:
    """Finds the names in value after value, and remembers how they are spelled."""

    def __init__(self) -> None:
        self._spelled: dict[bytes, str] = {}

    def of(self, raw: bytes) -> set[str]:
        """The classes that a value names."""
        marks = raw.translate(MARKS)
        places = marks.count(NAMED)
        if not places:
            return set()
        found: set[str] = set()
        for spelling, name in self._spelled.items():
            if times := raw.count(spelling):
                places -= times
                found.add(name)
        return self._read(raw, marks) if places else found

    def _read(self, raw: bytes, marks: bytes) -> set[str]:
        names = classes_in(raw)
        at = marks.find(NAMED)
        while at >= 0 and len(self._spelled) < MOST:
            spelling, name = _spelled(raw, at)
            if name in names:
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


def _spelled(raw: bytes, at: int) -> tuple[bytes, str]:
    """The bytes from a code to the end of the two texts after it, and the name that they spell."""
    end = at + 2
    texts: list[str] = []
    for _ in range(2):
        header = raw[end : end + 1]
        if header == b"\xd9":
            start, size = end + 2, raw[end + 1] if end + 1 < len(raw) else 0
        elif b"\xa0" <= header <= b"\xbf":
            start, size = end + 1, header[0] & 0x1F
        else:
            return b"", ""
        end = start + size
        texts.append(raw[start:end].decode("utf-8", "replace"))
    return raw[at:end], ".".join(texts)
