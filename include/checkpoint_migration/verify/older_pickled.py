"""Pickled checkpoints of before langgraph 0.0.39, as the oracle reads them: by a list of names."""

from __future__ import annotations

import builtins
import collections
import datetime as dt
import decimal
import io
import pickle
import uuid
from types import ModuleType
from typing import Any

from .pickled import Pickled, open_pickled
from .source_checkpoint import Opened

MODULES: dict[str, tuple[ModuleType, str]] = {
    "builtins": (builtins, "int set frozenset bytearray complex"),
    "collections": (collections, "defaultdict OrderedDict deque"),
    "datetime": (dt, "date datetime time timedelta timezone"),
    "decimal": (decimal, "Decimal"),
    "uuid": (uuid, "UUID"),
}


class _Narrow(pickle.Unpickler):
    """Knows what those releases wrote themselves and plain values of Python's own."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" == "langgraph.checkpoint.base._seen_dict":
            return dict  # a factory of empty maps, which is all that it was
        known, names = MODULES.get(module, (builtins, ""))
        if name not in names.split():
            raise pickle.UnpicklingError("a name that langgraph did not write")
        return getattr(known, name)


class OlderPickled(Pickled):
    """A checkpoint of that time; nothing that it names is looked up."""

    __slots__ = ()

    @staticmethod
    def revive(data: bytes) -> Any:
        return _Narrow(io.BytesIO(data)).load()


def open_older_pickled(data: bytes) -> Opened:
    """Revive a checkpoint of that time, or raise `Unreadable`. Runs no code of the database."""
    return open_pickled(data, OlderPickled)
