"""What a report tells people to do next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from include.checkpoint_migration.errors import TargetUnreachable
from include.checkpoint_migration.findings import Verdict
from include.checkpoint_migration.reporting.sentence import Situation
from tests.support.reports import SENTENCES, SETTINGS, failed, report_of


@pytest.mark.parametrize("name", SENTENCES)
def test_next_steps_are_imperative_sentences(name: str) -> None:
    """There is always something to do next; each step is one line that opens with a verb."""
    verbs = {
        "Check", "Choose", "Clear", "Decide", "Give", "Keep", "Leave", "Look", "Mend", "Read",
        "Set", "Start", "Stop", "Trigger", "Wait",
    }  # fmt: skip
    steps = SENTENCES[name][0].next_steps
    assert steps
    for step in steps:
        assert step.split()[0].rstrip(".") in verbs, step
        assert step.endswith(".")
        assert not step.endswith("..")
        assert "\n" not in step


def test_next_steps_never_send_the_application_over_unproven_rows() -> None:
    """Only after `identical` is the application started on PostgreSQL."""
    for report, _ in SENTENCES.values():
        start = "Start the application on PostgreSQL." in report.next_steps
        assert not start or report.verdict is Verdict.IDENTICAL
    assert "Start the application on PostgreSQL." in report_of().next_steps


def test_transient_error_says_how_to_go_on() -> None:
    """After an error that is worth another try, the steps say which task to clear."""
    report = failed(TargetUnreachable("no connection.", next="wait for the server."))
    assert report.next_steps[:2] == (
        "Wait for the server.",
        "Clear the failed task if its tries are used up: it goes on where it was.",
    )


def test_kept_exports_are_called_to_mind() -> None:
    """Export files that stay hold conversations, and the steps say so."""
    keeping = Situation(settings=replace(SETTINGS, keep_exports=True), promoted=True)
    assert any("export files" in step for step in report_of(keeping).next_steps)
    assert not any("export files" in step for step in report_of().next_steps)
