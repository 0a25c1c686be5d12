"""What a long task says while it works."""

from __future__ import annotations

import re

import pytest

from include.checkpoint_migration.figures import format_about, format_rate, format_seconds
from include.checkpoint_migration.progress import Progress


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines() -> list[str]:
    return []


def figure(line: str) -> int:
    found = re.search(r"[\d,]+", line)
    assert found
    return int(found[0].replace(",", ""))


def test_line_has_figure_rate_and_time_left(clock: Clock, lines: list[str]) -> None:
    """A line says how many of how many, how fast, and how long it will still take."""
    progress = Progress(50_000, "checkpoints", lines.append, clock=clock, verb="exported")
    clock.now += 5
    progress.advance(12_000)
    assert lines == ["exported 12,000 of 50,000 checkpoints, 24 % · 2,400/s · about 16 s left"]


def test_lines_come_at_most_every_five_seconds_and_rise(clock: Clock, lines: list[str]) -> None:
    """However often work advances, two lines are at least `every` apart and their figures rise."""
    at: list[float] = []

    def log(line: str) -> None:
        at.append(clock.now)
        lines.append(line)

    progress = Progress(100_000, "checkpoints", log, clock=clock)
    for _ in range(10_000):
        clock.now += 0.003
        progress.advance(10)
    assert 5 <= len(lines) <= 6
    assert all(b - a >= 5 for a, b in zip([1000.0, *at], at, strict=False))
    assert [figure(line) for line in lines] == sorted({figure(line) for line in lines})


def test_silence_when_no_time_passes(clock: Clock, lines: list[str]) -> None:
    """Work that ends within `every` seconds logs its last line alone."""
    progress = Progress(20, "batches", lines.append, clock=clock, verb="loaded")
    for _ in range(20):
        progress.advance()
    clock.now += 2
    progress.done()
    assert lines == ["loaded 20 batches in 2.0 s · 10/s"]


def test_done_says_total_and_seconds_once(clock: Clock, lines: list[str]) -> None:
    """The last line has the total and the seconds, and a second `done` adds nothing."""
    progress = Progress(50_000, "checkpoints", lines.append, clock=clock, verb="exported")
    clock.now += 4
    progress.advance(50_000)
    clock.now += 1.6
    progress.done()
    progress.done()
    assert lines == ["exported 50,000 checkpoints in 5.6 s · 8,900/s"]


def test_done_before_the_total_does_not_claim_it(clock: Clock, lines: list[str]) -> None:
    """Work that stops short says both figures."""
    progress = Progress(100, "rows", lines.append, clock=clock, verb="compared")
    progress.advance(40)
    clock.now += 8
    progress.done()
    assert lines == ["compared 40 of 100 rows in 8.0 s · 5.0/s"]


def test_nothing_to_do_is_said_without_a_rate(clock: Clock, lines: list[str]) -> None:
    """A total of zero divides nothing by nothing."""
    Progress(0, "checkpoints", lines.append, clock=clock, verb="exported").done()
    assert lines == ["exported 0 checkpoints in 0.00 s"]


def test_clock_that_stands_still_divides_nothing_by_zero(clock: Clock, lines: list[str]) -> None:
    """With `every` zero and no time gone by, a line has no rate and no estimate."""
    Progress(10, "rows", lines.append, every=0, clock=clock).advance(3)
    assert lines == ["done 3 of 10 rows, 30 %"]


def test_more_than_the_total_promises_no_time_left(clock: Clock, lines: list[str]) -> None:
    """A source that held more than was counted gets figures, and no negative estimate."""
    progress = Progress(10, "rows", lines.append, clock=clock)
    clock.now += 10
    progress.advance(20)
    assert lines == ["done 20 of 10 rows · 2.0/s"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 s"),
        (0.04, "0.04 s"),
        (0.44, "0.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (65, "1 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7530, "2 h 05 min"),
    ],
)
def test_seconds_round_without_a_60th(seconds: float, text: str) -> None:
    """A measured duration carries over into the next unit and never says 60."""
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "1 s"), (3.2, "4 s"), (90, "90 s"), (91, "2 min"), (5400, "90 min"), (7500, "2 h 5 min")],
)
def test_estimates_are_coarse_and_never_short(seconds: float, text: str) -> None:
    """An estimate rounds up."""
    assert format_about(seconds) == text


@pytest.mark.parametrize(
    ("rate", "text"),
    [(0.34, "0.3/s"), (9.96, "10.0/s"), (42.4, "42/s"), (999.4, "999/s"), (8_929, "8,900/s")],
)
def test_rates_carry_no_false_precision(rate: float, text: str) -> None:
    """A rate in the thousands is rounded to hundreds."""
    assert format_rate(rate) == text


def test_what_was_done_before_is_told_apart(clock: Clock, lines: list[str]) -> None:
    """Of work that an earlier try did the line says so, and its rate is that of this try alone."""
    progress = Progress(3_000, "checkpoints", lines.append, clock=clock, verb="loaded")
    progress.skip(1_000)
    clock.now += 5
    progress.advance(500)
    clock.now += 4
    progress.advance(1_500)
    clock.now += 1
    progress.done()
    assert lines == [
        "loaded 500 of 3,000 checkpoints, 50 % · 100/s · 1,000 found loaded before · about 15 s left",
        "loaded 2,000 checkpoints in 10 s · 200/s · 1,000 found loaded before",
    ]


def test_nothing_is_claimed_where_all_was_done_before(clock: Clock, lines: list[str]) -> None:
    """A try that finds every receipt has loaded nothing, and has no rate."""
    progress = Progress(3_000, "checkpoints", lines.append, clock=clock, verb="loaded")
    progress.skip(3_000)
    clock.now += 1
    progress.done()
    assert lines == ["loaded 0 checkpoints in 1.0 s · 3,000 found loaded before"]
