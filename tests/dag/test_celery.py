"""CeleryExecutor: two workers that share a bucket and two databases, and nothing else.

It takes minutes: `make nightly` has it, or whoever sets CELERY_CHECKPOINTS.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from include import checkpoint_migration as engine
from tests.dag.test_local_executor import written
from tests.support.celery import Stand, Worker, redis_server
from tests.support.engine import rows
from tests.support.objects import BUCKET, s3_server
from tests.support.postgres import Database, TestServer
from tests.support.sqlite_sources import IS_ROOT, open_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RUN = "moving-day"
CHECKPOINTS = int(os.environ.get("CELERY_CHECKPOINTS", "3000"))
LOAD = "import.load_batch"


def test_two_workers_share_a_run_and_one_of_them_is_killed(
    postgres_server: TestServer,
    database: Database,
    airflow_env: dict[str, str],
    tmp_path: Path,
) -> None:
    """Workers of other users with other homes export, load and verify; one is killed with all that it
    had begun, and its tasks go on at the other. The verdict is `identical`, and the bucket holds the
    two reports. The source is a file that one worker alone sees, which has the queue `source`.
    """
    password = "broker-password"
    with (
        postgres_server.database() as metadata,
        s3_server() as store,
        redis_server(password, tmp_path) as broker,
        open_folder() as folder,
    ):
        stand = Stand(
            airflow_env,
            metadata,
            database,
            store,
            (broker, password),
            PARALLELISM="4",
            HEARTBEAT_TIMEOUT="15",
            QUEUED_TIMEOUT="30",
            QUEUED_CHECK="3",
        )
        hurried = {
            **stand.env,
            "CHECKPOINT_MIGRATION_RETRY_DELAY_SECONDS": "1",
            "CHECKPOINT_MIGRATION_SHARD_KIB_AT_LEAST": "1",
        }
        first = Worker("first", 64_001, hurried, folder / "first", "default,source")
        second = Worker("second", 64_002, hurried, folder / "second", "default")
        source = written(first.home / "application.sqlite", CHECKPOINTS)
        if IS_ROOT:
            os.chown(source, first.uid, first.uid)
        try:
            with stand.running():
                first.start()
                second.start()
                both = (first, second)
                stand.until(lambda: all(w.is_ready for w in both), 120, "no workers")
                stand.trigger(RUN, {"source": str(source), "batch_size": CHECKPOINTS // 20})

                def both_load() -> bool:
                    return min(first.began(LOAD), second.began(LOAD)) >= 3

                stand.until(both_load, 240, "the workers did not share the batches")
                second.kill()
                assert stand.ended(RUN, 420) == "success"
                ended = stand.instances(RUN)
                report_uri = stand.xcoms(RUN)["report", -1, "return_value"]["report"]
        finally:
            first.kill()
            second.kill()

        exported = first.began("export.export_threads"), second.began("export.export_threads")
        assert min(exported) >= 1
        tries = [ti["try_number"] for (task, _), ti in ended.items() if task == LOAD]
        assert max(tries) <= 3
        name = report_uri.removeprefix("s3://objects@migrations/")
        assert store.names() == {name, name.replace("report.json", "report.html")}
        report = json.loads(store.file_system().cat_file(f"{BUCKET}/{name}"))
        assert (report["verdict"], report["succeeded"]) == ("identical", True)
        assert report["counts"]["checkpoints"] == dict.fromkeys(
            report["counts"]["checkpoints"], CHECKPOINTS
        )
        assert len(rows(database.dsn)["checkpoints"]) == CHECKPOINTS
        ranges = store.fetched(".jsonl.zst")
        assert ranges
        assert all(asked.range for asked in ranges)
        # each worker fetched the frozen source at most once: the one that froze it, not at all
        whole = [a for a in store.fetched("source.sqlite") if str(a.range).startswith("bytes=0-")]
        assert len(whole) <= 1
        assert engine.Verdict(report["verdict"]) is engine.Verdict.IDENTICAL
