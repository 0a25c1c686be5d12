"""How long a phase worked: waiting between its tasks, and before another try, is no work. Pure."""

from __future__ import annotations

from collections.abc import Iterable


def working_seconds(intervals: Iterable[tuple[float, float]]) -> float:
    """The seconds in which at least one of the intervals (start, end) ran, in whatever order they come.

    One that ends before it starts, as a clock that was set back makes them, counts for nothing.
    """
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        if end > reached:
            total += max(0.0, end - max(start, reached))
            reached = end
    return total
