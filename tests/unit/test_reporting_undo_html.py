"""The page of an undo: its outcome, what stayed and why, and nothing that a browser would run."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from include.checkpoint_migration.errors import NotUndoable, TargetUnreachable
from include.checkpoint_migration.findings import LeftBlob, LeftItem, LeftThread, Undone
from include.checkpoint_migration.reporting.build import build_error
from include.checkpoint_migration.reporting.runs_html import RunLine, render_runs
from include.checkpoint_migration.reporting.undo_html import (
    read_undo,
    render_undo,
    summarized_undo,
)
from include.checkpoint_migration.reporting.undo_json import (
    BEFORE_OR_AFTER,
    UndoReport,
    undo_report,
)
from include.checkpoint_migration.settings import Settings

SETTINGS = Settings(dag_id="undo_migration", run_id="u", source="/a.sqlite", export_uri="/e")
THEN = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOSTILE = "<script>document.title = 'ran'</script>"
ROWS = {"checkpoints": 7, "checkpoint_writes": 5, "checkpoint_blobs": 3}
NONE = dict.fromkeys(ROWS, 0)


def done(**changes: object) -> UndoReport:
    found = {"removed": ROWS, "restored": NONE, "left": NONE, "gone": NONE, **changes}
    undone = Undone(run_id=HOSTILE, dag_id="migrate_checkpoints", schema="public", **found)  # type: ignore[arg-type]
    return undo_report(SETTINGS, HOSTILE, undone, None, THEN, THEN)


def failed(error: Exception) -> UndoReport:
    return undo_report(SETTINGS, "moved", None, build_error(error), THEN, THEN)


def page_of(report: UndoReport | None, state: str = "success", refresh: int | None = None) -> str:
    return render_undo(report, run_id="u", asked=HOSTILE, state=state, refresh_seconds=refresh)


@pytest.mark.parametrize(
    ("changes", "outcome", "tone"),
    [
        ({}, "undone", "identical"),
        ({"already_done": True}, "nothing", "identical"),
        ({"left": ROWS, "left_threads": 1}, "partly", "different"),
    ],
)
def test_the_outcome_stands_first_and_wears_its_colour(
    changes: dict[str, object], outcome: str, tone: str
) -> None:
    """A person sees at once whether anything was left."""
    page = page_of(done(**changes))
    assert f'<main class="{tone}" data-phase="{outcome}">' in page
    assert f'<dd class="verdict">{outcome}</dd>' in page
    assert page.index("<h1>") < page.index("Outcome") < page.index("checkpoint_blobs")


def test_what_was_left_is_listed_with_its_reason_and_escaped() -> None:
    """Threads and blobs that stayed, and how many are not listed; no id is run by a browser."""
    thread = LeftThread(HOSTILE, "rows were changed", ROWS)
    blob = LeftBlob("a thread", "", "messages")
    page = page_of(done(left=ROWS, left_threads=3, threads=(thread,), left_blobs=1, blobs=(blob,)))
    assert "Threads left whole<small>3, 2 not listed" in page
    assert "rows were changed" in page
    assert "7 checkpoints, 5 checkpoint_writes, 3 checkpoint_blobs" in page
    assert "messages" in page
    assert "<script>document" not in page
    assert "&lt;script&gt;document" in page


def test_items_of_the_store_that_were_left_are_listed_too() -> None:
    """By namespace and key, escaped, with the rows of the run."""
    item = LeftItem("users." + HOSTILE, HOSTILE, "it was put again", {"store": 1})
    page = page_of(done(left=ROWS, left_items=1, items=(item,)))
    assert "Items left<small>1; of the store" in page
    assert "it was put again" in page
    assert "1 store" in page
    assert "<script>document" not in page


def test_a_failed_undo_says_its_three_parts() -> None:
    """What happened, what is safe and what to do; the live tables are as they were."""
    error = NotUndoable("the rows cannot be told.", safe="nothing was undone.", next="take a dump.")
    page = page_of(failed(error))
    for part in ("failed", "NotUndoable", "the rows cannot", "nothing was", "take a dump."):
        assert part in page
    assert "Nothing was undone of the run" in page


def test_an_undo_whose_answer_was_lost_claims_nothing() -> None:
    """COMMIT may have been what was not answered: then nobody knows yet."""
    report = failed(TargetUnreachable("it broke.", safe=BEFORE_OR_AFTER, next="again."))
    assert report.sentence.startswith("Whether the run 'moved' is undone is not known")
    assert "Nothing was undone" not in page_of(report)


def test_without_a_report_the_page_says_whether_to_wait() -> None:
    """While it goes on the page follows it; of one that ended without, it names the log."""
    waiting = page_of(None, "running", refresh=5)
    assert 'data-refresh="5"' in waiting
    assert "not at its end yet" in waiting
    ended = page_of(None, "failed")
    assert "data-refresh" not in ended.partition("<script>")[0]
    assert "the log of the task <code>undo</code> says why" in ended


def test_the_report_travels_as_plain_json() -> None:
    """What is handed on makes the same page; anything else makes none."""
    report = done(left=ROWS, left_threads=1, threads=(LeftThread("a", "b", ROWS),))
    travelled = read_undo(json.loads(json.dumps(summarized_undo(report))))
    assert travelled is not None
    assert page_of(travelled) == page_of(report)
    for other in (None, "text", {}, {"version": "9"}, [1]):
        assert read_undo(other) is None


def test_the_list_shows_what_an_undo_undid() -> None:
    """An undo stands in the list of runs with its outcome and the run that went out."""
    line = RunLine(run_id="u", href="runs/a/b", state="success", started="", undoes=HOSTILE)
    running = render_runs([line])
    assert "undo of" in running
    assert "<script>document" not in running
    assert '<span class="verdict">success</span>' in running
    undone = RunLine(
        run_id="u", href="r", state="success", started="", undoes="m", outcome="undone"
    )
    assert '<span class="verdict">undone</span>' in render_runs([undone])
