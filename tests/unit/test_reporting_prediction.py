"""What a rehearsal foretells of the real run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from include.checkpoint_migration.findings import Verdict
from include.checkpoint_migration.rehearsal import Rehearsal
from include.checkpoint_migration.reporting.prediction import LOOKING_AROUND, predict

REHEARSED = Rehearsal(
    run_id="weekly",
    started="2026-11-26T10:00:00.000Z",
    verdict=Verdict.IDENTICAL,
    succeeded=True,
    seconds=30.0,
    checkpoints=1_000,
    tasks=20,
    tasks_for_twice=20,
    phases={"check_schema": 0.05, "export_threads": 4.1, "promote": 6.1},
    folder_bytes=1_000,
    staged_bytes=700,
    live_bytes=600,
)
WORK = sum(REHEARSED.phases.values())


def test_the_same_data_takes_what_its_rehearsal_took() -> None:
    """Nothing is added where nothing grows: seconds and folder are those of the rehearsal."""
    same = predict(REHEARSED, 1.0)
    assert same is not None
    assert same.seconds == pytest.approx(30.0)
    assert (same.folder_bytes, same.stays_bytes) == (1_000, 600)
    assert same.server_bytes == 700 + 2 * 600


def test_work_grows_with_the_data_and_airflows_time_with_its_tasks() -> None:
    """Twice the data in as many tasks: work doubles but for looking around, waiting stays."""
    twice = predict(REHEARSED, 2.0)
    more_tasks = predict(replace(REHEARSED, tasks_for_twice=30), 2.0)
    assert twice is not None
    assert more_tasks is not None
    grown = 0.05 + 2 * LOOKING_AROUND + 2 * (4.0 + 6.0)
    assert twice.seconds == pytest.approx(grown + 30.0 - WORK)
    assert more_tasks.seconds - twice.seconds == pytest.approx((30.0 - WORK) / 2)
    assert twice.folder_bytes == 2_000


@pytest.mark.parametrize(
    "unknown",
    [{"succeeded": False}, {"live_bytes": None}, {"tasks": None}, {"folder_bytes": None}],
    ids=lambda unknown: next(iter(unknown)),
)
def test_nothing_is_foretold_from_a_rehearsal_that_did_not_reach_its_end(
    unknown: dict[str, None],
) -> None:
    """A guess from half a rehearsal would be no measurement."""
    assert predict(replace(REHEARSED, **unknown), 1.0) is None


def test_phases_that_overlap_leave_no_negative_waiting() -> None:
    """Where phases add up to more than the clock showed, Airflow's part is nothing, not less."""
    overlapping = predict(replace(REHEARSED, seconds=5.0), 1.0)
    assert overlapping is not None
    assert overlapping.seconds == pytest.approx(WORK)
