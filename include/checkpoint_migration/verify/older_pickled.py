"""Pickled checkpoints of before langgraph 0.0.39, as the oracle reads them: by a list of names.

Where JSON holds all values, they must have become JSON, messages as langchain writes them; else pickles.
"""

from __future__ import annotations

import builtins
import collections
import datetime as dt
import decimal
import io
import json
import pickle
import re
import uuid
from types import ModuleType
from typing import Any

from .pickled import Pickled, as_plain, open_pickled
from .source_checkpoint import VALUES, Opened, Unreadable, same, strict_json

MODULES: dict[str, tuple[ModuleType, str]] = {
    "builtins": (builtins, "bool bytearray complex dict float frozenset int list set str tuple"),
    "collections": (collections, "defaultdict OrderedDict deque"),
    "datetime": (dt, "date datetime time timedelta timezone"),
    "decimal": (decimal, "Decimal"),
    "uuid": (uuid, "UUID"),
}
A_MESSAGE = re.compile(
    r"langchain_core\.messages\.(ai|chat|function|human|system|tool)"
    r"\.((?:AI|Chat|Function|Human|System|Tool)Message(?:Chunk)?)"
)


class _Said:
    """A message, of which nothing but its name and its fields is known."""

    name = ""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.kwargs = state["__dict__"]


class _Narrow(pickle.Unpickler):
    """Knows what those releases wrote themselves, messages, and plain values of Python's own."""

    def find_class(self, module: str, name: str) -> Any:
        whole = f"{module}.{name}"
        if whole == "langgraph.checkpoint.base._seen_dict":
            return dict  # a factory of empty maps, which is all that it was
        message = A_MESSAGE.fullmatch(whole)
        if message is not None and message[2].lower().startswith(message[1]):
            return type("Said", (_Said,), {"name": name})
        known, names = MODULES.get(module, (builtins, ""))
        if name not in names.split():
            raise pickle.UnpicklingError("a name that langgraph did not write")
        return getattr(known, name)


class OlderPickled(Pickled):
    """A checkpoint of that time that stays pickled; nothing that it names is looked up."""

    __slots__ = ()

    @staticmethod
    def revive(data: bytes) -> Any:
        return _Narrow(io.BytesIO(data)).load()


class AsJson(Opened):
    """A checkpoint of that time that JSON holds: a value is equal if it says the same."""

    __slots__ = ()

    def holds(self, span: tuple[int, int], blob: bytes) -> bool:
        if super().holds(span, blob):
            return True
        try:
            return same(self.value(span), strict_json(blob.decode()))
        except (UnicodeDecodeError, Unreadable, RecursionError):
            return False


def open_older_pickled(data: bytes) -> Opened:
    """Read a checkpoint of that time, or raise `Unreadable`. Runs no code of the database."""
    try:
        fields = OlderPickled.revive(data)
        values = fields.pop(VALUES)
        pieces = {channel: _spelled(value).encode() for channel, value in values.items()}
        fields = {name: as_plain(value) for name, value in fields.items()}
    except Exception:  # noqa: BLE001 - what JSON does not hold, or what cannot be read at all
        return open_pickled(data, OlderPickled)
    spans, end = {}, 0
    for channel, piece in pieces.items():
        spans[channel] = (end, end + len(piece))
        end += len(piece)
    return AsJson("json", b"".join(pieces.values()), fields, spans, None)


def _spelled(value: Any) -> str:
    """A value as JSON, or `TypeError` where JSON has no exact place for it."""
    if type(value) is dict:
        if "lc" in value or {str} != {str, *map(type, value)}:
            raise TypeError("a map that JSON would bring back as something else")
        members = (f"{json.dumps(key)}: {_spelled(item)}" for key, item in value.items())
        return "{" + ", ".join(members) + "}"
    if type(value) is list:
        return "[" + ", ".join(map(_spelled, value)) + "]"
    if isinstance(value, _Said):
        place = f'["langchain", "schema", "messages", "{value.name}"]'
        kwargs = _spelled(value.kwargs)
        return f'{{"lc": 1, "type": "constructor", "id": {place}, "kwargs": {kwargs}}}'
    if type(value) not in (str, int, float, bool, type(None)):
        raise TypeError("a value of another kind")
    if type(value) is str:
        value.encode()  # a lone surrogate has no place
    return json.dumps(value)
