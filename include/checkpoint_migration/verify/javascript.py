"""What a checkpoint of LangGraph.js must look like in PostgreSQL, by what its own reader does. Pure.

The reader takes `channel_versions`, joins each number's text with a blob's version, and knows no
value but those. To it 0 and less are versions of what was never written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from ..texts import quoted
from .compare import Blob, Envelope, Finding
from .rules import field_differences, versions_map, versions_seen
from .source_checkpoint import Opened, Unreadable

NEWEST = 4


def is_javascript(opened: Opened) -> bool:
    """Whether LangGraph.js wrote it: JSON without a space, and a moment that ends in Z."""
    moment = opened.fields.get("ts")
    return (
        opened.type == "json"
        and opened.data[:5] == b'{"v":'
        and opened.data[5:6].isdigit()
        and type(moment) is str
        and moment.endswith("Z")
    )


def compare_javascript(
    opened: Opened, target: Envelope, blobs: Mapping[tuple[str, str], Blob | None]
) -> Iterator[Finding]:
    """Yield how a target checkpoint differs from what LangGraph.js's must have become."""
    was, versions, seen = versions_map(opened), target.versions, target.seen
    seen_was = versions_seen(opened)
    plain = {
        k: v for k, v in opened.fields.items() if k not in ("channel_versions", "versions_seen")
    }
    v = plain.get("v")
    if type(v) is not int or v > NEWEST or opened.sends is not None:
        raise Unreadable("the source's v or pending_sends are not LangGraph.js's")
    if not was and opened.spans:
        raise Unreadable("the source holds values and not one version")
    for name in field_differences(plain, target.fields):
        yield _checkpoint(f"the field {quoted(name)} is not equal")
    for channel in target.inline:
        yield _checkpoint(f"channel {quoted(channel)} is inline, where LangGraph.js does not look")
    expected = {**dict.fromkeys(opened.spans, 0), **was}
    for channel in expected.keys() ^ versions.keys():
        yield _checkpoint(f"channel_versions has {quoted(channel)} on one side alone")
    for channel in expected.keys() & versions.keys():
        if not _allowed(expected[channel], versions[channel]):
            yield _checkpoint(f"channel_versions has another version for {quoted(channel)}")
        yield from _value(opened, channel, blobs.get((channel, str(versions[channel]))))
    for node in seen_was.keys() ^ seen.keys():
        yield _checkpoint(f"versions_seen has {quoted(node)} on one side alone")
    for node in seen_was.keys() & seen.keys():
        follows = {
            channel: versions.get(channel) if number == was.get(channel) else number
            for channel, number in seen_was[node].items()
        }
        if not _same_numbers(follows, seen[node]):
            yield _checkpoint(f"versions_seen of {quoted(node)} is not equal")


def _checkpoint(why: str) -> Finding:
    return Finding("checkpoints", "checkpoint", why)


def _value(opened: Opened, channel: str, blob: Blob | None) -> Iterator[Finding]:
    table, of = "checkpoint_blobs", f"channel {quoted(channel)}"
    span = opened.spans.get(channel)
    if span is None:
        if blob is not None:
            yield Finding(table, "blob", f"{of} has a blob, and the source has no value")
    elif blob is None:
        yield Finding(table, "blob", f"{of} has no blob")
    elif blob.type != "json":
        yield Finding(table, "type", f"{of} has a blob of another type")
    elif blob.bytes is None or not opened.holds(span, blob.bytes):
        yield Finding(table, "blob", f"{of} has other bytes")


def _allowed(source: Any, target: Any) -> bool:
    """Whether `target` is the count `source`, or that with a fraction that JavaScript prints alike."""
    if type(source) is not int or source < 0:
        raise Unreadable("a version of the source is no count")
    if type(target) is int:
        return source == target
    if type(target) is not Decimal:
        return False
    text = str(target)
    whole = text.removeprefix("-0.") if source == 0 else text.removeprefix(f"{source}.")
    # Python and JavaScript both print the shortest digits that give the same double again
    return whole != text and whole.isdigit() and repr(float(text)) == text


def _same_numbers(expected: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    return expected.keys() == found.keys() and all(
        type(number) is type(found[channel]) and number == found[channel]
        for channel, number in expected.items()
    )
