"""What a run's report warns of, from what its steps recorded."""

from __future__ import annotations

from collections.abc import Iterator

from ..model import Promotion, SourceInfo, Warning_
from ..preflight import TargetInfo
from ..run.journal import Journal
from ..steps.going_live import Outcome


def noted_warnings(journal: Journal) -> Iterator[Warning_]:
    """Yield the warnings of every step that got far enough to have one, in the steps' order."""
    target = journal.fact("check_schema", "target", TargetInfo)
    for message in target.warnings if target else ():
        yield Warning_("target", message, 1)
    info = journal.fact("check_schema", "source", SourceInfo)
    if info is not None:
        for name in info.other_tables:
            yield Warning_("other_table", f"the source's table {name!r} is not migrated", 1)
        for name in info.other_columns:
            yield Warning_("other_column", f"the source's column {name!r} is not migrated", 1)
    yield from journal.fact("plan_batches", "warnings", list[Warning_]) or ()
    promotion = journal.fact("promote", "promotion", Promotion)
    if promotion is not None:
        yield from _of_promotion(promotion)
    outcome = journal.fact("verify_counts", "outcome", Outcome)
    if outcome is not None and outcome.unread:
        yield Warning_(
            "unread",
            "pickled checkpoints of the sample were not read back through the savers, which would run "
            "code of the database; their bytes were compared",
            outcome.unread,
        )
    gone = journal.fact("verify_counts", "gone", int) or 0
    if gone:
        yield Warning_(
            "removed_in_source",
            "checkpoints that an earlier run made live are gone from the source: left as they are",
            gone,
            tuple(journal.fact("verify_counts", "gone_threads", list[str]) or ()),
        )


def _of_promotion(promotion: Promotion) -> Iterator[Warning_]:
    removed = promotion.removed.checkpoints + promotion.removed.writes
    if removed:
        yield Warning_(
            "removed_on_target",
            "rows that an earlier run made live were removed on PostgreSQL since: not brought back",
            removed,
            promotion.removed_threads,
        )
    if promotion.kept:
        yield Warning_(
            "kept", "live rows with other content were kept, as on_conflict asks", promotion.kept
        )
    if promotion.replaced:
        yield Warning_(
            "replaced",
            "live rows with other content were replaced, as on_conflict asks",
            promotion.replaced,
        )
