"""What the two layouts may spell differently, and what they may not."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.checkpoint.base import CheckpointTuple

from include.checkpoint_migration.readback.rules import sanitize, tuple_differences

NAN = float("nan")


def pair(before: dict[str, Any], after: dict[str, Any], **metadata: Any) -> list[Any]:
    def made(changes: dict[str, Any], meta: Any) -> CheckpointTuple:
        checkpoint = {
            "v": 4,
            "id": "1",
            "channel_values": {},
            "channel_versions": {},
            "versions_seen": {},
            **changes,
        }
        return CheckpointTuple({}, checkpoint, meta, None, [])  # type: ignore[arg-type]

    left = made(before, metadata.get("before", {}))
    return list(tuple_differences(left, made(after, metadata.get("after", {}))))


def versions(version: Any, seen: Any, channel: str = "c") -> dict[str, Any]:
    return {
        "channel_values": {channel: "x"},
        "channel_versions": {channel: version},
        "versions_seen": {"node": {channel: seen}},
    }


PLAIN = "00000000000000000000000000000003.0.4132930725790481"
PADDED = "00000000000000000000000000000003.00000000000000.0"


@pytest.mark.parametrize(
    ("before", "after", "equal"),
    [
        ((PLAIN, PLAIN), (PLAIN, PLAIN), True),
        ((PLAIN, PLAIN), (PLAIN + ".0123", PLAIN + ".0123"), True),
        ((PLAIN, PLAIN), (PLAIN + ".0123", PLAIN), False),
        ((PLAIN, PLAIN), (PLAIN, PLAIN + ".0123"), False),
        ((PLAIN, "older"), (PLAIN + ".0123", "older"), True),
        ((PLAIN, "older"), (PLAIN + ".0123", PLAIN + ".0123"), False),
        ((PLAIN, PLAIN), (PLAIN + "x", PLAIN + "x"), False),
        ((PLAIN, PLAIN), (PLAIN + ".12a", PLAIN + ".12a"), False),
        ((PLAIN, PLAIN), (PLAIN + ".", PLAIN + "."), False),
        ((3, 2), (3, 2), True),
        ((3, 3), (PADDED, PADDED), True),
        ((3, 3), (PADDED, 3), False),
        ((3, 3), ("3", "3"), False),
        ((3, 3), (PADDED + ".77", PADDED + ".77"), True),
        ((3, 2), (4, 2), False),
        ((1, 1), (True, True), False),
    ],
)
def test_versions_may_be_renamed_in_one_way_only(before: Any, after: Any, equal: bool) -> None:
    """A version stays, gains a point and digits, or is padded; versions_seen follows its equal."""
    assert (pair(versions(*before), versions(*after)) == []) is equal


def test_pending_sends_of_old_checkpoints_become_a_channels_value() -> None:
    """`v` below 4 with pending sends is the same as 4 with them as the channel's value."""
    before = {**versions(PLAIN, PLAIN), "v": 3, "pending_sends": ["send"]}
    after = versions(PLAIN, PLAIN)
    after["channel_values"]["__pregel_tasks"] = ["send"]
    after["channel_versions"]["__pregel_tasks"] = PLAIN
    assert pair(before, after) == []
    assert pair(before, versions(PLAIN, PLAIN))
    after["channel_values"]["__pregel_tasks"] = ["send", "send"]
    assert pair(before, after)
    assert pair({"v": 4}, {"v": 3})
    assert pair({"v": 4, "pending_sends": ["send"]}, {"v": 4})


def test_sanitized_metadata_is_held_against_its_sanitized_source() -> None:
    """What sanitising drops is no difference when it was asked for, and one when it was not."""
    before = {"a\0": ["\0x\ud800", float("inf"), NAN, 1.5], "n": None}
    assert sanitize(before) == {"a": ["x\ufffd", None, None, 1.5], "n": None}
    left = CheckpointTuple({}, _empty(), before, None, [])  # type: ignore[arg-type]
    right = CheckpointTuple({}, _empty(), sanitize(before), None, [])  # type: ignore[arg-type]
    assert list(tuple_differences(left, right, sanitized=True)) == []
    assert list(tuple_differences(left, right))


def _empty() -> dict[str, Any]:
    return {"v": 4, "channel_values": {}, "channel_versions": {}, "versions_seen": {}}
