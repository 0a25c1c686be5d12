"""What PostgresSaver could not read of a checkpoint is a blocker, though each row of it would fit."""

from __future__ import annotations

import pytest

from include.checkpoint_migration.convert.formats import Split
from include.checkpoint_migration.convert.gathered import MOST_GATHERED, gathered_problems
from include.checkpoint_migration.model import TargetWrite

ENVELOPE = b"{}"
HALF = bytes(MOST_GATHERED // 2)  # no page of it is ever touched
WHOLE = bytes(MOST_GATHERED - 200)
NEARLY = bytes(MOST_GATHERED - (1 << 20))


def split(**values: bytes) -> Split:
    return Split({}, values, "msgpack")


def write(value: bytes, channel: str = "c") -> TargetWrite:
    return TargetWrite("task", "", 0, channel, "msgpack", value)


def columns(of: Split | None, *writes: TargetWrite, checkpoint: bytes = ENVELOPE) -> list[str]:
    return [p.column for p in gathered_problems(of, writes, checkpoint, b"{}")]


@pytest.mark.parametrize(
    ("of", "writes", "found"),
    [
        (split(a=b"1", b=b"2"), [], []),
        (split(a=WHOLE), [write(b"1")], []),
        (split(a=WHOLE, b=bytes(300)), [], ["checkpoint"]),
        (split(a=HALF, b=HALF), [], ["checkpoint"]),
        (split(a=HALF), [write(HALF)], []),
        (None, [write(HALF), write(HALF)], ["writes.value"]),
        (None, [write(WHOLE)], []),
        (split(a=WHOLE + b"1" * 300), [write(HALF)], ["checkpoint"]),
    ],
)  # fmt: skip
def test_blobs_and_writes_may_be_half_a_gigabyte_each(
    of: Split | None, writes: list[TargetWrite], found: list[str]
) -> None:
    """Each array that the reader asks for has this limit, whatever the other one holds."""
    assert columns(of, *writes) == found


def test_a_row_of_the_servers_ends_at_a_gigabyte() -> None:
    """Blobs, writes and JSON that fit one by one do not together."""
    assert columns(split(a=NEARLY), write(NEARLY)) == []
    assert columns(split(a=NEARLY), write(NEARLY), checkpoint=bytes(2 << 20)) == ["checkpoint"]


def test_many_small_writes_count_with_what_each_adds() -> None:
    """Names and headers are part of the array."""
    named = [write(b"", "c" * 1000)] * 140_000
    assert columns(None, *named) == ["writes.value"]


def test_the_largest_channel_is_named_and_no_value() -> None:
    """A person learns which channel to look at."""
    [problem] = gathered_problems(split(small=HALF, large=WHOLE), [], ENVELOPE, ENVELOPE)
    assert "(the largest: channel 'large')" in problem.why
