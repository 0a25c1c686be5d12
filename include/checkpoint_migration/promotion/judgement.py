"""What stands against making staging live, found before a row of live is written.

A rehearsal judges the real tables by the same look, and so says what the real run would have said.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import psycopg

from ..errors import TargetConflict
from ..findings import Difference
from ..settings import Settings
from ..store_tables import KEYS as STORE_KEYS
from ..texts import quoted
from .conflicts import conflicts_of, count_conflicts
from .constraints import refuse_broken_constraints
from .left_out import note_removed
from .order_of_ids import refuse_other_order
from .other_histories import listed, look_at_histories
from .store import note_removed_items, store_conflicts

Conn = psycopg.Connection[Any]
SHOWN = 100


@dataclass(frozen=True, slots=True)
class Judgement:
    """What `on_conflict` has to decide: threads of another history, and live rows that differ.

    And what is no conflict, for no row is in the way: threads that went on on both sides.
    """

    histories: dict[str, int] = field(default_factory=dict)
    rows: tuple[Difference, ...] = ()
    differing: int = 0
    on_both_sides: tuple[str, ...] = ()

    @property
    def conflicts(self) -> tuple[Difference, ...]:
        """The first conflicts, whole threads before rows."""
        return (*listed(self.histories), *self.rows)[:SHOWN]

    @property
    def total(self) -> int:
        return len(self.histories) + self.differing


def judge(conn: Conn, settings: Settings) -> Judgement:
    """Look at staging against the live tables of `settings`, and note in staging what stays away.

    Raises `TargetNotReady` for what no choice of `on_conflict` settles, and `TargetConflict` where it
    is `fail`, or does not cover what was found.
    """
    note_removed(conn, settings)
    note_removed_items(conn, settings)
    refuse_other_order(conn, settings)
    refuse_broken_constraints(conn, settings)
    of_store, differing_in_store = store_conflicts(conn, settings)
    histories = look_at_histories(conn, settings)
    found = Judgement(
        histories.others,
        (*conflicts_of(conn, settings), *of_store)[:SHOWN],
        count_conflicts(conn, settings) + differing_in_store,
        histories.on_both_sides,
    )
    if found.histories and settings.on_conflict != "keep":
        raise _other_histories(found)
    if found.rows and (settings.on_conflict == "fail" or found.rows[0].table == "checkpoint_blobs"):
        raise _other_contents(found)
    return found


def _other_histories(found: Judgement) -> TargetConflict:
    threads = list(found.histories)
    one = len(threads) == 1
    return TargetConflict(
        f"{len(threads):,} thread{' is' if one else 's are'} live already with a history that is not "
        f"this source's, the first is {quoted(threads[0])}.",
        next="two applications use the same thread ids: give one of them a target_schema or a database "
        "of its own; or leave those threads out, with threads or with on_conflict: keep, which lists "
        "them. on_conflict: replace does not cover them.",
        conflicts=found.conflicts,
        total=found.total,
    )


def _other_contents(found: Judgement) -> TargetConflict:
    first = found.rows[0]
    of_blobs = first.table == "checkpoint_blobs"
    rows = "row has" if found.differing == 1 else "rows have"
    where = f"thread {quoted(first.thread_id)}"
    if first.table in STORE_KEYS:
        where = f"namespace {quoted(first.checkpoint_ns)} of the store"
    return TargetConflict(
        f"{found.differing:,} live {rows} the key of a row of this run and other content, the first in "
        f"{where} ({first.table}).",
        next="look at the rows that the report lists as conflicts. Blobs were written since the export: "
        "trigger the DAG again, and the incoming contents get versions of their own."
        if of_blobs
        else "look at the rows that the report lists as conflicts; then run again with on_conflict keep "
        "(what is live stays) or replace (the source's content).",
        conflicts=found.conflicts,
        total=found.total,
    )
