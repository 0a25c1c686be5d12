"""Whether data is nested deeper than the savers can read: one bound, whichever Python runs this.

Where recursion ends differs between releases of Python and between libraries. From about 1,000 levels
on, some reader on the way gives up.
"""

from __future__ import annotations

import re

import msgspec

LIMIT = 900
TOO_DEEP = "it is nested deeper than the savers can read"

# The first byte of a msgpack value says what follows. Only maps and arrays nest; all other bytes are
# dropped to see at once that there are too few of them to be too deep.
_CONTAINERS = bytes((*range(0x80, 0xA0), *range(0xDC, 0xE0)))
_OTHERS = bytes(set(range(256)) - set(_CONTAINERS))
# bytes that follow: of numbers, fixed; of texts, bytes and exts, after a length of so many bytes (and
# an ext's code); of maps and arrays, a count of so many bytes, times two for a map
_FIXED = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_FIXED |= {0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17}  # ext: its code and its bytes
_SIZED = {0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1)}
_SIZED |= {0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0)}
_COUNTED = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}

_items = msgspec.msgpack.Decoder(list[msgspec.Raw])

_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_MARKS = re.compile(rb"[\[\]{}]")


def too_deep_msgpack(data: bytes, limit: int = LIMIT) -> bool:
    """Whether msgpack is nested too deep. What is malformed is for whoever decodes it to say."""
    if len(data) <= limit or _is_flat(data, limit) or len(data.translate(None, _OTHERS)) <= limit:
        return False
    # A walk by headers alone: no value is built, so a bomb costs no more than its own length.
    left = [1]  # how many values each container on the way still holds
    at, end = 0, len(data)
    while left and at < end:
        if not left[-1]:
            left.pop()
            continue
        left[-1] -= 1
        first = data[at]
        at += 1
        if 0x80 <= first <= 0x9F:
            left.append((first & 0x0F) * (2 if first < 0x90 else 1))
        elif 0xA0 <= first <= 0xBF:
            at += first & 0x1F
        elif first in _FIXED:
            at += _FIXED[first]
        elif first in _SIZED:
            size, code = _SIZED[first]
            at += size + code + int.from_bytes(data[at : at + size])
        elif first in _COUNTED:
            size, each = _COUNTED[first]
            left.append(int.from_bytes(data[at : at + size]) * each)
            at += size
        if len(left) > limit + 1:
            return True
    return False


def _is_flat(data: bytes, limit: int) -> bool:
    """Whether it is a list of items that have no room for so many levels, as messages are: told sooner."""
    if not (0x90 <= data[0] <= 0x9F or 0xDC <= data[0] <= 0xDD):
        return False
    try:
        return max(map(len, _items.decode(data)), default=0) < limit
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return False


def too_deep_json(text: bytes) -> bool:
    """Whether JSON is nested too deep."""
    if text.count(b"[") + text.count(b"{") <= LIMIT:
        return False
    depth = 0
    for mark in _MARKS.finditer(_STRINGS.sub(b"", text)):
        depth += 1 if mark.group() in b"[{" else -1
        if depth > LIMIT:
            return True
    return False
