"""Strict equality of plain data: types, signs and order of lists count, nothing is rounded."""

from __future__ import annotations

import math
import struct
from typing import Any

Path = tuple["Path", str] | None
LONGEST = 20  # pieces of a place that are shown


def same(a: Any, b: Any, *, by_value: bool = False) -> bool:
    """Whether two values are the same, as `first_difference` has it."""
    return first_difference(a, b, by_value=by_value) is None


def first_difference(a: Any, b: Any, *, by_value: bool = False) -> str | None:
    """Where two values first differ, or None where they do not. Names places, never values.

    The place is `[3]` for an item of a list and `{2}` for the value of a map's third key in the
    order of `a`. Types have to be equal (1 is neither True nor 1.0, bytes are no bytearray), -0.0
    is not 0.0, NaN is NaN; the order of a map's keys does not count. `by_value` compares numbers
    as JSONB keeps them: 1 is 1.0 then, and -0.0 is 0.0; a bool is still no number.
    """
    stack: list[tuple[Path, Any, Any]] = [(None, a, b)]
    while stack:
        path, left, right = stack.pop()
        kind = type(left)
        if kind is not type(right):
            if by_value and _numbers(left, right) and _as_float(left) == _as_float(right):
                continue
            return f"{_spelled(path)} is of another type"
        if kind is dict:
            children = _by_key(path, left, right)
            if children is None:
                return f"{_spelled(path)} has other keys"
            stack.extend(children)
        elif kind in (list, tuple):
            if len(left) != len(right):
                return f"{_spelled(path)} has another length"
            pairs = enumerate(zip(left, right, strict=True))
            stack.extend(reversed([((path, f"[{i}]"), x, y) for i, (x, y) in pairs]))
        elif kind is float:
            if not _same_float(left, right, by_value):
                return f"{_spelled(path)} is another number"
        elif left != right:
            return f"{_spelled(path)} has another value"
    return None


def _by_key(path: Path, a: dict[Any, Any], b: dict[Any, Any]) -> list[tuple[Path, Any, Any]] | None:
    """The values of equal keys, last first; None where the keys are not the same."""
    if len(a) != len(b):
        return None
    others = {_token(key): value for key, value in b.items()}
    children: list[tuple[Path, Any, Any]] = []
    for place, (key, value) in enumerate(a.items()):
        token = _token(key)
        if token not in others:
            return None
        children.append(((path, f"{{{place}}}"), value, others[token]))
    children.reverse()
    return children


def _token(key: Any) -> Any:
    """A key that tells 1 from True and 1.0, and finds NaN again."""
    return key if type(key) is str else (type(key).__name__, repr(key))


def _numbers(a: Any, b: Any) -> bool:
    return type(a) in (int, float) and type(b) in (int, float)


def _as_float(number: float) -> float | None:
    """The float that JSON's digits of a number are read as: 1e23 returns as 10 ** 23, which is another
    number than the float 1e23.
    """
    try:
        return float(number)
    except OverflowError:
        return None


def _same_float(a: float, b: float, by_value: bool) -> bool:
    if math.isnan(a) and math.isnan(b):
        return True
    return a == b if by_value else struct.pack(">d", a) == struct.pack(">d", b)


def _spelled(path: Path) -> str:
    pieces = []
    while path is not None:
        path, piece = path
        pieces.append(piece)
    if len(pieces) > LONGEST:
        pieces[LONGEST // 2 : -LONGEST // 2] = ["…"]
    return "".join(reversed(pieces)) or "it"
