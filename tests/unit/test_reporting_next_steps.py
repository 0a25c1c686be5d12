"""What a report tells people to do next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from include.checkpoint_migration.errors import TargetUnreachable
from include.checkpoint_migration.findings import Verdict
from include.checkpoint_migration.refusals import FULL, NOT_NOW, NOT_REACHED
from include.checkpoint_migration.reporting.answer import answer
from include.checkpoint_migration.reporting.leaving_out import exclusions
from include.checkpoint_migration.reporting.next_steps import GO_ON
from include.checkpoint_migration.reporting.page_facts import NO_FACTS
from include.checkpoint_migration.reporting.report_json import Scope, Share
from include.checkpoint_migration.reporting.sentence import Situation
from include.checkpoint_migration.server_errors import MEANINGS
from include.checkpoint_migration.source.failures import busy
from tests.support.reports import NOT_LIVE, SENTENCES, SETTINGS, blocker, failed, report_of


@pytest.mark.parametrize("name", SENTENCES)
def test_next_steps_are_imperative_sentences(name: str) -> None:
    """There is always something to do next; each step is one line that opens with a verb."""
    verbs = {
        "Check", "Choose", "Clear", "Decide", "Give", "Keep", "Leave", "Look", "Mend", "Read",
        "Migrate", "Run", "Set", "Start", "Stop", "Trigger", "Wait", "When",
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
        GO_ON,
    )


TRANSIENT = [
    *(meaning.next for meaning in MEANINGS if meaning.kind("", next="").transient),
    *(cause.next for cause in (NOT_REACHED, NOT_NOW, FULL)),
    busy("/a.sqlite", "it is locked").next,
    "nothing: the task is tried again.",
]


@pytest.mark.parametrize("next_step", TRANSIENT)
def test_a_report_promises_no_further_try(next_step: str) -> None:
    """When it is written, the task that failed has had its last one: what is beyond that is left."""
    steps = failed(TargetUnreachable("no connection.", next=next_step)).next_steps
    assert not any("again" in step and "task" in step for step in steps if step != GO_ON), steps
    assert not any(step.startswith("Nothing") for step in steps)
    assert GO_ON in steps


def test_kept_exports_are_called_to_mind() -> None:
    """Export files that stay hold conversations, and the steps say so."""
    keeping = Situation(settings=replace(SETTINGS, keep_exports=True), promoted=True)
    assert any("export files" in step for step in report_of(keeping).next_steps)
    assert not any("export files" in step for step in report_of().next_steps)


PART = Scope(Share(1, 19), Share(150, 2850), ("refund-*",))


def test_while_threads_stay_behind_nobody_is_told_to_switch() -> None:
    """A run of some threads is a part of the move: the application needs all of them."""
    report = report_of(scope=PART)
    assert not any("Start the application" in step for step in report.next_steps)
    assert not any("Stop the application" in step for step in report.next_steps)
    assert any("stays behind" in step for step in report.next_steps)
    assert "1 of 20 threads" in report.sentence
    assert "19 threads stay behind in SQLite" in report.sentence


def test_what_a_failed_run_keeps_is_said_with_its_size() -> None:
    """Whoever gives a run up learns which folder holds conversations, and how many."""
    situation = replace(NOT_LIVE, folder="/exports/run-1", kept_bytes=218 << 20)
    (step,) = [
        step
        for step in failed(TargetUnreachable("no.", next="wait."), situation).next_steps
        if "/exports/run-1" in step
    ]
    assert "218 MiB" in step
    assert not any("/exports" in step for step in report_of(situation).next_steps)


def test_threads_with_blockers_can_be_left_out_by_pasting() -> None:
    """A glob for each thread, what globs mean escaped, beside the globs that the run had."""
    names = ["a", "a", "user-*", "[x]?", "!b"]
    report = report_of(NOT_LIVE, blockers=map(blocker, names), scope=Scope(globs=("us*",)))
    globs = exclusions(report)
    assert globs == ["us*", "!a", "!user-[*]", "![[]x][?]", "!!b"]
    threads = replace(SETTINGS.threads, globs=tuple(globs))
    assert [n for n in (*names, "user-1", "usa") if threads.takes(n)] == ["user-1", "usa"]


def test_an_incomplete_list_is_not_offered_for_pasting() -> None:
    """Of more blockers than are listed the rest would come up one run later."""
    assert exclusions(report_of(NOT_LIVE, blockers=(blocker(f"t{n}") for n in range(1001)))) == []


def test_where_it_is_not_known_what_stays_behind_nobody_is_sent_over() -> None:
    """Globs may leave threads behind that the report could not count."""
    report = report_of(scope=Scope(globs=("us*",)))
    assert answer(report, NO_FACTS)[0] == "Not yet"
    steps = " ".join(report.next_steps)
    assert "could not be counted" in steps
    assert "Start the application on PostgreSQL" not in steps
