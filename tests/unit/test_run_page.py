"""How far a run is, from the states of its tasks as Airflow keeps them."""

from __future__ import annotations

from typing import Any

import pytest

from include.checkpoint_migration.findings import Verdict
from include.checkpoint_migration.reporting.page_facts import NO_FACTS
from include.checkpoint_migration.reporting.summary import summarized
from include.run_page.progress import progress_of
from include.run_page.records import RunRecord, TaskRecord
from include.run_page.so_far import page_of
from tests.support.reports import report_of

BEFORE = (
    *("check_schema", "freeze_source", "export.plan_shards", "export.export_threads"),
    "import.plan_batches",
)
AFTER = ("import.verify_staged", "import.promote", "verify_counts", "report")


def task(task_id: str, state: str | None, index: int = -1, started: float = 100) -> TaskRecord:
    began = None if state in (None, "scheduled", "queued") else started
    return TaskRecord(task_id, index, state, began, began and began + 1)


def run(*tasks: TaskRecord, state: str = "running", **changes: Any) -> RunRecord:
    return RunRecord(
        dag_id="migrate_checkpoints", run_id="a run", state=state, tasks=tasks, **changes
    )


def loading(states: list[str | None], **changes: Any) -> RunRecord:
    return run(
        *(task(name, "success") for name in BEFORE),
        *(task("import.load_batch", state, index) for index, state in enumerate(states)),
        *(task(name, None) for name in AFTER),
        **changes,
    )


def test_progress_is_told_in_batches_with_the_time_left() -> None:
    """14 of 49 batches in 8 s: the rest takes as long for each."""
    states: list[str | None] = ["success"] * 14 + ["running"] * 2 + [None] * 33
    told = progress_of(loading(states), lambda: 108.0)
    assert told.line == "load: 14 of 49 batches, 28 %, about 20 s left"
    assert told.percent == 28


def test_a_task_counts_for_all_its_batches() -> None:
    """Where a task takes several batches, it weighs as many, and one that waits is named."""
    planned = [{"batches": [{"count": 3}, {"count": 2}]}, {"batches": [{"count": 5}]}]
    results = {("import.plan_batches", -1): planned}
    told = progress_of(loading(["success", "up_for_retry"], results=results), lambda: 110.0)
    assert told.line == "load: 5 of 10 batches, 50 %, about 10 s left; 1 to be tried again"


@pytest.mark.parametrize(
    ("tasks", "line"),
    [
        ((task("check_schema", None),), "check: waiting to begin"),
        ((task("check_schema", "running"),), "check: at work for 3 s"),
        ((task("report", "success"),), "report: about to end"),
    ],
)
def test_progress_before_between_and_after(tasks: tuple[TaskRecord, ...], line: str) -> None:
    """There is a line for every moment of a run."""
    assert progress_of(run(*tasks), lambda: 103.0).line == line


def test_the_summary_is_shown_once_the_report_has_ended() -> None:
    """A report that is being written again is not shown as it was before."""
    summary = summarized(report_of(), NO_FACTS)
    done = run(task("report", "success"), state="success", summary=summary)
    assert page_of(done).report.verdict is Verdict.IDENTICAL
    again = run(task("report", None), summary=summary)
    assert page_of(again).report.verdict is Verdict.UNPROVEN


@pytest.mark.parametrize("odd", [None, "text", 7, [], {}, {"counts": {"checkpoints": "x"}}])
def test_results_of_another_shape_are_left_out(odd: Any) -> None:
    """Whatever a task of another release handed on, the page is shown without it."""
    names = ("check_schema", "freeze_source", "import.plan_batches", "import.promote")
    results = {(name, -1): odd for name in names}
    ended = run(task("report", "success"), state="failed", results=results, summary=odd)
    summary = page_of(ended)
    assert summary.report.counts.checkpoints.frozen is None
    assert "its report did not reach Airflow" in summary.report.sentence
