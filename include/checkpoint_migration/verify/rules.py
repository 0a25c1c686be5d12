"""What a checkpoint has to look like in PostgreSQL, by the rules that docs/formats.md states."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple

from .opened import SENDS, Opened, Unreadable, same

TASKS = "__pregel_tasks"
NEWEST = 4


class Expected(NamedTuple):
    """What the target must hold: plain fields, versions (before renames), and spans of values."""

    fields: dict[str, Any]
    versions: dict[str, Any]
    seen: dict[str, dict[str, Any]]
    spans: dict[str, tuple[int, int]]


def expected_envelope(opened: Opened) -> Expected:
    """Return what a source checkpoint must become, or raise `Unreadable`.

    Today's checkpoints stay as they are. One of `v` 3 becomes 4, because PostgreSQL's reader
    rebuilds `pending_sends` for anything older from the parent's writes; what it carries itself
    becomes the channel `__pregel_tasks` at the greatest version, as LangGraph does on load.
    """
    fields = dict(opened.fields)
    versions = _map(fields.pop("channel_versions", {}), "channel_versions")
    seen = _map(fields.pop("versions_seen", {}), "versions_seen")
    for entries in seen.values():
        _map(entries, "versions_seen")
    spans = opened.spans
    v = fields.get("v")
    if type(v) is not int:
        raise Unreadable("the source's v is no whole number")
    if v < NEWEST:
        fields, versions, spans = _of_older(v, fields, versions, opened)
    elif opened.sends is not None:
        raise Unreadable(f"the source carries pending_sends at v {v}")
    return Expected(fields, versions, seen, spans)


def _of_older(
    v: int, fields: dict[str, Any], versions: dict[str, Any], opened: Opened
) -> tuple[dict[str, Any], dict[str, Any], dict[str, tuple[int, int]]]:
    if v != NEWEST - 1:
        raise Unreadable(f"checkpoints of v {v} are not proven by this release")
    fields = {**fields, "v": NEWEST}
    if opened.sends is None:
        return fields, versions, opened.spans
    if not versions:
        raise Unreadable("the source carries pending_sends and no versions")
    del fields[SENDS]
    newest = max(versions.values())
    return fields, {**versions, TASKS: newest}, {**opened.spans, TASKS: opened.sends}


def _map(value: Any, name: str) -> dict[str, Any]:
    if type(value) is not dict or not all(type(key) is str for key in value):
        raise Unreadable(f"the source's {name} is no map")
    return value


def field_differences(expected: dict[str, Any], fields: dict[str, Any]) -> Iterator[str]:
    """Yield the names of the envelope's fields that are not equal; empty `pending_sends` may go."""
    for name in expected.keys() | fields.keys():
        if name not in fields:
            if name != SENDS or expected[name]:
                yield name
        elif name not in expected or not same(expected[name], fields[name]):
            yield name


class Versions:
    """Judges a thread's versions: equal, padded integers, or renamed for a collision.

    All integers of a thread are either padded to the text that `PostgresSaver` counts on from, or
    kept, which only LangGraph.js can read; the first one of a thread decides.
    """

    def __init__(self) -> None:
        self._padded: bool | None = None

    def settle(self, source: Any, target: Any, *, may_keep: bool) -> None:
        """Learn from the first integer of a thread how the others must look."""
        if self._padded is None and type(source) is int:
            self._padded = isinstance(target, str) or not may_keep

    def plain(self, source: Any) -> Any:
        """The version as the target has it when nothing collides."""
        if type(source) is int and self._padded is not False:
            return f"{source:032}.{0.0:016}"
        return source

    def allowed(self, source: Any, target: Any) -> bool:
        """Whether `target` is the source's version, or that with a dot and digits after it."""
        plain = self.plain(source)
        if same(plain, target):
            return True
        if type(target) not in (str, Decimal) or (type(target) is str) != (type(plain) is str):
            return False
        if target == plain:  # 3.0 is no other number than 3
            return False
        digits = str(target).removeprefix(f"{plain}.")
        return digits != str(target) and digits.isascii() and digits.isdigit()


def version_text(version: Any) -> str | None:
    """The text under which PostgreSQL joins a version with its blob, None if it can join none."""
    if isinstance(version, (str, Decimal)) or type(version) is int:
        return str(version)
    return None
