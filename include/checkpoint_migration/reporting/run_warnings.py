"""What a run's report warns of, from what its steps recorded."""

from __future__ import annotations

from collections.abc import Iterator

from ..findings import Caution, Promotion
from ..run import records
from ..run.journal import Journal


def noted_warnings(journal: Journal) -> Iterator[Caution]:
    """Yield the warnings of every step that got far enough to have one, in the steps' order."""
    checked = journal.record(records.CheckSchema)
    for message in checked.target.warnings if checked.target else ():
        yield Caution("target", message, 1)
    info = checked.source
    if info is not None:
        for name in info.other_tables:
            yield Caution("other_table", f"the source's table {name!r} is not migrated", 1)
        for name in info.other_columns:
            yield Caution("other_column", f"the source's column {name!r} is not migrated", 1)
    yield from journal.record(records.PlanBatches).warnings or ()
    promotion = journal.record(records.Promote).promotion
    if promotion is not None:
        yield from _of_promotion(promotion)
    witnessed = journal.record(records.VerifyCounts)
    if witnessed.result is not None and witnessed.result.unread:
        yield Caution(
            "unread",
            "pickled checkpoints of the sample were not read back through the savers, which would run "
            "code of the database; their bytes were compared",
            witnessed.result.unread,
        )
    if witnessed.gone_from_source:
        yield Caution(
            "removed_in_source",
            "checkpoints that an earlier run made live are gone from the source: left as they are",
            witnessed.gone_from_source,
            tuple(witnessed.gone_threads or ()),
        )


def _of_promotion(promotion: Promotion) -> Iterator[Caution]:
    removed = promotion.removed.checkpoints + promotion.removed.writes
    if removed:
        yield Caution(
            "removed_on_target",
            "rows that an earlier run made live were removed on PostgreSQL since: not brought back",
            removed,
            promotion.removed_threads,
        )
    if promotion.kept:
        yield Caution(
            "kept", "live rows with other content were kept, as on_conflict asks", promotion.kept
        )
    if promotion.replaced:
        yield Caution(
            "replaced",
            "live rows with other content were replaced, as on_conflict asks",
            promotion.replaced,
        )
