"""A phase's seconds are those in which at least one of its tasks worked."""

from __future__ import annotations

import random

import pytest

from include.checkpoint_migration.reporting.timing import working_seconds

Intervals = list[tuple[float, float]]


@pytest.mark.parametrize(
    ("intervals", "seconds"),
    [
        ([], 0),
        ([(10, 14)], 4),
        ([(0, 2), (2, 5)], 5),
        ([(0, 2), (60, 63)], 5),  # half a minute until the next try, or a queue, is no work
        ([(0, 10), (2, 3), (9, 12)], 12),
        ([(5, 9), (0, 6)], 9),
        ([(0, 4), (0, 4), (0, 4)], 4),
        ([(3, 3)], 0),
        ([(9, 2), (20, 21)], 1),
    ],
)
def test_waiting_is_not_counted_and_work_side_by_side_is_counted_once(
    intervals: Intervals, seconds: float
) -> None:
    """Gaps between tasks fall out, overlaps count once, a clock set back counts for nothing."""
    assert working_seconds(intervals) == seconds


def test_the_union_is_that_of_the_single_seconds() -> None:
    """Of any intervals, in any order, the result is what counting second by second gives."""
    dice = random.Random(7)
    for _ in range(500):
        starts = [dice.randrange(50) for _ in range(dice.randrange(12))]
        intervals: Intervals = [(start, start + dice.randrange(9)) for start in starts]
        seconds = {s for start, end in intervals for s in range(int(start), int(end))}
        assert working_seconds(intervals) == len(seconds)
