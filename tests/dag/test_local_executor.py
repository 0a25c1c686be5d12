"""A deployed Airflow: a batch that is killed, one that is cleared when all is done, a failed shard."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.sqlite import SqliteSaver

from include import checkpoint_migration as engine
from tests.support import sqlite_sources as sources
from tests.support.airflow import DAG, Deployed
from tests.support.engine import rows
from tests.support.postgres import Database

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

RUN = "moving-day"
THREADS, CHECKPOINTS = 300, 5_000
WORDS = "what somebody said to the assistant"
KILLED, CLEARED = 1, 3  # map indexes of import.load_batch
ALLOWED = {  # all that a result may hold: paths, ids, counts, digests
    *(
        "already_done",
        "batches",
        "blobs",
        "blockers",
        "checkpoints",
        "count",
        "counts",
        "first",
        "format",
    ),
    *("found", "identical", "index", "inserted", "label", "loaded_before", "manifest_sha256"),
    *("path", "report", "sampled", "server_version", "shard", "threads", "verdict", "writes"),
    *("source", "target", "items", "store_items", "vectors"),
}
BLOCK = (
    "INSERT INTO checkpoint_migration.batches (run_key, shard, batch, sha256, checkpoints, writes,"
    " blobs) VALUES (%s, 0, %s, '', 0, 0, 0)"
)


def written(path: Path, checkpoints: int = CHECKPOINTS) -> Path:
    """So many checkpoints in 300 threads by the real saver, each with a pending write."""
    with closing(sqlite3.connect(path, check_same_thread=False)) as conn:
        conn.execute("PRAGMA synchronous=OFF")
        saver = SqliteSaver(conn)
        saver.setup()
        conn.execute("PRAGMA journal_mode=DELETE")
        configs: dict[str, Any] = {}
        for number in range(checkpoints):
            thread = f"customer-{number % THREADS:03}"
            config = configs.get(thread) or {
                "configurable": {"thread_id": thread, "checkpoint_ns": ""}
            }
            version = f"{number:032}.5"
            checkpoint = empty_checkpoint()
            checkpoint["channel_values"] = {"messages": [WORDS, number], "turn": number}
            checkpoint["channel_versions"] = {"messages": version, "turn": version}
            metadata: Any = {"source": "loop", "step": number // THREADS, "parents": {}}
            configs[thread] = saver.put(config, checkpoint, metadata, {})
            saver.put_writes(configs[thread], [("messages", WORDS)], "task")
    return path


def keys(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(keys, value.values()))
    return set().union(*map(keys, value)) if isinstance(value, list) else set()


def times(instances: dict[tuple[str, int], dict[str, Any]], *tasks: str) -> dict[Any, Any]:
    return {
        key: (ti["start_date"], ti["end_date"], ti["try_number"])
        for key, ti in instances.items()
        if key[0] in tasks
    }


def run_key(source: Path) -> str:
    return engine.parse_settings(
        {"source": str(source)}, dag_id=DAG, run_id=RUN, default_export_uri="/"
    ).key


def warnings_of(report: dict[str, Any]) -> set[str]:
    return {warning["kind"] for warning in report["warnings"]}


def test_a_killed_batch_is_tried_again_alone_and_a_cleared_one_loads_nothing_twice(
    tmp_path: Path, database: Database, airflow_env: dict[str, str]
) -> None:
    """One batch of a big run is killed: it alone is tried again, and the run ends `identical`.

    Afterwards another batch is cleared with all that follows: it finds its receipt, live rows stay
    as they are, and the report says that they were looked at again. XComs, labels and logs are read
    as the UI reads them and hold no value. At last a run of which a shard fails.
    """
    source = written(tmp_path / "application.sqlite")
    airflow = Deployed(
        {
            **airflow_env,
            "AIRFLOW_CONN_LANGGRAPH_POSTGRES": database.dsn,
            "CHECKPOINT_MIGRATION_MAX_EXPORT_TASKS": "8",
            "CHECKPOINT_MIGRATION_SHARD_KIB_AT_LEAST": "1",
            "CHECKPOINT_MIGRATION_RETRY_DELAY_SECONDS": "1",
        }
    )
    with airflow.running():
        airflow.trigger(RUN, {"source": str(source), "batch_size": 500})
        kill_a_batch(airflow, database, run_key(source))
        assert airflow.ended(RUN, 240) == "success"

        ended = airflow.instances(RUN)
        batches = {index: ti for (task, index), ti in ended.items() if task == "import.load_batch"}
        assert len(batches) >= 10
        assert {index: ti["try_number"] for index, ti in batches.items()} == {
            index: 2 if index == KILLED else 1 for index in batches
        }
        assert all(ti["try_number"] == 1 for (task, _), ti in ended.items() if "load" not in task)
        labels = [batches[index]["rendered_map_index"] for index in sorted(batches)]
        for number, label in enumerate(labels, 1):
            assert re.fullmatch(
                rf"batch {number} of {len(batches)} · "
                r"'customer-\d+' … 'customer-\d+', \d+ threads",
                label,
            )
        exported = [ti for (task, _), ti in ended.items() if task == "export.export_threads"]
        assert len(exported) == 8
        for ti in exported:
            assert " threads · " in ti["rendered_map_index"]
            assert ti["rendered_map_index"].endswith(" checkpoints")
            assert ti["rendered_map_index"].startswith("'customer-")

        xcoms = airflow.xcoms(RUN)
        summary = xcoms.pop(("report", -1, "summary"))  # what the report's page shows
        assert summary["report"]["verdict"] == "identical"
        assert {key for _, _, key in xcoms} == {"return_value"}
        assert keys(list(xcoms.values())) <= ALLOWED
        report_path = Path(xcoms["report", -1, "return_value"]["report"])
        report = json.loads(report_path.read_bytes())
        assert (report["verdict"], report["succeeded"]) == ("identical", True)
        assert report["counts"]["checkpoints"] == dict.fromkeys(
            report["counts"]["checkpoints"], CHECKPOINTS
        )
        log = airflow.log(RUN, "report")
        assert log.count("verdict: identical") == 1
        assert log.count(f"report: {report_path}") == 1
        live = rows(database.dsn)
        assert len(live["checkpoints"]) == len(live["checkpoint_writes"]) == CHECKPOINTS

        airflow.clear(RUN, "import.load_batch", CLEARED)
        assert airflow.ended(RUN, 120) == "success"

        again = airflow.instances(RUN)
        untouched = ("check_schema", "freeze_source", "export.plan_shards", "export.export_threads")
        assert times(again, *untouched, "import.plan_batches") == times(
            ended, *untouched, "import.plan_batches"
        )
        loads, before = times(again, "import.load_batch"), times(ended, "import.load_batch")
        assert {key for key in loads if loads[key] != before[key]} == {
            ("import.load_batch", CLEARED)
        }
        assert rows(database.dsn) == live
        report = json.loads(report_path.read_bytes())
        assert (report["verdict"], report["succeeded"]) == ("identical", True)
        assert "looked_again" in warnings_of(report)
        assert airflow.xcoms(RUN)["import.load_batch", CLEARED, "return_value"]["batches"] == 0

        the_report_waits_for_who_still_works(airflow, database, tmp_path / "sealed.sqlite")
        assert rows(database.dsn) == live

    kept = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p != source)
    assert WORDS.encode() not in kept
    if password := urlsplit(database.dsn).password:
        assert password.encode() not in kept


def kill_a_batch(airflow: Deployed, database: Database, key: str) -> None:
    """SIGKILL a batch in the midst of its transaction: while it waits for us to leave its receipt."""
    ledger = "SELECT to_regclass('checkpoint_migration.batches')"
    airflow.until(lambda: database.rows(ledger) != [(None,)], 120, "no ledger")
    with psycopg.connect(database.dsn) as conn:
        conn.execute(BLOCK, (key, KILLED))
        (ours,) = conn.execute("SELECT pg_backend_pid()").fetchone() or (0,)
        waiting = "SELECT pid FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
        airflow.until(lambda: database.rows(waiting, ours), 120, "no batch came to its receipt")
        airflow.kill_task(airflow.instances(RUN)["import.load_batch", KILLED])
        conn.rollback()


def the_report_waits_for_who_still_works(airflow: Deployed, database: Database, path: Path) -> None:
    """One shard fails while another exports: the report comes when that one has ended too."""
    run = "sealed"
    sources.saved(path, "a", "b")
    with closing(sqlite3.connect(path)) as conn, conn:
        conn.execute("UPDATE checkpoints SET type = 'msgpack+aes' WHERE thread_id = 'a'")

    def state(task: str, index: int = -1) -> str | None:
        return airflow.instances(run).get((task, index), {}).get("state")

    airflow.trigger(run, {"source": str(path)})
    airflow.until(lambda: state("check_schema") == "success", 60, "no schema was checked")
    with psycopg.connect(database.dsn) as conn:
        conn.execute("LOCK TABLE checkpoints")  # which an export asks for what is live
        failed = "the sealed shard did not fail"
        airflow.until(lambda: state("export.export_threads", 0) == "failed", 60, failed)
        airflow.until(
            lambda: state("verify_counts") == "upstream_failed", 60, "nothing was given up"
        )
        time.sleep(3)  # the scheduler looks every second
        assert state("export.export_threads", 1) == "running"
        assert state("report") is None
        conn.rollback()
    assert airflow.ended(run, 60) == "failed"
    assert state("export.export_threads", 1) == "success"
    written = json.loads(
        Path(airflow.xcoms(run)["report", -1, "return_value"]["report"]).read_bytes()
    )
    assert (written["verdict"], written["error"]["type"]) == ("unproven", "KeyNeeded")
