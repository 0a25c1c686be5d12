"""What JSONB takes, and what it takes exactly: pure checks on JSON before a server sees it."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import msgspec

from .nesting import TOO_DEEP, too_deep_json

# PostgreSQL's numeric ends at 131,072 digits before the point and 16,383 after it; Python's own
# reader refuses integers of more than 4,300 digits, so that is the bound that counts.
MAX_DIGITS = 4_000
MAX_EXPONENT = 4_000
MAX_DEPTH = 200  # of what stays inline: recursion in the readers ends at about 480
DIGITS = re.compile(rb"\d{%d}" % MAX_DIGITS)
EXPONENT = re.compile(rb"[eE][-+]?\d{4}")
# In the text and not in what is read of it: of two equal keys only the last would be seen.
NUL = b"\\u0000"
ESCAPED_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

# Measured on PostgreSQL 15 and 18. A text of less than CANNOT_EXCEED bytes stays below all three: a
# number takes at most four times the bytes that it is written in.
MAX_BYTES = (1 << 28) - 64  # of one array, object or text, padding left over
MAX_ITEMS = 1 << 24
MAX_PAIRS = 1 << 23
CANNOT_EXCEED = 1 << 25
TOO_LARGE = "one array, object or text in it is larger than JSONB takes (256 MiB)"

_decode = msgspec.json.Decoder()


def refusal(text: bytes) -> str | None:
    """Why JSONB would refuse this JSON text, or None where it takes it. Names no value."""
    if too_deep_json(text):
        return TOO_DEEP
    try:
        value = _decode.decode(text)
    except RecursionError:
        return TOO_DEEP
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):
        return _why_not(text)
    if len(text) >= CANNOT_EXCEED and _too_large(value):
        return TOO_LARGE
    if NUL in text and ESCAPED_NUL.search(text):
        return "it holds NUL (\\u0000)"
    if _huge_number(text):
        return "it holds a number beyond PostgreSQL's range"
    return None


def _why_not(text: bytes) -> str:
    """The reason behind a refused text: what Python's lenient reader finds in it."""
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError:
        return "it is not UTF-8"
    constants: list[str] = []
    try:
        value = json.loads(decoded, parse_constant=constants.append, parse_int=str, parse_float=str)
    except RecursionError:
        return TOO_DEEP
    except ValueError:
        return "it is not JSON"
    if constants:
        return "it holds NaN or Infinity"
    if holds_lone_surrogate(value):
        return "it holds a lone surrogate"
    if _huge_number(text):
        return "it holds a number beyond PostgreSQL's range"
    return "it is not JSON that PostgreSQL takes"


def has_lone_surrogate(text: str) -> bool:
    """Whether a text has no UTF-8."""
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def holds_lone_surrogate(value: Any) -> bool:
    """Whether any string of a plain value, a key too, has no UTF-8."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            if has_lone_surrogate(item):
                return True
        elif isinstance(item, dict):
            stack.extend(item.keys())
            stack.extend(item.values())
        elif isinstance(item, (list, tuple)):
            stack.extend(item)
    return False


def _huge_number(text: bytes) -> bool:
    digits = len(text) >= MAX_DIGITS and DIGITS.search(text)
    if not digits and not EXPONENT.search(text):
        return False
    found: list[str] = []

    def look(number: str) -> int:
        mantissa, _, exponent = number.lower().partition("e")
        exponent = exponent.lstrip("+-0")[:9] or "0"  # int() itself refuses very long ones
        if len(mantissa) > MAX_DIGITS or int(exponent) > MAX_EXPONENT:
            found.append(number)
        return 0

    json.loads(text, parse_int=look, parse_float=look)
    return bool(found)


def _too_large(value: Any) -> bool:
    """Whether a container or a text exceeds what JSONB can address. Sizes are rounded up."""
    sizes: list[int] = []
    stack: list[tuple[Any, bool]] = [(value, False)]
    while stack:
        item, is_done = stack.pop()
        if not isinstance(item, (dict, list)):
            sizes.append(_bytes_of(item))
        elif not is_done:
            if len(item) > (MAX_PAIRS if isinstance(item, dict) else MAX_ITEMS):
                return True
            stack.append((item, True))
            parts = (
                (part for pair in item.items() for part in pair) if isinstance(item, dict) else item
            )
            stack.extend((part, False) for part in parts)
        else:
            count = 2 * len(item) if isinstance(item, dict) else len(item)
            held = sum(sizes[len(sizes) - count :])
            del sizes[len(sizes) - count :]
            sizes.append(held + 4 * count + 8)
        if sizes and sizes[-1] > MAX_BYTES:
            return True
    return False


def _bytes_of(scalar: Any) -> int:
    if isinstance(scalar, str):
        return len(scalar) if scalar.isascii() else len(scalar.encode())
    if scalar is None or isinstance(scalar, bool):
        return 0
    return 12 if isinstance(scalar, float) else 12 + scalar.bit_length() // 6


def exact(value: Any) -> bool:
    """Whether JSONB gives this plain value back with the same types and the same content.

    What is nested deeper than verification can follow is not taken for exact.
    """
    stack = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        kind = type(item)
        if item is None or kind is bool or kind is int:
            continue
        if kind is float:
            # JSONB keeps numbers by value: from 1e16 on they print as integers, and -0.0 loses its sign
            if (
                not math.isfinite(item)
                or abs(item) >= 1e16
                or (item == 0 and math.copysign(1, item) < 0)
            ):
                return False
        elif kind is str:
            if "\0" in item or has_lone_surrogate(item):
                return False
        elif kind is list and depth < MAX_DEPTH:
            stack.extend((part, depth + 1) for part in item)
        elif kind is dict and depth < MAX_DEPTH:
            if not all(type(key) is str for key in item):
                return False
            stack.extend((part, depth + 1) for pair in item.items() for part in pair)
        else:
            return False
    return True
