"""Where a checkpoint read through PostgresSaver is not the one that SqliteSaver reads.

What the two layouts may spell differently is written down here and nowhere else in the read-back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.serde.types import TASKS

from ..texts import quoted
from . import javascript
from .equality import first_difference
from .older import RENAMED_BELOW, Edges, renamed

PENDING_SENDS = "pending_sends"
NEWEST = 4


class Found(NamedTuple):
    """One difference. `why` names no value."""

    table: str
    column: str
    why: str


def tuple_differences(
    source: CheckpointTuple,
    target: CheckpointTuple,
    *,
    sanitized: bool = False,
    edges: Callable[[], Edges] = frozenset,
) -> Iterator[Found]:
    """Every difference between a checkpoint of the source and the one read back.

    `edges` is asked for the thread's graph where an old checkpoint had its channels renamed.
    """
    if source.parent_config != target.parent_config:
        yield Found("checkpoints", "parent_checkpoint_id", "it has another parent")
    where = first_difference(source.metadata, target.metadata, by_value=True)
    if where and sanitized:
        where = first_difference(sanitize(source.metadata), target.metadata, by_value=True)
    if where:
        yield Found("checkpoints", "metadata", f"in its metadata, {where}")
    old, now = settled(dict(source.checkpoint)), settled(dict(target.checkpoint))
    if old["v"] < RENAMED_BELOW and now["v"] == NEWEST:
        old = renamed(old, edges())
    if javascript.is_javascript(old):
        old, now = javascript.as_javascript_reads(old, now)
    yield from _checkpoint(old, now)
    yield from _writes(list(source.pending_writes or ()), list(target.pending_writes or ()))


def settled(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint as Pregel loads it: pending sends of `v < 4` are a channel's value."""
    checkpoint = dict(checkpoint)
    sends = checkpoint.pop(PENDING_SENDS, None)
    if sends and checkpoint["v"] < NEWEST:
        versions = checkpoint["channel_versions"]
        checkpoint["channel_values"] = {**checkpoint["channel_values"], TASKS: sends}
        checkpoint["channel_versions"] = {**versions, TASKS: max(versions.values())}
    elif sends:
        checkpoint[PENDING_SENDS] = sends
    return checkpoint


def _checkpoint(source: dict[str, Any], target: dict[str, Any]) -> Iterator[Found]:
    if source.keys() != target.keys():
        yield Found("checkpoints", "checkpoint", "its envelope has other keys")
    for key in source.keys() & target.keys():
        before, after = source[key], target[key]
        if key == "channel_values":
            yield from _values(before, after)
        elif key == "channel_versions":
            yield from _versions(before, after, source.get("versions_seen"), target)
        elif key == "v" and type(before) is int and before < NEWEST and after == NEWEST:
            pass
        elif key != "versions_seen" and (where := first_difference(before, after, by_value=True)):
            yield Found("checkpoints", "checkpoint", f"in its {key}, {where}")


def _values(before: dict[str, Any], after: dict[str, Any]) -> Iterator[Found]:
    for channel in before.keys() - after.keys():
        yield Found("checkpoint_blobs", "blob", f"channel {quoted(channel)} has lost its value")
    for channel in after.keys() - before.keys():
        yield Found("checkpoint_blobs", "blob", f"channel {quoted(channel)} has gained a value")
    for channel in before.keys() & after.keys():
        if where := first_difference(before[channel], after[channel]):
            yield Found("checkpoint_blobs", "blob", f"in channel {quoted(channel)}, {where}")


def _versions(
    before: dict[str, Any], after: dict[str, Any], seen_before: Any, target: dict[str, Any]
) -> Iterator[Found]:
    seen_after = target.get("versions_seen")
    if before.keys() != after.keys():
        yield Found("checkpoints", "checkpoint", "its channel_versions name other channels")
        return
    for channel, version in before.items():
        if not _renamed(version, after[channel]):
            yield Found(
                "checkpoints", "checkpoint", f"channel {quoted(channel)} is of another version"
            )
    if not isinstance(seen_before, dict) or not isinstance(seen_after, dict):
        if seen_before != seen_after:
            yield Found("checkpoints", "checkpoint", "its versions_seen is of another shape")
        return
    if seen_before.keys() != seen_after.keys():
        yield Found("checkpoints", "checkpoint", "its versions_seen names other nodes")
        return
    for node, seen in seen_before.items():
        expected = {
            channel: after[channel] if before.get(channel) == version else version
            for channel, version in seen.items()
        }
        got = seen_after[node]
        if expected.keys() != got.keys() or not all(
            _spelled_alike(expected[channel], got[channel]) for channel in expected
        ):
            yield Found("checkpoints", "checkpoint", f"node {quoted(node)} has seen other versions")


def _padded(version: Any) -> Any:
    """An integer version as today's Python writes one."""
    return f"{version:032}.{0.0:016}" if type(version) is int else version


def _spelled_alike(before: Any, after: Any) -> bool:
    return bool((type(before) is type(after) and before == after) or _padded(before) == after)


def _renamed(before: Any, after: Any) -> bool:
    """Whether `after` is `before`, or `before` and a point and digits of its own."""
    if _spelled_alike(before, after):
        return True
    if not isinstance(after, str):
        return type(before) is int and javascript.renamed(before, after)
    plain, _, digits = after.rpartition(".")
    return _padded(before) == plain and digits.isascii() and digits.isdigit()


def _writes(before: list[Any], after: list[Any]) -> Iterator[Found]:
    """An application that resumes a thread adds to its latest checkpoint's writes: it may."""
    table = "checkpoint_writes"
    if len(before) > len(after):
        yield Found(table, "blob", f"it has {len(after)} pending writes instead of {len(before)}")
        return
    if len(before) < len(after):
        left = iter(after)
        for place, write in enumerate(before):
            if not any(_same_write(write, other) for other in left):
                why = f"pending write {place} is missing, changed or out of order"
                yield Found(table, "blob", why)
                return
        return
    for place, (one, other) in enumerate(zip(before, after, strict=True)):
        if tuple(one[:2]) != tuple(other[:2]):
            yield Found(table, "task_id", f"pending write {place} is of another task or channel")
        elif where := first_difference(one[2], other[2]):
            yield Found(table, "blob", f"in pending write {place}, {where}")


def _same_write(one: Any, other: Any) -> bool:
    return tuple(one[:2]) == tuple(other[:2]) and first_difference(one[2], other[2]) is None


def sanitize(value: Any) -> Any:
    """Metadata as `on_blocker: sanitize` leaves it: no NUL, lone surrogate, NaN or infinity."""
    if isinstance(value, str):
        clean = value.replace("\0", "")
        return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in clean)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {sanitize(key): sanitize(item) for key, item in value.items()}
    if isinstance(value, list):
        return [sanitize(item) for item in value]
    return value
