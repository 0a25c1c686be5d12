"""From what a run's steps and its ledger recorded to what the page shows beyond `report.json`."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import asdict
from importlib import metadata
from typing import Any

from psycopg import sql

from ..errors import MigrationError
from ..postgres import transaction
from ..run import records
from ..run.run import Run
from ..settings import Settings
from ..tables import KEYS, table
from ..texts import printable
from .page_facts import BatchLoaded, Named, Origin, PageFacts, Size, Span

PACKAGES = (
    "langgraph-checkpoint-sqlite",
    "langgraph-checkpoint-postgres",
    "langgraph-checkpoint",
    "psycopg",
    "apache-airflow",
)
NOT_ASKED = frozenset(("dag_id", "run_id", "rehearsal", "run_date", "sizes", "conn_id", "threads"))
STAGED_BYTES = """\
SELECT sum(pg_total_relation_size(to_regclass(name)))::bigint FROM unnest({names}::text[]) AS t(name)"""
COUNT_SOURCE = """\
SELECT (SELECT count(*) FROM checkpoints) AS checkpoints,
       (SELECT count(*) FROM writes) AS pending_writes;"""


def gather_facts(run: Run, origin: Origin) -> PageFacts:
    """What the run's records and its ledger have; where the target is out of reach, without that."""
    settings, journal = run.settings, run.journal
    promotion = journal.record(records.Promote).promotion
    result = journal.record(records.VerifyCounts).result
    verified = journal.entries(records.VerifyStaged)
    exports = journal.record(records.PlanBatches).exports or []
    return PageFacts(
        rehearsal=settings.rehearsal,
        inserted=promotion.inserted if promotion else None,
        already_live=promotion.identical if promotion else None,
        removed=promotion.removed if promotion else None,
        kept=promotion.kept if promotion else 0,
        replaced=promotion.replaced if promotion else 0,
        compared=bool(verified) and settings.verify == "full",
        sampled=result.sampled if result and settings.verify == "full" else None,
        unread=result.unread if result and settings.verify == "full" else None,
        digests=tuple(Named(f"export {e.shard:04}", e.manifest_sha256) for e in exports),
        versions=tuple(_versions()),
        params=tuple(_params(settings)),
        origin=origin,
        spans=tuple(_spans(run)),
        batches=tuple(_batches(run)),
        sizes=tuple(_sizes(run)),
        source_sql=None if settings.threads.globs else COUNT_SOURCE,
    )


def _versions() -> Iterator[Named]:
    yield Named("Python", platform.python_version())
    for name in PACKAGES:
        try:
            yield Named(name, metadata.version(name))
        except metadata.PackageNotFoundError:
            continue


def _params(settings: Settings) -> Iterator[Named]:
    """The run's params under the names of the form."""
    yield Named("postgres_conn_id", settings.conn_id)
    yield Named("threads", ", ".join(map(printable, settings.threads.globs)) or "all")
    for name, value in asdict(settings).items():
        if name not in NOT_ASKED:
            yield Named(name, {True: "true", False: "false"}.get(value, str(value)))


def _spans(run: Run) -> Iterator[Span]:
    for kind in records.ALL:
        if kind is not records.JudgeDrift:  # a part of promote
            for entry in run.journal.entries(kind):
                failed = entry.error is not None
                yield Span(kind.step, entry.started, entry.finished, failed)


def _batches(run: Run) -> Iterator[BatchLoaded]:
    for entry in run.journal.entries(records.LoadBatch):
        if entry.record.moved:
            yield BatchLoaded(entry.record.moved, max(0.0, entry.finished - entry.started))


def _sizes(run: Run) -> Iterator[Size]:
    """The same data in each of its forms."""
    frozen = run.journal.record(records.FreezeSource).frozen
    checked = run.journal.record(records.CheckSchema).source
    yield Size("SQLite", frozen.bytes if frozen else checked.bytes if checked else None)
    yield Size("export files", run.folder.export_bytes())
    names = [table(run.settings.staging_schema, name).as_string() for name in KEYS]
    statement = sql.SQL(STAGED_BYTES).format(names=sql.Literal(names))
    found = _ask(run, statement) if run.journal.entries(records.LoadBatch) else []
    yield Size("PostgreSQL, with indexes", found[0][0] if found else None)


def _ask(run: Run, statement: sql.Composed) -> list[Any]:
    try:
        with transaction(run.connect, "reading what the page shows", read_only=True) as conn:
            return conn.execute(statement).fetchall()
    except MigrationError:
        return []
