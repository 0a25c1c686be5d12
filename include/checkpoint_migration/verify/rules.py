"""What a checkpoint has to look like in PostgreSQL, by the rules that docs/formats.md states."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from .older import NEWEST, Expected, Past, padded, upgraded
from .source_checkpoint import SENDS, Opened, Unreadable, same

TEXT, MAP = frozenset((str,)), frozenset((dict,))


def expected_envelope(opened: Opened, past: Past | None = None) -> Expected:
    """Return what a source checkpoint must become, or raise `Unreadable`.

    Today's stay as they are, older ones are brought up to date; `past` answers for those of `v`
    below 3.
    """
    fields = dict(opened.fields)
    versions = _map(fields.pop("channel_versions", {}), "channel_versions")
    fields.pop("versions_seen", None)
    seen = versions_seen(opened)
    now = Expected(fields, versions, seen, opened.spans)
    v = fields.get("v")
    if type(v) is not int:
        raise Unreadable("the source's v is no whole number")
    if v < NEWEST:
        return upgraded(now, opened, past)
    if opened.sends is not None:
        raise Unreadable(f"the source carries pending_sends at v {v}")
    return now


def versions_map(opened: Opened) -> dict[str, Any]:
    """Return the source's `channel_versions`, or raise `Unreadable` if it is no map."""
    return _map(opened.fields.get("channel_versions", {}), "channel_versions")


def versions_seen(opened: Opened) -> dict[str, dict[str, Any]]:
    """Return the source's `versions_seen`, or raise `Unreadable` if it is no map of maps."""
    seen = _map(opened.fields.get("versions_seen", {}), "versions_seen")
    if not MAP.issuperset(map(type, seen.values())) or not TEXT.issuperset(
        map(type, chain.from_iterable(seen.values()))
    ):
        raise Unreadable("the source's versions_seen is no map of maps")
    return seen


def _map(value: Any, name: str) -> dict[str, Any]:
    if type(value) is not dict or not TEXT.issuperset(map(type, value)):
        raise Unreadable(f"the source's {name} is no map")
    return value


def field_differences(expected: dict[str, Any], fields: dict[str, Any]) -> Iterator[str]:
    """Yield the names of the envelope's fields that are not equal; empty `pending_sends` may go."""
    for name, value in expected.items():
        if name not in fields:
            if name != SENDS or value:
                yield name
        elif not same(value, fields[name]):
            yield name
    yield from fields.keys() - expected.keys()


def version_allowed(source: Any, target: Any) -> bool:
    """Whether `target` is the source's version, or that with a dot and digits after it."""
    plain = padded(source)
    if type(plain) is not str or type(target) is not str:
        return same(plain, target)
    digits = target.removeprefix(f"{plain}.")
    return target == plain or (digits != target and digits.isascii() and digits.isdigit())
