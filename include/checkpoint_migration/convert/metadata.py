"""Metadata that JSONB refuses, made acceptable at the user's choice. Pure; originals are kept elsewhere.

NUL is dropped, a lone surrogate becomes U+FFFD, NaN and infinities become null; nothing else changes.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

MAX_DEPTH = 200  # well below what Python's stack allows here, in verification and in the read-back


class CannotSanitize(Exception):
    """Even so there is no place for it. `str()` names no value."""


def sanitized(metadata: bytes) -> bytes:
    """The metadata as JSON that PostgreSQL takes."""
    try:
        text = metadata.decode("utf-8", "surrogatepass")
        value = json.loads(text, parse_constant=lambda _: None, parse_float=_number)
    except RecursionError:
        raise CannotSanitize("it is nested too deep to be sanitised") from None
    except ValueError:
        raise CannotSanitize("it is no JSON") from None
    return json.dumps(_clean(value, MAX_DEPTH), ensure_ascii=False, allow_nan=False).encode()


def _number(text: str) -> float | None:
    """A number, unless it would be another one when written again; 1e999 is infinity."""
    number = float(text)
    if not math.isfinite(number):
        return None
    try:
        same = Decimal(repr(number)) == Decimal(text)
    except ArithmeticError:
        same = False
    if not same:
        raise CannotSanitize("a number in it would be rounded")
    return number


def _clean(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return _clean_text(value)
    if not isinstance(value, (list, dict)):
        return value
    if not depth:
        raise CannotSanitize("it is nested too deep to be sanitised")
    if isinstance(value, list):
        return [_clean(item, depth - 1) for item in value]
    cleaned = {_clean_text(key): _clean(item, depth - 1) for key, item in value.items()}
    if len(cleaned) != len(value):
        raise CannotSanitize("two of its keys would become one")
    return cleaned


def _clean_text(text: str) -> str:
    if "\0" not in text and text.isprintable():
        return text
    return "".join(
        "\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text if char != "\0"
    )
