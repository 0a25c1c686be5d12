"""Metadata that JSONB refuses, made acceptable at the user's choice. Pure; originals are kept elsewhere.

NUL is dropped, a lone surrogate becomes U+FFFD, NaN and infinities become null; nothing else changes.
"""

from __future__ import annotations

import json
from typing import Any


class CannotSanitize(Exception):
    """Even so there is no place for it. `str()` names no value."""


def sanitized(metadata: bytes) -> bytes:
    """The metadata as JSON that PostgreSQL takes."""
    try:
        value = json.loads(metadata.decode("utf-8", "surrogatepass"), parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        raise CannotSanitize("it is no JSON") from None
    return json.dumps(_clean(value), ensure_ascii=False, allow_nan=False).encode()


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return _clean_text(value)
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        cleaned = {_clean_text(key): _clean(item) for key, item in value.items()}
        if len(cleaned) != len(value):
            raise CannotSanitize("two of its keys would become one")
        return cleaned
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return None  # 1e999 is read so
    return value


def _clean_text(text: str) -> str:
    if "\0" not in text and text.isprintable():
        return text
    return "".join(
        "\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text if char != "\0"
    )
