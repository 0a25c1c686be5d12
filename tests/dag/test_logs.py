"""What people see of a run's log: the verdict last, errors as errors, no line that is cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import sqlite_sources as sources
from tests.support.airflow import Deployed, dags_test
from tests.support.night import by_night
from tests.support.postgres import Database

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

OURS = "checkpoint_migration"
WIDTH = 90


def lines_of(airflow: Deployed, run: str, task: str) -> list[dict[str, Any]]:
    return json.loads(airflow.log(run, task))["content"]


def visible(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines that the UI shows unfolded."""
    shown, folded = [], False
    for line in lines:
        if line["event"].startswith("::group::"):
            folded = True
        elif line["event"].startswith("::endgroup::"):
            folded = False
        elif not folded:
            shown.append(line)
    return shown


def is_short(text: str) -> bool:
    """No more than 90 columns, but for a path, which stays whole."""
    return len(text) <= WIDTH or "/" in max(text.split(), key=len)


def test_under_a_scheduler_the_verdict_is_seen_last(
    tmp_path: Path, database: Database, airflow_env: dict[str, str]
) -> None:
    """The two lines close the unfolded log of `report`, once, after a failure too.

    Errors are logged as errors, warnings as warnings, and no line is cut at the right.
    """
    source = sources.saved(tmp_path / "application.sqlite", "a", "b")
    exports = tmp_path / "exports"
    exports.mkdir()
    airflow = Deployed(
        {
            **airflow_env,
            "AIRFLOW_CONN_LANGGRAPH_POSTGRES": database.dsn,
            "CHECKPOINT_MIGRATION_RETRIES": "0",
        }
    )
    runs = {
        "good": ({"source": str(source), "export_uri": str(exports)}, "identical"),
        "bad": ({"source": "/nowhere/application.sqlite"}, "unproven"),
        "unknown": ({"source": str(source), "dry_run": True}, "unproven"),
    }
    with airflow.running():
        for run, (conf, _) in runs.items():
            airflow.trigger(run, conf)
        logs = {}
        for run, (_, verdict) in runs.items():
            assert airflow.ended(run, 240) == ("success" if verdict == "identical" else "failed")
            logs[run] = {task: lines_of(airflow, run, task) for task in ("check_schema", "report")}

    for run, (_, verdict) in runs.items():
        lines = logs[run]["report"]
        last = [line["event"] for line in visible(lines)[-2:]]
        assert last[0] == f"verdict: {verdict}"
        path = last[1].removeprefix("report: ")
        assert Path(path).is_absolute()
        assert Path(path).exists()
        for text in last:
            assert [line["event"] for line in lines].count(text) == 1
        ours = [line for task in logs[run].values() for line in task if line.get("logger") == OURS]
        assert [line["event"] for line in ours if not is_short(line["event"])] == []

    levels = {line["event"]: line["level"] for line in logs["bad"]["report"] if "level" in line}
    told = next(text for text in levels if text.startswith("SourceUnreadable: "))
    assert levels[told] == "error"
    assert levels["verdict: unproven"] == "info"
    good = {line["level"] for line in logs["good"]["report"] if line.get("logger") == OURS}
    assert "error" not in good

    [failure] = [line for line in logs["bad"]["check_schema"] if "error_detail" in line]
    [detail] = failure["error_detail"]  # and no other error behind it
    assert detail["exc_type"] == "SourceUnreadable"
    assert all(is_short(line) for line in detail["exc_value"].splitlines())
    assert "  What to do:    " in detail["exc_value"]


@pytest.mark.parametrize("name", ["missing.sqlite", *by_night("a folder", "a letter.txt")])
def test_a_wrong_path_shows_no_error_but_ours(
    name: str, tmp_path: Path, airflow_env: dict[str, str]
) -> None:
    """The log of a wrong path has one traceback, of our failure, and no file's or SQLite's error in it."""
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a letter.txt").write_text("dear reader\n" * 1000)
    ended = dags_test(airflow_env, {"source": str(tmp_path / name)})
    assert ended.code == 1
    assert ended.verdicts == ["unproven"]
    for noise in ("FileNotFoundError", "sqlite3.", "IsADirectoryError", "OSError"):
        assert noise not in ended.output
    assert "the direct cause of the following exception" not in ended.output
    assert "During handling of the above exception" not in ended.output
    assert ended.output.count("Traceback (most recent call last)") == 1
    assert ended.output.splitlines().count("verdict: unproven") == 1
