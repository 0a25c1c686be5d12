"""Pickled checkpoints of langgraph 0.0.30 to 0.0.38, read without running what they name.

Those releases pickled every checkpoint. What JSON holds exactly becomes JSON as the next release, which
read these very rows, wrote it: messages too, whose classes of that time nobody can unpickle today. What
JSON does not hold stays a pickle. A name that is not known here is refused and not looked up. Pure.
"""

from __future__ import annotations

import json
import pickle
from collections import OrderedDict, defaultdict, deque
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

from ..texts import quoted
from .formats import NotSplittable, Split
from .pickles import split_with

KNOWN: dict[tuple[str, str], Any] = {
    # what the releases themselves wrote
    ("collections", "defaultdict"): defaultdict,
    ("builtins", "int"): int,
    ("langgraph.checkpoint.base", "_seen_dict"): dict,
    # values of Python's own that need a name
    **{("builtins", kind.__name__): kind for kind in (set, frozenset, bytearray, complex)},
    **{("builtins", kind.__name__): kind for kind in (bool, dict, float, list, str, tuple)},
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "deque"): deque,
    **{("datetime", kind.__name__): kind for kind in (date, datetime, time, timedelta, timezone)},
    ("decimal", "Decimal"): Decimal,
    ("uuid", "UUID"): UUID,
}
MESSAGES = {
    (f"langchain_core.messages.{kind.lower()}", f"{kind}Message{chunk}")
    for kind in ("AI", "Chat", "Function", "Human", "System", "Tool")
    for chunk in ("", "Chunk")
}
NAMESPACE = ["langchain", "schema", "messages"]  # that langchain gives them in JSON, then and today


class _Unknown(Exception):
    """A pickle names something else; `str()` is its name."""


class _NotJson(NotSplittable):
    """JSON does not hold a value exactly."""


class _Message:
    """Stands for a message: the fields that it was pickled with, and no behaviour."""

    fields: dict[str, Any]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.fields = state["__dict__"]

    def __reduce__(self) -> Any:
        raise NotSplittable("it is pickled, and holds messages beside what JSON does not hold")


class _File:
    """What an unpickler reads from, without a file."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def read(self, size: int) -> bytes:
        return self._to(self._at + size)

    def readline(self) -> bytes:
        return self._to(self._data.find(b"\n", self._at) + 1 or len(self._data))

    def _to(self, end: int) -> bytes:
        piece = self._data[self._at : end]
        self._at += len(piece)
        return piece


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in MESSAGES:
            return type(name, (_Message,), {})
        try:
            return KNOWN[module, name]
        except KeyError:
            raise _Unknown(f"{module}.{name}") from None

    def persistent_load(self, _pid: Any) -> Any:
        raise _Unknown("a persistent id")


def _loads(blob: bytes) -> Any:
    try:
        return _Reader(_File(blob)).load()
    except _Unknown as error:
        raise NotSplittable(
            f"it is pickled and names {quoted(str(error), 80)}, which langgraph did not write itself and "
            "which is not looked up: leave the thread out with the param `threads`"
        ) from None


def split_older_pickle(blob: bytes) -> Split:
    """Take a checkpoint apart: its values as JSON, or where that cannot be, each pickled by itself."""
    try:
        return split_with(_loads, blob, _as_json, "json")
    except _NotJson:
        return split_with(_loads, blob)


def _as_json(value: Any) -> bytes:
    try:
        return json.dumps(_exactly(value), ensure_ascii=False).encode()
    except (ValueError, RecursionError):  # lone surrogates, integers of thousands of digits
        raise _NotJson from None


def _exactly(value: Any) -> Any:
    """The value as JSON has it, or `_NotJson` where it would come back as another."""
    kind = type(value)
    if kind in (str, int, float, bool, type(None)):
        return value
    if kind is list:
        return [_exactly(item) for item in value]
    if kind is dict and all(type(key) is str for key in value) and "lc" not in value:
        return {key: _exactly(item) for key, item in value.items()}
    if isinstance(value, _Message):
        name = [*NAMESPACE, kind.__name__]
        kwargs = _exactly(value.fields)
        return {"lc": 1, "type": "constructor", "id": name, "kwargs": kwargs}
    raise _NotJson
