"""Whole runs by `scripts/airflow dags test`, in processes of their own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.dag.test_notifications import by_webhook, notifiers, webhook
from tests.support import sqlite_sources as sources
from tests.support.airflow import REHEARSAL, UNDO, Ended, dags_test
from tests.support.dumps import dump_without_ledger
from tests.support.engine import Migration, rows
from tests.support.night import by_night
from tests.support.postgres import Database

pytestmark = pytest.mark.slow

HOSTILE = ["{{ 7*7 }}", "{% raw %}", "{{ params.source }}", "{{ conn.langgraph_postgres }}"]
MODULE = "include.checkpoint_migration.errors."
WIDTH = 90
UNREACHABLE = "postgresql://somebody:s3cret-Pa55word@127.0.0.1:1/nowhere"
LABELS = "SELECT rendered_map_index FROM task_instance WHERE task_id = '{}' ORDER BY map_index"

EVENTS = "SELECT count(*) FROM asset_event"


def two_lines(ended: Ended, verdict: str) -> dict[str, Any]:
    """The report that the two plain lines name; both are printed once and hold what they should."""
    assert ended.verdicts == [verdict]
    assert len(ended.report_paths) == 1
    assert ended.report_paths[0].is_absolute()
    assert ended.report["verdict"] == verdict
    return ended.report


def three_parts(ended: Ended, error: dict[str, Any]) -> None:
    """The log tells a failure as the report does: what, what is safe, what to do, in short lines."""
    for told in failures_in(ended, error["type"]):
        assert " ".join(" ".join(told).split()) == " ".join(
            f"{error['type']}: {error['what']} What is safe: {error['safe']} "
            f"What to do: {error['next']}".split()
        )
        assert [line for line in told if len(line) > WIDTH and "/" not in line] == []


def failures_in(ended: Ended, kind: str) -> Iterator[list[str]]:
    """The lines with which tasks that failed so say it, without the module of the type."""
    lines = [line.removeprefix(MODULE) for line in ended.output.splitlines()]
    begins = [n for n, line in enumerate(lines) if line.startswith(f"{kind}: ")]
    assert begins
    for begin in begins:
        todo = next(n for n, line in enumerate(lines[begin:], begin) if "What to do:" in line)
        end = next(n for n, line in enumerate(lines[todo + 1 :], todo + 1) if line[:3] != "   ")
        yield lines[begin:end]


def test_a_sample_is_migrated_and_no_thread_id_is_rendered(
    small_sample: Path, database: Database, airflow_env: dict[str, str]
) -> None:
    """A run ends `identical` with exit 0 and no error in its log; ids that look like templates are names.

    Labels, XComs and rendered fields show them as they are. No password is anywhere, and labels of
    mapped tasks say what each takes.
    """
    sources.saved(small_sample, *HOSTILE)
    ended = dags_test(
        airflow_env,
        {"source": str(small_sample), "batch_size": 20},
        AIRFLOW_CONN_LANGGRAPH_POSTGRES=database.dsn,
    )
    assert ended.code == 0, ended.output[-3000:]
    assert not re.search(r"\[(error|critical)\b", ended.output), ended.output
    report = two_lines(ended, "identical")
    assert report["succeeded"]
    assert report["error"] is None
    assert report["counts"]["checkpoints"]["live"] == len(rows(database.dsn)["checkpoints"])
    assert {t["thread_id"] for t in report["threads"]["listed"]} >= set(HOSTILE)

    labels = {
        task: [label for (label,) in ended.metadata(LABELS.format(task))]
        for task in ("export.export_threads", "import.load_batch", "import.verify_staged")
    }
    for thread in HOSTILE:
        assert any(f"thread '{thread}' · " in label for label in labels["export.export_threads"])
    total = len(labels["import.load_batch"])
    for number, label in enumerate(labels["import.load_batch"], 1):
        assert label.startswith(f"batch {number} of {total} · thread '")
    for number, label in enumerate(labels["import.verify_staged"]):
        assert label.startswith(f"shard {number} · thread '")
    for thread in HOSTILE:
        for task in ("import.load_batch", "import.verify_staged"):
            assert any(label.endswith(f" · thread '{thread}'") for label in labels[task])
    kept = ended.metadata("SELECT rendered_fields FROM rendered_task_instance_fields")
    fields = "".join(text for (text,) in kept)
    assert "thread '{{ 7*7 }}'" in fields
    assert "thread '49'" not in fields

    handed_on = {
        (task, key) for task, key in ended.metadata("SELECT DISTINCT task_id, key FROM xcom")
    }
    assert {key for _, key in handed_on} <= {"return_value", "skipmixin_key", "summary"}
    if password := urlsplit(database.dsn).password:
        assert ended.places_with(password) == []
    assert all(tried == 1 for tried in ended.tries().values() if tried)
    assert ended.metadata(EVENTS) == [(1,)]


def test_a_rehearsal_leaves_live_as_it_was_and_nothing_but_its_record(
    small_sample: Path, tmp_path: Path, database: Database, airflow_env: dict[str, str]
) -> None:
    """A rehearsal proves all of it in a scratch schema; a dump before and after is the same.

    It is the third one: two records of earlier ones make a trend with it.
    """
    Migration(database.dsn, small_sample, tmp_path / "before").all()
    for _ in range(2):
        earlier = Migration(database.dsn, small_sample, tmp_path / "before", dag_id=REHEARSAL)
        earlier.rehearsal = True
        earlier.all()
    sources.saved(small_sample, "new since then")
    dump = dump_without_ledger(database.dsn)
    ended = dags_test(
        airflow_env,
        {"source": str(small_sample)},
        dag=REHEARSAL,
        AIRFLOW_CONN_LANGGRAPH_POSTGRES=database.dsn,
        CHECKPOINT_MIGRATION_MAX_EXPORT_TASKS="2",
    )
    assert ended.code == 0, ended.output[-3000:]
    report = two_lines(ended, "identical")
    assert report["dag_id"] == REHEARSAL
    assert report["target"]["schema"].startswith("checkpoint_rehearsal_")
    assert dump_without_ledger(database.dsn) == dump
    schemas = database.rows(
        "SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'checkpoint%%'"
    )
    assert schemas == [("checkpoint_migration",)]
    assert ended.metadata(EVENTS) == [(0,)]
    records = database.rows("SELECT record FROM checkpoint_migration.rehearsals ORDER BY started")
    assert [record["verdict"] for (record,) in records] == ["identical"] * 3
    assert records[-1][0]["tasks"] > 7
    page = (ended.report_paths[0].parent / "report.html").read_text()
    assert page.count("</title></rect>") == 3
    assert "The real run, with the data as it is: about " in ended.output


def test_an_empty_database_is_identical(
    tmp_path: Path, database: Database, airflow_env: dict[str, str]
) -> None:
    """Tables without rows: nothing to map, nothing skipped that matters, zeros, exit 0."""
    source = tmp_path / "empty.sqlite"
    sources.empty(source).close()
    ended = dags_test(
        airflow_env, {"source": str(source)}, AIRFLOW_CONN_LANGGRAPH_POSTGRES=database.dsn
    )
    assert ended.code == 0, ended.output[-3000:]
    report = two_lines(ended, "identical")
    assert report["counts"]["checkpoints"] == dict.fromkeys(report["counts"]["checkpoints"], 0)
    assert report["threads"]["total"] == 0


def test_an_unreachable_target_is_tried_again_and_then_reported(
    small_sample: Path, airflow_env: dict[str, str]
) -> None:
    """Exit 1 after all tries; the report and the log have the error, nobody has the password."""
    ended = dags_test(
        airflow_env,
        {"source": str(small_sample)},
        AIRFLOW_CONN_LANGGRAPH_POSTGRES=UNREACHABLE,
        CHECKPOINT_MIGRATION_RETRIES="1",
    )
    assert ended.code == 1
    error = two_lines(ended, "unproven")["error"]
    assert (error["type"], error["transient"]) == ("TargetUnreachable", True)
    three_parts(ended, error)
    assert ended.tries()["check_schema"] == 2
    assert ended.places_with("s3cret-Pa55word") == []


def missing_connection(tmp_path: Path, source: Path) -> tuple[dict[str, Any], str, str]:
    return {"source": str(source)}, "SettingsInvalid", "'langgraph_postgres' is not defined"


def another_machine(tmp_path: Path, source: Path) -> tuple[dict[str, Any], str, str]:
    asked = {"source": "file://elsewhere/a.sqlite", "export_uri": str(tmp_path / "asked")}
    return asked, "SettingsInvalid", "param 'source' must lie on this machine"


def relative_folder(tmp_path: Path, source: Path) -> tuple[dict[str, Any], str, str]:
    asked = {"source": str(source), "export_uri": "exports"}
    return asked, "SettingsInvalid", "param 'export_uri' must be absolute"


def no_sqlite_file(tmp_path: Path, source: Path) -> tuple[dict[str, Any], str, str]:
    source.write_text("a letter\n" * 1000)
    return {"source": str(source)}, "SourceUnreadable", "SQLite"


def no_folder(tmp_path: Path, source: Path) -> tuple[dict[str, Any], str, str]:
    (tmp_path / "a file").touch()
    asked = {"source": str(source), "export_uri": str(tmp_path / "a file" / "exports")}
    return asked, "StorageRefused", "ENOTDIR"


@pytest.mark.parametrize(
    "case",
    [missing_connection, another_machine, no_folder, *by_night(relative_folder, no_sqlite_file)],
    ids=lambda c: c.__name__,
)
def test_what_cannot_work_fails_at_once_and_is_reported(
    case: Any, tmp_path: Path, airflow_env: dict[str, str]
) -> None:
    """A run that somebody has to correct first is tried once, exits 1, and still has its report."""
    source = tmp_path / "source.sqlite"
    sources.empty(source).close()
    conf, kind, said = case(tmp_path, source)
    before = sources.listing(tmp_path)
    ended = dags_test(airflow_env, conf)
    assert ended.code == 1
    report = two_lines(ended, "unproven")
    error = report["error"]
    assert (error["type"], error["transient"]) == (kind, False)
    assert said in error["what"]
    three_parts(ended, error)
    assert ended.tries()["check_schema"] == 1
    assert ended.tries()["report"] == 1
    folder = ended.report_paths[0].parent
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-migrate_checkpoints-[0-9a-f]{8}", folder.name)
    asked = conf.get("export_uri")
    usable = asked if case is another_machine else ended.home / "exports"
    assert folder.parent == Path(usable)
    assert sources.listing(tmp_path)[source.name] == before[source.name]


def test_params_that_the_form_would_refuse_start_nothing(airflow_env: dict[str, str]) -> None:
    """A path that depends on where a worker runs, or a choice that is none: Airflow itself refuses
    the run, and names the param.
    """
    for conf, named in (
        ({"source": "/a.sqlite", "on_conflict": "explode"}, "on_conflict: 'explode' is not one of"),
        ({"source": "a.sqlite"}, "source: 'a.sqlite' does not match"),
    ):
        ended = dags_test(airflow_env, conf)
        assert ended.code != 0
        assert ended.verdicts == []
        assert f"Invalid input for param {named}" in ended.output
        assert json.dumps(ended.metadata("SELECT count(*) FROM dag_run")) == "[[0]]"


def test_a_run_is_undone_by_its_run_id_and_an_unknown_one_is_refused(
    small_sample: Path, database: Database, airflow_env: dict[str, str], tmp_path: Path
) -> None:
    """The DAG takes a run's rows out and says so in two plain lines, after a failure too.

    Notifiers are told of both; who wants failures alone hears of the refusal.
    """
    migration = Migration(database.dsn, small_sample, tmp_path / "exports", run_id="moved it")
    assert migration.all()["verdict"] == "identical"
    with webhook() as (posted, http):
        to = {
            "AIRFLOW_CONN_LANGGRAPH_POSTGRES": database.dsn,
            "AIRFLOW_CONN_HTTP_DEFAULT": http,
            "CHECKPOINT_MIGRATION_NOTIFIERS": notifiers(
                by_webhook("verdict"), by_webhook("failure", "failures")
            ),
        }
        refused = dags_test(airflow_env, {"run_id": "mistyped"}, dag=UNDO, **to)
        assert [post["path"] for post in posted] == ["/hook", "/failures"]
        live = rows(database.dsn)["checkpoints"]
        ended = dags_test(airflow_env, {"run_id": "moved it"}, dag=UNDO, **to)
    assert [post["verdict"] for post in posted] == ["failed", "failed", "undone"]
    assert "'mistyped'" in posted[0]["sentence"]
    assert posted[2]["sentence"] == ended.report["sentence"]
    assert refused.code == 1
    assert "'moved it'" in refused.output
    assert re.findall("^undo: (.*)$", refused.output, re.MULTILINE) == ["failed"]
    assert refused.report["error"]["type"] == "SettingsInvalid"
    assert live
    assert ended.code == 0, ended.output[-3000:]
    assert re.findall("^undo: (.*)$", ended.output, re.MULTILINE) == ["undone"]
    assert ended.report["outcome"] == "undone"
    assert not any(rows(database.dsn).values())
