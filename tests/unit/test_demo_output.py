"""What `make demo` shows of Airflow's long log."""

from __future__ import annotations

import io

from scripts import demo

AT = "2026-01-31T12:00:00.000000Z"
OWN = "[include.orchestration.tasks] loc=tasks.py:1"


def shown(*lines: str) -> list[str]:
    return list(demo.shown([f"{line}\n" for line in lines], io.StringIO()))


def test_own_lines_are_shown_and_airflows_are_not() -> None:
    """People see what the migration says, without the logger's name."""
    assert shown(
        f"{AT} [info     ] Filling up the DagBag from /dags [airflow.dagbag] loc=dagbag.py:460",
        f"{AT} [info     ] exported 40 checkpoints      {OWN}",
        f"{AT} [info     ] ::endgroup::                   [task] loc=task_runner.py:2379",
    ) == ["exported 40 checkpoints"]


def test_a_table_of_several_lines_is_shown_whole() -> None:
    """A message goes on until the next line of the log begins."""
    assert shown(
        f"{AT} [info     ] phase   time",
        f"load    11 s                 {OWN}",
        f"{AT} [info     ] Marking run successful [airflow.models.dagrun] loc=dagrun.py:1249",
        "of Airflow",
    ) == ["phase   time", "load    11 s"]


def test_verdict_and_report_are_shown_wherever_they_stand() -> None:
    """The two plain lines of a run are never lost."""
    assert shown(
        f"{AT} [info     ] ::endgroup::                   [task] loc=task_runner.py:2232",
        "verdict: identical",
        "report: /a/report.json",
    ) == ["verdict: identical", "report: /a/report.json"]


def test_errors_are_shown_whoever_logs_them() -> None:
    """Quiet output hides no error, nor what follows it."""
    assert shown(
        f"{AT} [error    ] Task failed with exception [task] loc=task_runner.py:1",
        "Traceback (most recent call last):",
    ) == [
        "Task failed with exception [task] loc=task_runner.py:1",
        "Traceback (most recent call last):",
    ]


def test_instances_of_a_mapped_task_are_counted_after_the_first() -> None:
    """Twenty threads do not make twenty lines."""
    lines = []
    for index in range(20):
        lines.append(f"{AT} [info     ] [DAG TEST] starting task_id=load map_index={index} [a] l=1")
        lines.append(f"{AT} [info     ] loaded {index} {OWN}")
    lines.append(f"{AT} [info     ] [DAG TEST] starting task_id=report map_index=-1 [a] l=1")
    assert shown(*lines) == [
        *("· load", "loaded 0", "loaded 1", "loaded 2"),
        *("… and 17 lines more of this kind", "· report"),
    ]


def test_everything_is_kept_in_the_log() -> None:
    """What is not shown can be read later."""
    kept = io.StringIO()
    lines = [f"{AT} [info     ] x [airflow] loc=1\n", "y\n"]
    list(demo.shown(lines, kept))
    assert kept.getvalue() == "".join(lines)
