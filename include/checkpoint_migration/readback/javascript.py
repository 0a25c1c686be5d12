"""Where a checkpoint of LangGraph.js, read through Python's PostgresSaver, is not SqliteSaver's.

Both of Python's savers read these rows as plain JSON. They spell versions as they are stored, and do
not know that LangGraph.js itself rebuilds the pending sends of `v < 4` on both of its sides.
"""

from __future__ import annotations

from typing import Any

from langgraph.checkpoint.serde.types import TASKS

NEWEST = 4


def is_javascript(checkpoint: Any) -> bool:
    """Whether LangGraph.js wrote it: its versions are counts, its moment ends in Z."""
    moment, versions = checkpoint.get("ts"), checkpoint.get("channel_versions")
    return (
        isinstance(moment, str)
        and moment.endswith("Z")
        and isinstance(versions, dict)
        and all(type(version) is int for version in versions.values())
    )


def as_javascript_reads(
    source: dict[str, Any], target: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both sides without what may differ: the spelling of versions, and sends that are rebuilt."""
    values, versions = source["channel_values"], source["channel_versions"]
    source = {**source, "channel_versions": {**dict.fromkeys(values, 0), **versions}}
    if type(source["v"]) is int and source["v"] < NEWEST:
        source, target = _without_sends(source), _without_sends(target)
    return source, target


def _without_sends(checkpoint: dict[str, Any]) -> dict[str, Any]:
    cleaned = dict(checkpoint)
    for name in ("channel_values", "channel_versions"):
        cleaned[name] = {k: v for k, v in checkpoint[name].items() if k != TASKS}
    return cleaned


def renamed(before: int, after: Any) -> bool:
    """Whether `after` is the count `before`, or a fraction of its own beside it."""
    if type(after) is int:
        return before == after
    return type(after) is float and 0 < (after - before if before else -after) < 1
