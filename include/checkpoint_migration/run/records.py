"""What each step records for those after it and for the report: a field is None until it is known.

A record is kept by the journal under its step's name, which is the task's name.
"""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct

from ..findings import (
    Blocker,
    Caution,
    Counts,
    Difference,
    Drift,
    Promotion,
    ShardVerdict,
    Undone,
    WitnessResult,
)
from ..model import Export, SourceInfo, TargetInfo
from ..store_model import StoreTarget
from ..store_tables import STORE, VECTORS


class Record(Struct):
    """What every step records. `moved`: the checkpoints it moved or compared, for its rate."""

    step: ClassVar[str]
    moved: int | None = None


class CheckSchema(Record):
    step: ClassVar[str] = "check_schema"
    source: SourceInfo | None = None
    target: TargetInfo | None = None
    store: StoreTarget | None = None

    @property
    def store_tables(self) -> tuple[str, ...]:
        """The store's tables that the run takes: none where the source has no store."""
        if self.store is None:
            return ()
        return (STORE, VECTORS) if self.store.vectors else (STORE,)


class FreezeSource(Record):
    """`seen` tells the state that was frozen of a source in an object store, where this try froze it."""

    step: ClassVar[str] = "freeze_source"
    frozen: SourceInfo | None = None
    seen: str | None = None


class PlanShards(Record):
    step: ClassVar[str] = "plan_shards"
    shards: int | None = None


class ExportThreads(Record):
    """One for each shard."""

    step: ClassVar[str] = "export_threads"


class PlanBatches(Record):
    step: ClassVar[str] = "plan_batches"
    exports: list[Export] | None = None
    exported: Counts | None = None
    blockers: list[Blocker] | None = None
    warnings: list[Caution] | None = None


class LoadBatch(Record):
    """One for each task of batches."""

    step: ClassVar[str] = "load_batch"


class VerifyStaged(Record):
    """One for each shard."""

    step: ClassVar[str] = "verify_staged"
    verdict: ShardVerdict | None = None


class JudgeDrift(Record):
    """A record of its own, so that a promote tried again after its COMMIT keeps it."""

    step: ClassVar[str] = "judge_drift"
    drift: Drift | None = None
    source: Counts | None = None


class Promote(Record):
    step: ClassVar[str] = "promote"
    promotion: Promotion | None = None
    conflicts: list[Difference] | None = None
    conflicting: int | None = None


class VerifyCounts(Record):
    step: ClassVar[str] = "verify_counts"
    result: WitnessResult | None = None
    gone_from_source: int | None = None
    gone_threads: list[str] | None = None
    gone_items: int | None = None


class Undo(Record):
    """Of a run that undoes another."""

    step: ClassVar[str] = "undo"
    undone: Undone | None = None


# In the order of the pipeline.
ALL: tuple[type[Record], ...] = (
    CheckSchema,
    FreezeSource,
    PlanShards,
    ExportThreads,
    PlanBatches,
    LoadBatch,
    VerifyStaged,
    JudgeDrift,
    Promote,
    VerifyCounts,
    Undo,
)
