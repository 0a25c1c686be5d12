"""A whole migration driven through the engine's façade, without Airflow."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import psycopg

from include import checkpoint_migration as engine

_numbers = itertools.count(1)


@dataclass
class Migration:
    """A run in the making: each step is a method, `all()` is the DAG, `report` what it left.

    As in the DAG, the report is written after a failure too, and the failure is raised again.
    """

    dsn: str
    source: Path | str
    exports: Path | str
    params: dict[str, Any] = field(default_factory=dict)
    run_id: str = ""
    dag_id: str = "migrate_checkpoints"
    rehearsal: bool = False
    log: list[str] = field(default_factory=list)
    max_export_tasks: int = 64
    max_load_tasks: int = 256
    owner: str | None = None
    sizes: engine.TaskSizes | None = None
    run_date: date = field(default_factory=date.today)
    aes_key: bytes | None = field(default=None, repr=False)
    objects: engine.Objects | None = field(default=None, repr=False)
    undo_days: int = 30

    def __post_init__(self) -> None:
        self.run_id = self.run_id or f"test-{next(_numbers)}"

    @property
    def run(self) -> engine.Run:
        settings = engine.parse_settings(
            {"source": str(self.source), **self.params},
            dag_id=self.dag_id,
            run_id=self.run_id,
            default_export_uri=str(self.exports),
            rehearsal=self.rehearsal,
            run_date=self.run_date,
            sizes=self.sizes
            or engine.TaskSizes(
                max_export_tasks=self.max_export_tasks, max_load_tasks=self.max_load_tasks
            ),
            undo_days=self.undo_days,
        )
        return engine.Run(
            settings,
            self.connect,
            self.log.append,
            self.owner,
            aes_key=self.aes_key,
            objects=self.objects,
        )

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.dsn)

    @property
    def folder(self) -> Path:
        return self.run.folder.path

    @property
    def report(self) -> dict[str, Any]:
        return json.loads(self.run.folder.kept("report.json"))

    # --- the steps, in order ---

    def check(self) -> None:
        engine.check_schema(self.run)

    def freeze(self) -> None:
        engine.freeze_source(self.run)

    def export(self) -> list[engine.Export]:
        shards = engine.plan_shards(self.run)
        return [engine.export_threads(self.run, shard["index"]) for shard in shards]

    def export_one(self, index: int = 0) -> engine.Export:
        return engine.export_threads(self.run, index)

    def load(self, exports: list[engine.Export]) -> None:
        for load in engine.plan_batches(self.run, exports):
            engine.load_batch(self.run, load)

    def verify(self, exports: list[engine.Export]) -> None:
        for export in exports:
            engine.verify_staged(self.run, export)

    def promote(self) -> engine.Promotion:
        return engine.promote(self.run)

    def witness(self) -> engine.WitnessResult:
        return engine.verify_counts(self.run)

    def conclude(self) -> dict[str, Any]:
        engine.report(self.run)
        return self.report

    # --- the pipeline ---

    def to_staging(self) -> list[engine.Export]:
        """Everything before promote."""
        self.check()
        self.freeze()
        exports = self.export()
        self.load(exports)
        self.verify(exports)
        return exports

    def all(self, between: Callable[[str], None] = lambda step: None) -> dict[str, Any]:
        """The whole pipeline; `between` is called with the name of the step that comes next."""
        try:
            self.check()
            between("freeze")
            self.freeze()
            between("export")
            exports = self.export()
            between("load")
            self.load(exports)
            between("verify")
            self.verify(exports)
            between("promote")
            self.promote()
            between("witness")
            self.witness()
        finally:
            self.conclude()
        return self.report


def rows(dsn: str, schema: str = "public") -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the three live tables, in key order."""
    orders = {
        "checkpoints": "1, 2, 3",
        "checkpoint_blobs": "1, 2, 3, 4",
        "checkpoint_writes": "1, 2, 3, 4, 5",
    }
    columns = {
        "checkpoints": "thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type,"
        " checkpoint::text, metadata::text",
        "checkpoint_blobs": "thread_id, checkpoint_ns, channel, version, type, blob",
        "checkpoint_writes": "thread_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path,"
        " channel, type, blob",
    }
    with psycopg.connect(dsn, autocommit=True) as conn:
        return {
            name: conn.execute(
                f'SELECT {columns[name]} FROM "{schema}".{name} ORDER BY {orders[name]}'
            ).fetchall()
            for name in columns
        }
