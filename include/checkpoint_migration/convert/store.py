"""An item of the store and its vectors, from SqliteStore's row into PostgresStore's. Pure.

The value is the source's own JSON, as text; JSONB keeps its numbers by value. Moments are UTC on both
sides: SQLite's `CURRENT_TIMESTAMP` says so by documentation, and what Python wrote says so itself.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from ..store_model import ItemRow, TargetItem, TargetVector, VectorRow
from . import jsonb
from .blockers import NUMBER, Problem, Unconvertible, is_number, text_problems

MOMENT = re.compile(
    r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(\.\d{1,6})?(?:Z|([+-]\d\d:\d\d))?", re.ASCII
)
MOST_MINUTES = (1 << 31) - 1
PART_OF_A_MINUTE = Problem(
    "store.ttl_minutes", "it is a part of a minute, and PostgresStore keeps whole minutes"
)

_decode = msgspec.json.Decoder()


def convert_item(
    item: ItemRow, vectors: Sequence[VectorRow], dimensions: int, *, sanitize: bool = False
) -> TargetItem:
    """The row of PostgreSQL with its vectors, each of which must have so many `dimensions`.

    With `sanitize` a part of a minute is rounded up, so that no item expires before its time. Raises
    `Unconvertible` with every reason why there is no lossless place for it.
    """
    problems: list[Problem] = []
    for column in ("prefix", "key"):
        problems += _in("store", text_problems(column, getattr(item, column)))
    value = _kept(problems, "store.value", lambda: _value(item.value))
    moments = [
        _kept(problems, f"store.{column}", lambda c=column: _moment(getattr(item, c)))
        for column in ("created_at", "updated_at", "expires_at")
    ]
    minutes = _kept(problems, "store.ttl_minutes", lambda: _minutes(item.ttl_minutes, sanitize))
    converted = [_vector(vector, dimensions, problems) for vector in vectors]
    if problems:
        raise Unconvertible(*dict.fromkeys(problems))
    created, updated, expires = moments
    original = None if minutes == item.ttl_minutes else repr(item.ttl_minutes)
    return TargetItem(
        item.prefix, item.key, value, created, updated, expires, minutes, converted, original
    )


def changes_numbers(value: bytes) -> bool:
    """Whether JSONB gives numbers of this JSON back written otherwise: 1e20 as an integer, -0.0 as 0.0."""
    return not jsonb.exact(_decode.decode(value))


def _in(table: str, problems: Sequence[Problem]) -> list[Problem]:
    return [Problem(f"{table}.{column}", why) for column, why in problems]


def _kept(problems: list[Problem], column: str, convert: Any) -> Any:
    try:
        return convert()
    except _NoPlace as error:
        problems.append(Problem(column, str(error)))
        return None


class _NoPlace(Exception):
    """Why one column cannot be kept; names no value."""


def _value(value: Any) -> bytes:
    if value is None:
        raise _NoPlace("it is NULL")
    if is_number(value):
        raise _NoPlace(NUMBER)
    text = value.encode() if isinstance(value, str) else bytes(value)
    if refusal := jsonb.refusal(text):
        raise _NoPlace(refusal)
    if not text.lstrip().startswith(b"{"):
        raise _NoPlace("it is no JSON object, and PostgresStore reads no other")
    return text.replace(b"\n", b" ").replace(
        b"\r", b" "
    )  # white space: JSON's strings hold none raw


def _moment(value: Any) -> str | None:
    if value is None:
        return None
    found = MOMENT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise _NoPlace("it is no moment as SqliteStore writes them")
    day, time, fraction, offset = found.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{time}{fraction or ''}{offset or '+00:00'}")
        return moment.astimezone(UTC).isoformat(timespec="microseconds")
    except (ValueError, OverflowError):
        raise _NoPlace("it is no moment of a calendar") from None


def is_curable(problems: Sequence[Problem]) -> bool:
    """Whether `sanitize` would find a place for an item with these problems."""
    return all(problem == PART_OF_A_MINUTE for problem in problems)


def _minutes(value: Any, sanitize: bool) -> int | None:
    if value is None:
        return None
    if not is_number(value) or not math.isfinite(value):
        raise _NoPlace("it is no number")
    if abs(value) > MOST_MINUTES:
        raise _NoPlace("it is more minutes than PostgreSQL's integer holds")
    if value != int(value) and not sanitize:
        raise _NoPlace(PART_OF_A_MINUTE.why)
    whole: int = math.ceil(value)
    return whole


def _vector(vector: VectorRow, dimensions: int, problems: list[Problem]) -> TargetVector:
    problems += _in("store_vectors", text_problems("field_name", vector.field_name))
    embedding = _kept(
        problems, "store_vectors.embedding", lambda: _embedding(vector.embedding, dimensions)
    )
    created, updated = (
        _kept(problems, f"store_vectors.{column}", lambda c=column: _moment(getattr(vector, c)))
        for column in ("created_at", "updated_at")
    )
    return TargetVector(vector.field_name, embedding, created, updated)


def _embedding(blob: Any, dimensions: int) -> bytes:
    """Pgvector's own form: the number of dimensions, a zero, and the floats with their high byte first."""
    if not isinstance(blob, bytes) or len(blob) != 4 * dimensions:
        raise _NoPlace("it is not of the target's dimensions")
    floats = struct.unpack(f"<{dimensions}f", blob)
    if not all(map(math.isfinite, floats)):
        raise _NoPlace("it holds NaN or an infinity, which pgvector refuses")
    return struct.pack(f">HH{dimensions}f", dimensions, 0, *floats)
