"""Pickled checkpoints of langgraph 0.0.30 to 0.0.38, read without running what they name.

Those releases pickled every checkpoint. Beside plain data they wrote three names, which are all that
is known here; whatever else a pickle names is refused and not looked up. Pure.
"""

from __future__ import annotations

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
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "deque"): deque,
    **{("datetime", kind.__name__): kind for kind in (date, datetime, time, timedelta, timezone)},
    ("decimal", "Decimal"): Decimal,
    ("uuid", "UUID"): UUID,
}


class _Unknown(Exception):
    """A pickle names something else; `str()` is its name."""


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
    """Take a checkpoint apart, and pickle each channel's value by itself."""
    return split_with(_loads, blob)
