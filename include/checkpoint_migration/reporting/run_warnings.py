"""What a run's report warns of, from what its steps recorded."""

from __future__ import annotations

from collections.abc import Iterator

from ..findings import Caution, Promotion
from ..model import Beside, OtherTable, SourceInfo
from ..run import records
from ..run.journal import Journal
from ..store_model import StoreInfo, StoreTarget
from ..texts import quoted
from .kinds import OTHER_HISTORIES

INDEX_AGAIN = (
    "let PostgresStore.setup() with the application's index make the table store_vectors, of the same "
    "dimensions, and run this again, which adds them; or have the application put its items again, which "
    "indexes them anew"
)
NAMED = 20  # tables, views and triggers that a warning names


def noted_warnings(journal: Journal) -> Iterator[Caution]:
    """Yield the warnings of every step that got far enough to have one, in the steps' order."""
    checked = journal.record(records.CheckSchema)
    for looked_at in (checked.target, checked.store):
        for message in looked_at.warnings if looked_at else ():
            yield Caution("target", message, 1)
    info = checked.source
    if info is not None:
        frozen = journal.record(records.FreezeSource).frozen
        yield from _of_the_file(info, frozen, takes_store=checked.store is not None)
        if checked.store is not None:
            yield from _of_vectors(checked.store, (frozen or info).store)
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
    if witnessed.gone_items:
        yield Caution(
            "removed_in_source_store",
            "store items that an earlier run made live are gone from the source: left as they are",
            witnessed.gone_items,
        )
    if witnessed.result is not None and witnessed.result.swept:
        yield Caution(
            "swept",
            "store items expired since promote, and the application has swept them from PostgreSQL",
            witnessed.result.swept,
        )


def _of_vectors(target: StoreTarget, store: StoreInfo | None) -> Iterator[Caution]:
    if target.why and store is not None:
        yield Caution(
            "store_vectors_not_copied",
            f"vectors of the store were not copied: {target.why}; {INDEX_AGAIN}",
            store.vectors,
        )
    if store is not None and store.orphan_vectors:
        yield Caution(
            "orphan_vectors",
            "vectors whose item is gone, which no reader of the store meets: left out",
            store.orphan_vectors,
        )


def _of_the_file(
    info: SourceInfo, frozen: SourceInfo | None, *, takes_store: bool
) -> Iterator[Caution]:
    """What the source holds besides. Only the frozen source was looked through."""
    beside = frozen.beside if frozen is not None else None
    if beside is None:
        beside = Beside(tuple(OtherTable(name, None) for name in info.other_tables))
    # one that takes threads and finds none is refused
    if excluding := [glob for glob in info.unmatched_globs if glob.startswith("!")]:
        yield Caution(
            "unmatched_globs",
            "globs of `threads` exclude no thread of the source: "
            f"{_listed([quoted(glob) for glob in excluding])}",
            len(excluding),
        )
    others = [*map(_table, beside.tables), *beside.objects]
    if others:
        yield Caution(
            "other_tables",
            f"the source holds what is not the saver's, which is not migrated: {_listed(others)}",
            len(others),
        )
    if beside.store and not takes_store:
        behind = "it belongs to no thread, and `threads` takes some by name" if info.store else ""
        yield Caution(
            "store_tables",
            "the source holds a SqliteStore (long-term memory), which stays behind, for "
            f"{behind or '`store: skip` asks so, or it is not as SqliteStore makes it'}: "
            f"{_listed([*map(_table, beside.store)])}",
            len(beside.store),
        )
    if beside.faults:
        yield Caution(
            "source_check",
            "SQLite's own check of the file finds faults that do not touch what is migrated: "
            f"{'; '.join(beside.faults)}",
            len(beside.faults),
        )
    if beside.orphan_writes:
        yield Caution(
            "orphan_writes",
            "pending writes whose checkpoint is not in the source (of deleted conversations?): migrated "
            "as they are",
            beside.orphan_writes,
            beside.orphan_threads,
        )
    if beside.lone_threads:
        yield Caution(
            "threads_without_checkpoints",
            "threads that have pending writes and no checkpoint (deleted conversations?): migrated as "
            "they are",
            beside.lone_threads,
            beside.lone_examples,
        )


def _table(table: OtherTable) -> str:
    rows = "rows not counted" if table.rows is None else f"{table.rows:,} rows"
    if table.rows == 1:
        rows = "1 row"
    kind = f"{table.module}, " if table.module else ""
    shadows = f", kept in {_listed([*map(quoted, table.shadows)])}" if table.shadows else ""
    return f"{quoted(table.name)} ({kind}{rows}{shadows})"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _of_promotion(promotion: Promotion) -> Iterator[Caution]:
    of = promotion.removed
    removed = of.checkpoints + of.writes + of.items + of.vectors
    if removed:
        yield Caution(
            "removed_on_target",
            "rows that an earlier run made live were removed on PostgreSQL since: not brought back",
            removed,
            promotion.removed_threads,
        )
    if promotion.on_both_sides:
        yield Caution(
            "went_on_both_sides",
            "threads went on in the source and on PostgreSQL since they were moved: both continuations are "
            "live, and the application goes on from the later one of each. If two applications were "
            "answering, look at these threads before anybody does",
            promotion.on_both_sides,
            promotion.both_sides,
        )
    if promotion.other_histories:
        yield Caution(
            OTHER_HISTORIES,
            "threads are live with a history that is not this source's: left out, as on_conflict asks",
            promotion.other_histories,
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
