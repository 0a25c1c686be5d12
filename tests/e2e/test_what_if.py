"""docs/what-if.md: every command in it is run, and answers what its heading asks."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.postgres import PostgresSaver

from include import checkpoint_migration as engine
from tests.support.engine import Migration
from tests.support.faults import Child, go_on, run_step, write_source
from tests.support.postgres import Database
from tests.support.stores import sqlite_store
from tests.support.undoing import Undo, dump

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "what-if.md").read_text()
SECTIONS = dict(re.findall(r"^## … (.*?)\?\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))
LIVE = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")


def commands(question: str, kind: str) -> list[str]:
    return [
        block.removeprefix("$ ").strip()
        for block in re.findall(rf"```{kind}\n(.*?)```", SECTIONS[question], re.DOTALL)
    ]


def sql(question: str, database: Database, number: int = 0) -> list[tuple[Any, ...]]:
    """What a section's statement says on the test's database."""
    return database.rows(commands(question, "sql")[number].rstrip(";"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "app").mkdir()
    return write_source(tmp_path / "app" / "app.sqlite", "anna", "bert", "carl")


def application(database: Database, thread: str) -> None:
    with PostgresSaver.from_conn_string(database.dsn) as saver:
        go_on(saver, thread)


def test_every_question_has_an_answer() -> None:
    """The operator's questions are there, each with a command."""
    assert set(SECTIONS) >= {
        "a worker died",
        "a disk is full",
        "counts differ",
        "I must stop now",
        "I want it undone",
        "the application already wrote to PostgreSQL",
    }
    for question in SECTIONS:
        assert commands(question, "sql") + commands(question, "console"), question


def test_every_command_of_airflow_names_a_dag_and_its_params() -> None:
    """What is shown can be run: the DAG is there, and takes this conf."""
    shown = [c for q in SECTIONS for c in commands(q, "console") if c.startswith("scripts/airflow")]
    assert len(shown) >= 2
    for command in shown:
        script, *words, dag, flag, conf = shlex.split(command)
        assert (script, words, flag) == ("scripts/airflow", ["dags", "test"], "-c")
        assert (ROOT / "dags" / f"{dag}.py").is_file()
        ids = {"dag_id": dag, "run_id": "r", "default_export_uri": "/exports"}
        parse: Callable[..., Any] = (
            engine.parse_undo if dag == "undo_migration" else engine.parse_settings
        )
        parse(json.loads(conf), **ids)


def test_where_a_run_stands_and_that_it_may_be_stopped(
    database: Database, source: Path, tmp_path: Path
) -> None:
    """Killed before promote nothing is live; the next run goes through; the ledger says each of it."""
    where, stopped = "I do not know where a run stands", "I must stop now"
    migration = Migration(database.dsn, source, tmp_path / "exports", run_id="stopped")
    migration.to_staging()
    child = Child(run_step, migration, "verify", ([],))
    child.kill()
    child.wait()
    assert sql(stopped, database) == [("stopped", False)]
    assert [row[:2] for row in sql(where, database)] == [("stopped", "running")]
    assert dump(database.dsn)["checkpoints"] == []
    [(schema, _)] = sql("a disk is full", database)
    assert schema == migration.run.settings.staging_schema
    database.execute("UPDATE checkpoint_migration.leases SET until = '-infinity'")
    again = Migration(database.dsn, source, tmp_path / "exports", run_id="again")
    assert again.all()["verdict"] == "identical"
    states = {row[0]: row[1] for row in sql(where, database)}
    assert states == {"stopped": "superseded", "again": "done"}
    assert sql("a disk is full", database) == []
    [shown] = commands(where, "console")
    report = str(again.folder / "report.json")
    printed = subprocess.run(
        ["bash", "-c", shown], env={**os.environ, "REPORT": report}, capture_output=True, check=True
    ).stdout
    assert json.loads(printed)["verdict"] == "identical"


def test_a_worker_that_died_is_followed_by_the_same_command(
    database: Database, source: Path, tmp_path: Path
) -> None:
    """The same run again goes on where it died, and ends like one that never did."""
    migration = Migration(database.dsn, source, tmp_path / "exports", run_id="dies")
    migration.to_staging()
    child = Child(run_step, migration, "promote")
    child.kill()
    child.wait()
    assert migration.all()["verdict"] == "identical"


def test_what_takes_room_is_found(database: Database, source: Path, tmp_path: Path) -> None:
    """The command lists the data that earlier runs have kept, and no report."""
    kept = Migration(database.dsn, source, tmp_path / "exports", {"keep_exports": True})
    kept.all()
    [shown] = commands("a disk is full", "console")
    found = subprocess.run(
        ["bash", "-c", shown],
        env={**os.environ, "EXPORTS": str(tmp_path / "exports")},
        capture_output=True,
        check=True,
        text=True,
    ).stdout.split()
    names = {Path(line).name for line in found}
    assert "source.sqlite" in names
    assert "0000.jsonl.zst" in names
    assert not any(name.startswith("report") for name in names)


def test_counts_are_compared_with_what_was_recorded(
    database: Database, source: Path, tmp_path: Path
) -> None:
    """After a deletion fewer are live than were recorded, and the statement shows how many."""
    Migration(database.dsn, source, tmp_path / "exports").all()
    [(_, recorded, live)] = sql("counts differ", database)
    assert recorded == live > 0
    with PostgresSaver.from_conn_string(database.dsn) as saver:
        saver.delete_thread("bert")
    [(_, recorded, live)] = sql("counts differ", database)
    assert recorded > live > 0


def test_it_is_undone_by_run_id_or_by_hand(
    database: Database, source: Path, tmp_path: Path
) -> None:
    """The ledger lists what may be undone; by hand a thread goes, and comes back with the next run."""
    question = "I want it undone"
    moved = Migration(database.dsn, source, tmp_path / "exports", run_id="moved")
    moved.all()
    after = dump(database.dsn)
    assert [row[0] for row in sql(question, database)] == ["moved"]
    with database.connect() as conn:
        by_hand = commands(question, "sql")[1].replace("'the thread'", "'bert'")
        conn.execute(by_hand.encode())
    assert not [r for name in LIVE for r in dump(database.dsn)[name] if r[0].startswith("(bert,")]
    again = Migration(database.dsn, source, tmp_path / "exports", run_id="again")
    assert again.all()["verdict"] == "identical"
    assert dump(database.dsn) == after
    assert Undo.of(again, "undo again").all()["outcome"] == "undone"
    assert Undo.of(moved, "undo moved").all()["outcome"] == "undone"
    assert not any(dump(database.dsn)[name] for name in LIVE)
    assert sql(question, database) == []
    assert sql("I must stop now", database) == [("again", False)]


def test_items_of_a_namespace_are_taken_out_by_hand(
    database: Database, source: Path, tmp_path: Path
) -> None:
    """They are gone, the others stay, and with the next run they come back."""
    with sqlite_store(source) as store:
        store.put(("memories",), "a", {"n": 1})
        store.put(("memories", "others"), "b", {"n": 2})
    Migration(database.dsn, source, tmp_path / "exports", run_id="moved").all()
    after = dump(database.dsn)
    with database.connect() as conn:
        by_hand = commands("I want it undone", "sql")[2].replace("'the namespace'", "'memories'")
        conn.execute(by_hand.encode())
    assert database.rows("SELECT key FROM store") == [("b",)]
    again = Migration(database.dsn, source, tmp_path / "exports", run_id="again")
    assert again.all()["verdict"] == "identical"
    assert dump(database.dsn) == after


def test_what_the_application_wrote_is_listed_and_stays(
    database: Database, source: Path, tmp_path: Path
) -> None:
    """The statement names the threads that an undo then leaves whole."""
    moved = Migration(database.dsn, source, tmp_path / "exports", run_id="moved")
    moved.all()
    application(database, "anna")
    application(database, "new")
    listed = dict(sql("the application already wrote to PostgreSQL", database))
    assert listed == {"anna": 3, "new": 3}
    report = Undo.of(moved).all()
    assert [t["thread_id"] for t in report["threads_left"]["listed"]] == ["anna"]
    threads = {row[0].split(",")[0] for row in dump(database.dsn)["checkpoints"]}
    assert threads == {"(anna", "(new"}
