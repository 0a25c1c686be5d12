"""The report as lines of a task's log, and its two plain last lines."""

from __future__ import annotations

import logging
from pathlib import Path

from include.checkpoint_migration.errors import Blocked
from include.checkpoint_migration.findings import Caution
from include.checkpoint_migration.folding import COLUMNS
from include.checkpoint_migration.reporting.build import build_phases
from include.checkpoint_migration.reporting.log import final_lines, leveled_lines, log_lines
from tests.support.reports import DRIFT, blocker, difference, failed, hostile_report, report_of

CAUTION = Caution("kind", " ".join(["a caution of many words"] * 8), 7)


def test_log_holds_a_line_a_line() -> None:
    """No id, message or step breaks a line of the log, or passes for the run's last two lines."""
    lines = log_lines(hostile_report())
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith(("verdict:", "report:")) for line in lines)
    assert not any("x" * 100 in line for line in lines)


def test_log_opens_with_the_sentence_and_has_the_figures() -> None:
    """The log's table has each stage of each kind, thousands apart."""
    lines = log_lines(
        report_of(
            drift=DRIFT, phases=build_phases([("export", 2.0, 17_800), ("promote", 0.5, None)])
        )
    )
    assert lines[0].startswith("856 checkpoints and 1,240 pending writes")
    rows = {line.split("  ")[0]: line.split() for line in lines}
    assert rows["checkpoints"] == ["checkpoints", *["856"] * 5]
    assert rows["pending writes"] == ["pending", "writes", *["1,240"] * 5]
    assert rows["blobs"] == ["blobs", "999", "999", "999"]
    assert rows["export"] == ["export", "2.0", "s", "8,900/s"]
    assert any(
        line.startswith("Drift: 3 checkpoints added, 1 checkpoint changed") for line in lines
    )


def test_log_lists_the_first_ten_findings_of_each_kind() -> None:
    """Of many findings the log names ten, and says how many there are."""
    lines = log_lines(
        failed(
            Blocked("many.", next="mend them."),
            blockers=[blocker(f"t{i:02}") for i in range(25)],
            differences=[difference(f"d{i:02}") for i in range(11)],
            found=4000,
        )
    )
    assert "Blockers: 25, the first 10" in lines
    assert "Differences: 4,000, the first 10" in lines
    assert sum("thread 't" in line for line in lines) == 10
    assert sum("thread 'd" in line for line in lines) == 10
    assert "  thread 't00', checkpoint '1', metadata: it holds a NUL" in lines
    assert "  thread 'd00', checkpoint '1', checkpoints.metadata: not equal by value" in lines


def test_errors_are_errors_and_warnings_are_warnings() -> None:
    """A log that is filtered by level shows what went wrong, and what to look at, and no more."""
    went_wrong = leveled_lines(
        failed(Blocked("many.", next="mend them."), blockers=[blocker()], warnings=[CAUTION])
    )
    levels = {text: level for level, text in went_wrong}
    assert levels["Blocked: many."] == logging.ERROR
    assert levels["Blockers: 1"] == logging.ERROR
    assert levels["Warnings: 1"] == logging.WARNING
    assert levels["1. Mend them."] == logging.INFO
    went_well = leveled_lines(report_of(warnings=[CAUTION], drift=DRIFT))
    assert {level for level, _ in went_well} == {logging.INFO, logging.WARNING}
    assert went_well[0][1].startswith("856 ")


def test_lines_are_short_and_go_on_below_what_they_belong_to() -> None:
    """No line is cut at the right, and none that goes on stands where one begins."""
    for report in (hostile_report(), report_of(warnings=[CAUTION])):
        lines = log_lines(report)
        assert [line for line in lines if len(line) > COLUMNS and " " in line.strip()] == []
    at = lines.index("Warnings: 1")
    assert lines[at + 1].startswith("  7: a caution of many words")
    assert lines[at + 2].startswith("    ")
    assert " ".join(" ".join(lines[at + 1 :]).split()).startswith(f"7: {CAUTION.message} (kind)")


def test_final_lines_are_the_two_plain_lines() -> None:
    """Programs find the verdict and the report's path in two plain lines."""
    lines = final_lines(report_of().verdict, Path("/exports/run/report.json"))
    assert lines == ["verdict: identical", "report: /exports/run/report.json"]
