"""Undo driven through the engine's façade, and what the live tables hold as a dump has it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from include import checkpoint_migration as engine
from tests.support.engine import Migration

UNDOING = b"INSERT INTO checkpoint_migration.undone"  # the last statement before an undo's COMMIT
Dump = dict[str, list[tuple[Any, ...]]]


def dump(dsn: str, schema: str = "public") -> Dump:
    """Every row of every table of a schema, all columns as text, sorted: what `pg_dump` would write."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        tables = conn.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY 1", (schema,)
        ).fetchall()
        return {
            name: conn.execute(
                f'SELECT t::text FROM "{schema}"."{name}" AS t ORDER BY 1'
            ).fetchall()
            for (name,) in tables
        }


@dataclass
class Undo:
    """A run that undoes another; `report` is the last `undo.json`."""

    dsn: str
    exports: Path
    asked: str
    run_id: str = "undo-1"
    log: list[str] = field(default_factory=list)
    owner: str | None = None
    objects: engine.Objects | None = field(default=None, repr=False)

    @classmethod
    def of(cls, migration: Migration, run_id: str = "undo-1", **more: Any) -> Undo:
        return cls(migration.dsn, migration.exports, migration.run_id, run_id, **more)

    @property
    def run(self) -> engine.Run:
        asked = engine.parse_undo(
            {"run_id": self.asked},
            dag_id="undo_migration",
            run_id=self.run_id,
            default_export_uri=str(self.exports),
        )
        return engine.Run(
            asked.run, self.connect, self.log.append, self.owner, objects=self.objects
        )

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.dsn)

    @property
    def folder(self) -> Path:
        return self.run.folder.path

    def all(self) -> dict[str, Any]:
        engine.undo(self.run, self.asked)
        return self.report

    @property
    def report(self) -> dict[str, Any]:
        return json.loads((self.folder / "undo.json").read_bytes())
