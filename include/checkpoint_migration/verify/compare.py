"""One checkpoint, one write: is the target's row what the source's row must have become? Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from itertools import chain
from typing import Any, NamedTuple

from ..errors import KeyNeeded
from ..model import CheckpointRow, SourceText, WriteRow
from ..texts import quoted
from .metadata import metadata_differs
from .older import Expected, padded
from .rules import field_differences, version_allowed
from .source_checkpoint import EXT_HEADERS, Opened, Unreadable, as_bytes, same, strict_json

TEXT, MAP = frozenset((str,)), frozenset((dict,))
RARE = frozenset((0xC3, *EXT_HEADERS))
"""How True, and what may be a snapshot, begin."""


class Finding(NamedTuple):
    """Where one pair of rows differs, and why; names no value."""

    table: str
    column: str
    why: str


class TargetCheckpoint(NamedTuple):
    """A row of the target's `checkpoints`; JSONB arrives as text."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    parent_checkpoint_id: str | None
    type: str | None
    checkpoint: str
    metadata: str


class Envelope(NamedTuple):
    """The target's JSONB, parsed, its maps set apart; `texts` says that all versions are texts."""

    fields: dict[str, Any]
    inline: dict[str, Any]
    versions: dict[str, Any]
    seen: dict[str, Any]
    texts: bool

    def blob_keys(self) -> Iterable[tuple[str, str]]:
        """Return the channels and versions under which the reader looks for blobs."""
        if self.texts:
            return self.versions.items()
        # the reader joins on the text of a version, be it one or a number
        return [(c, str(v)) for c, v in self.versions.items() if type(v) in (str, int, Decimal)]


class Blob(NamedTuple):
    type: str
    bytes: bytes | None


def parse_envelope(checkpoint: str) -> Envelope:
    """Parse the target's `checkpoint`, or raise `Unreadable`."""
    fields = strict_json(checkpoint)
    if type(fields) is not dict:
        raise Unreadable("the target's checkpoint is no object")
    maps = [
        fields.pop(name, {}) for name in ("channel_values", "channel_versions", "versions_seen")
    ]
    if not MAP.issuperset(map(type, maps)):
        raise Unreadable("one of the maps in the target's checkpoint is none")
    if not MAP.issuperset(map(type, maps[2].values())):
        raise Unreadable("the target's versions_seen is no map of maps")
    inline, versions, seen = maps
    entries = chain(versions.values(), *[entries.values() for entries in seen.values()])
    texts = TEXT.issuperset(map(type, entries))
    return Envelope(fields, inline, versions, seen, texts)


class Pair(NamedTuple):
    """A checkpoint of both sides: the source's, what that must have become, and the target's."""

    opened: Opened
    expected: Expected
    target: Envelope
    blobs: Mapping[tuple[str, str], Blob | None]
    decrypt: Callable[[str, bytes], bytes]

    def blob(self, channel: str) -> Blob | None:
        version = self.target.versions.get(channel)
        return self.blobs[channel, version] if type(version) is str else None


def compare_checkpoint(pair: Pair) -> Iterator[Finding]:
    """Yield how a target checkpoint differs from what the source's must have become."""
    source, target = pair.expected, pair.target
    for name in field_differences(source.fields, target.fields):
        yield _envelope(f"the field {quoted(name)} is not equal")
    if not (target.texts and source.versions == target.versions and source.seen == target.seen):
        yield from _compare_versions(pair)
        yield from _compare_seen(pair)
    for channel, span in _unusual(pair):
        if channel in source.versions:
            yield from _compare_value(pair, channel, span)
        else:
            yield from _compare_inline(pair, channel, span)
    for channel in target.inline.keys() - source.spans.keys():
        yield _value(channel, "is inline, and the source has no value")
    for channel in target.versions.keys() - source.spans.keys():
        if pair.blob(channel) is not None:
            yield _blob("blob", channel, "has a blob, and the source has no value")


def _unusual(pair: Pair) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield the channels that must be looked at closely: not a plain blob of equal bytes."""
    opened, source, target, blobs, _ = pair
    for channel, span in source.spans.items():
        blob = blobs.get((channel, target.versions.get(channel, "")))
        if (
            blob is None
            or blob.bytes is None
            or not blob.type == opened.type == "msgpack"
            or channel not in source.versions
            or channel in target.inline
            or opened.data[span[0]] in RARE
            or not opened.holds(span, blob.bytes)
        ):
            yield channel, span


def _envelope(why: str) -> Finding:
    return Finding("checkpoints", "checkpoint", why)


def _value(channel: str, why: str) -> Finding:
    return _envelope(f"channel {quoted(channel)} {why}")


def _blob(column: str, channel: str, why: str) -> Finding:
    return Finding("checkpoint_blobs", column, f"channel {quoted(channel)} {why}")


def _compare_versions(pair: Pair) -> Iterator[Finding]:
    source, target = pair.expected.versions, pair.target.versions
    for channel, version in source.items():
        if channel not in target:
            yield _envelope(f"channel_versions lacks {quoted(channel)}")
        elif not version_allowed(version, target[channel]):
            yield _envelope(f"channel_versions has another version for {quoted(channel)}")
    for channel in target.keys() - source.keys():
        yield _envelope(f"channel_versions has {quoted(channel)}, which the source has not")


def _compare_seen(pair: Pair) -> Iterator[Finding]:
    source, target = pair.expected.seen, pair.target.seen
    for node in source.keys() ^ target.keys():
        yield _envelope(f"versions_seen has {quoted(node)} on one side alone")
    for node in source.keys() & target.keys():
        of = f"versions_seen of {quoted(node)}"
        for channel in source[node].keys() ^ target[node].keys():
            yield _envelope(f"{of} has {quoted(channel)} on one side alone")
        for channel in source[node].keys() & target[node].keys():
            version = source[node][channel]
            if _identical(version, pair.expected.versions.get(channel)):
                must = pair.target.versions.get(channel)  # follows a rename
            else:
                must = padded(version)
            if not same(must, target[node][channel]):
                yield _envelope(f"{of} has another version for {quoted(channel)}")


def _identical(left: Any, right: Any) -> bool:
    return type(left) is type(right) and bool(left == right)


def _compare_value(pair: Pair, channel: str, span: tuple[int, int]) -> Iterator[Finding]:
    inline, blob = pair.target.inline, pair.blob(channel)
    if pair.opened.is_true(span):
        if inline.get(channel) is not True:
            yield _value(channel, "is True in the source and not inline")
        if blob is not None:
            yield _blob("blob", channel, "is True in the source, and has a blob")
        return
    if pair.opened.is_snapshot(span):
        if inline.get(channel) is not True:
            yield _value(channel, "is a snapshot without its inline marker")
    elif channel in inline:
        yield _value(channel, "is inline, where only True may be")
    if blob is None:
        yield _blob("blob", channel, "has no blob")
    elif differs := _blob_differs(pair, span, blob):
        yield _blob(differs[0], channel, differs[1])


def _compare_inline(pair: Pair, channel: str, span: tuple[int, int]) -> Iterator[Finding]:
    if channel not in pair.target.inline:
        yield _value(channel, "has no version, and is not inline")
        return
    try:
        equal = same(pair.opened.value(span), pair.target.inline[channel])
    except (Unreadable, RecursionError):
        equal = False
    if not equal:
        yield _value(channel, "is inline and not equal")


def _blob_differs(pair: Pair, span: tuple[int, int], blob: Blob) -> tuple[str, str] | None:
    """Return column and reason if a blob is not the value of `span` with the source's type."""
    if blob.type != pair.opened.type:
        return "type", "has a blob of another type"
    if blob.bytes is None:
        return "blob", "has a blob without bytes"
    content = blob.bytes
    if "+" in blob.type:
        try:
            content = pair.decrypt(blob.type, content)
        except (Unreadable, KeyNeeded):
            return "blob", "has a blob that does not decrypt"
    return None if pair.opened.holds(span, content) else ("blob", "has other bytes")


def compare_plain_columns(
    source: CheckpointRow, target: TargetCheckpoint, original: bytes | None
) -> Iterator[Finding]:
    """Yield how parent, type and metadata differ; `original` says that metadata was sanitised."""
    if not _same_text(source.parent_checkpoint_id, target.parent_checkpoint_id):
        yield Finding("checkpoints", "parent_checkpoint_id", "the parent is not equal")
    if target.type is not None:
        yield Finding("checkpoints", "type", "the saver leaves this column NULL")
    if why := metadata_differs(source.metadata, target.metadata, original):
        yield Finding("checkpoints", "metadata", why)


def _same_text(source: SourceText | None, target: str | None) -> bool:
    return not isinstance(source, bytes) and source == target


def compare_write(source: WriteRow, target: tuple[Any, ...]) -> Iterator[Finding]:
    """Yield how two pending writes with one key differ; both have the columns of `WriteRow`."""
    theirs = WriteRow._make(target)
    for column in ("task_path", "channel", "type"):
        if not _same_text(getattr(source, column), getattr(theirs, column)):
            yield Finding("checkpoint_writes", column, f"the {column} is not equal")
    if source.value is None or as_bytes(source.value) != theirs.value:
        yield Finding("checkpoint_writes", "blob", "the bytes are not equal")


def checkpoint_key(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(map(_id, row[:3]))


def write_key(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the key of a write; an `idx` that is no integer sorts first and equals nothing."""
    idx = row[5] if type(row[5]) is int else -math.inf
    return (*map(_id, row[:4]), idx)


def _id(value: SourceText) -> str:
    """An id as the target would have it; what is no text gets one that no target row can have."""
    if isinstance(value, str):
        return value
    return value.decode("utf-8", "surrogateescape") + "\udcff"
