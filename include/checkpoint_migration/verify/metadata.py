"""Compares metadata, which PostgreSQL keeps by value, sanitised or not."""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal, InvalidOperation
from typing import Any

from ..model import SourceText
from .source_checkpoint import as_bytes

LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def metadata_differs(source: SourceText | None, target: str, original: bytes | None) -> str | None:
    """Return why metadata is not equal by value, None if it is."""
    try:
        theirs = (
            by_value(as_bytes(source).decode("utf-8", "surrogatepass"))
            if source is not None
            else {}
        )
        if original is not None:
            if source is None or as_bytes(source) != original:
                return "the original that the ledger keeps is not the source's metadata"
            theirs = sanitised(theirs)
        return None if theirs == by_value(target) else "the metadata is not equal"
    except RecursionError:
        return "the metadata is nested too deep to compare"
    except (ValueError, InvalidOperation) as error:
        return f"the metadata is no JSON ({type(error).__name__})"


def by_value(text: str) -> Any:
    """Parse JSON so that equal numbers are equal however written, and no bool is a number."""
    return _BY_VALUE.decode(text)


def _number(digits: str) -> tuple[Decimal]:
    return (Decimal(digits),)


_BY_VALUE = json.JSONDecoder(parse_int=_number, parse_float=_number)


def sanitised(value: Any) -> Any:
    """Return metadata as `on_blocker: sanitize` documents it."""
    if type(value) is str:
        return LONE_SURROGATE.sub("\ufffd", value.replace("\0", ""))
    if type(value) is float and not math.isfinite(value):
        return None
    if type(value) is tuple and value[0].as_tuple().exponent and math.isinf(float(value[0])):
        return None  # 1e999, which Python reads as infinity
    if type(value) is list:
        return [sanitised(part) for part in value]
    if type(value) is dict:
        return {sanitised(key): sanitised(part) for key, part in value.items()}
    return value
