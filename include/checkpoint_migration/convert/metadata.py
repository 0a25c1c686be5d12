"""Metadata for a JSONB column: the source's own text, or made acceptable at the user's choice. Pure.

Sanitising drops NUL, turns a lone surrogate into U+FFFD, NaN and infinities into null, and changes
nothing else; the originals are kept elsewhere.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

from ..model import SourceText
from . import jsonb
from .blockers import NUMBER, Problem, Unconvertible, is_number

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


def convert_metadata(
    metadata: SourceText | None, *, sanitize: bool = False
) -> tuple[bytes, str | None]:
    """The JSON of `checkpoints.metadata`: the source's own text, on one line; NULL becomes {}.

    With `sanitize`, text that JSONB refuses is made acceptable; why it had to be comes second.
    """
    if metadata is None:
        return b"{}", None
    if is_number(metadata):
        raise Unconvertible(Problem("metadata", NUMBER))
    text = metadata.encode() if isinstance(metadata, str) else metadata
    refusal = jsonb.refusal(text)
    if refusal and sanitize:
        try:
            text = sanitized(text)
        except CannotSanitize as error:
            raise Unconvertible(Problem("metadata", f"{refusal}; {error}")) from None
        if jsonb.refusal(text) is None:
            return text, refusal
    if refusal:
        raise Unconvertible(Problem("metadata", refusal))
    if b"\n" in text or b"\r" in text:  # only ever white space: JSON's strings hold none raw
        text = text.replace(b"\n", b" ").replace(b"\r", b" ")
    return text, None
