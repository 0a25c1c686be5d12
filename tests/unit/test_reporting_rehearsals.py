"""What a report says of rehearsals: the trend's plot, the forecast, and the last one beside a run."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from include.checkpoint_migration.findings import Verdict
from include.checkpoint_migration.rehearsal import Rehearsal, Rehearsals
from include.checkpoint_migration.reporting.forecast import (
    beside_rows,
    conflicts_told,
    told_of_rehearsals,
)
from include.checkpoint_migration.reporting.page_facts import PageFacts
from include.checkpoint_migration.reporting.report_html import render_page
from include.checkpoint_migration.reporting.trend import LISTED, trend_of
from tests.support.reports import report_of

ONE = Rehearsal(
    run_id="<b>weekly</b>",
    started="2026-11-05T03:00:00.000Z",
    verdict=Verdict.IDENTICAL,
    succeeded=True,
    seconds=20.0,
    threads=4,
    checkpoints=1_000,
    writes=2_000,
    tasks=12,
    tasks_for_twice=12,
    phases={"promote": 10.0},
    folder_bytes=5 << 20,
    staged_bytes=3 << 20,
    live_bytes=2 << 20,
)
RED = replace(
    ONE,
    started="2026-11-12T03:00:00.000Z",
    verdict=Verdict.UNPROVEN,
    succeeded=False,
    seconds=5.0,
    conflicts=3,
)
LATEST = replace(ONE, started="2026-11-19T03:00:00.000Z", seconds=40.0, checkpoints=2_000)


def rehearsed(this: Rehearsal | None, *past: Rehearsal) -> Rehearsals:
    return Rehearsals(this, past)


def page_with(rehearsals: Rehearsals) -> str:
    return render_page(report_of(), PageFacts(rehearsals=rehearsals))


def test_three_rehearsals_are_a_trend_and_one_is_none() -> None:
    """Bars stand in the order of time, as high as each took, and say what each came to."""
    assert trend_of([ONE]) is None
    trend = trend_of([ONE, RED, LATEST])
    assert trend is not None
    assert [bar.height for bar in trend.bars] == [50.0, 12.5, 100.0]
    assert [bar.verdict for bar in trend.bars] == [r.verdict for r in (ONE, RED, LATEST)]
    assert [bar.left for bar in trend.bars] == sorted(bar.left for bar in trend.bars)
    assert trend.bars[1].told == "2026-11-12 03:00, unproven, 1,000 checkpoints in 5.0 s"
    assert (trend.longest, trend.most) == ("40 s", "2,000")
    heights = [float(point.split(",")[1]) for point in trend.line.split()]
    assert heights[0] == heights[1] > heights[2] > 0
    assert [row[0] for row in trend.rows] == [
        "2026-11-19 03:00",
        "2026-11-12 03:00",
        "2026-11-05 03:00",
    ]


def test_a_year_of_rehearsals_is_drawn_and_the_latest_are_listed() -> None:
    """Every one has its bar within the plot; what the table leaves out is counted."""
    trend = trend_of([ONE] * 52)
    assert trend is not None
    assert len(trend.bars) == 52
    assert all(bar.left >= 0 and bar.left + bar.width <= 100 for bar in trend.bars)
    assert (len(trend.rows), trend.more) == (LISTED, 52 - LISTED)


@pytest.mark.parametrize("seconds", [0.0, 3.0])
def test_rehearsals_without_rows_or_time_are_drawn_all_the_same(seconds: float) -> None:
    """Red ones that stopped at once have neither; nothing is divided by nothing."""
    bare = replace(RED, checkpoints=None, seconds=seconds)
    trend = trend_of([bare, bare])
    assert trend is not None
    assert all(0 < bar.height <= 100 for bar in trend.bars)


def test_a_rehearsals_page_shows_forecast_conflicts_and_trend() -> None:
    """The page has what the real run will take, now and for twice the data, and a bar for each."""
    page = page_with(rehearsed(LATEST, ONE, RED))
    assert page.count("</title></rect>") == 3
    assert "the data as it is" in page
    assert "twice the data" in page
    assert "The real run would meet no conflict with live rows now." in page
    assert "&lt;b&gt;" not in page  # a run's id is not part of it
    assert "<b>weekly" not in page
    assert "Beside the last rehearsal" not in page


def test_a_real_run_has_the_last_rehearsal_beside_it() -> None:
    """Verdict, rows and duration stand side by side; no trend and no forecast of what is done."""
    report = report_of()
    rows = {name: (now, then) for name, now, then in beside_rows(report, rehearsed(None, ONE))}
    assert rows["verdict"] == (report.verdict.value, "identical")
    assert rows["checkpoints"] == ("856", "1,000")
    assert rows["duration"] == ("42 s", "20 s")
    page = page_with(rehearsed(None, ONE, RED))
    assert "Beside the last rehearsal" in page
    assert "2026-11-12 03:00" in page
    assert "</title></rect>" not in page


def test_a_run_that_nobody_rehearsed_says_nothing_of_rehearsals() -> None:
    """No empty table, no heading, no line in the log."""
    page = page_with(rehearsed(None))
    assert re.search("rehearsal", page.split("</style>")[1]) is None
    assert told_of_rehearsals(rehearsed(None)) == []


@pytest.mark.parametrize(
    ("this", "told"),
    [
        (LATEST, "The real run would meet no conflict with live rows now."),
        (RED, "The real run would meet 3 conflicts with live rows now."),
        (
            replace(RED, conflicts=0),
            "It did not come so far as to look for conflicts with live rows.",
        ),
        (None, ""),
    ],
)
def test_conflicts_are_told_only_where_live_was_asked(this: Rehearsal | None, told: str) -> None:
    """A rehearsal that stopped before does not say that there are none."""
    assert conflicts_told(rehearsed(this)) == told


def test_the_log_tells_the_forecast_and_the_last_rehearsal() -> None:
    """The same in lines: what the real run takes, and how many rehearsals there were."""
    told = " ".join(" ".join(told_of_rehearsals(rehearsed(LATEST, ONE, RED))).split())
    assert "The real run, with the data as it is: about 40 s; 5.0 MiB in the export folder;" in told
    assert "The real run, with twice the data: about 50 s;" in told
    assert "Rehearsals of this move so far: 3." in told
    (beside,) = told_of_rehearsals(rehearsed(None, ONE))
    assert beside == "The last rehearsal, 2026-11-05 03:00: identical, 1,000 checkpoints in 20 s."
