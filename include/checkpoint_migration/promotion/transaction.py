"""Promote: the one transaction that makes staging live, or leaves live exactly as it was."""

from __future__ import annotations

from typing import Any

import msgspec
import psycopg
from msgspec.structs import replace

from .. import store_tables
from ..errors import StagingLost
from ..findings import Promotion
from ..postgres import Connect, transaction
from ..run import ledger
from ..run.receipts import CHECKPOINTS
from ..settings import Settings
from ..tables import KEYS, analyze, as_counts, count, count_rows
from .conflicts import replace_live
from .inserting import KeyTaken, insert, plain_tables, prove
from .judgement import Judgement, judge
from .kept_for_undo import note_threads, note_written
from .left_out import note_kept, removed_rows, removed_threads
from .other_histories import leave_out
from .recorded import record
from .relations import identical
from .store import hold_store, promote_store

SHOWN = 100
Conn = psycopg.Connection[Any]


def promote_staged(connect: Connect, settings: Settings) -> Promotion:
    """Make every staged row live in one transaction, or raise and leave live as it was.

    REPEATABLE READ: an application that writes one of our keys meanwhile makes this fail and be
    tried again, instead of ending with its content under our verdict. A run that is promoted
    already returns what its transaction recorded.
    """
    row = ledger.find_run(connect, settings.key)
    if row is None or row.state == "running":
        analyze(connect, settings.staging_schema)
        store_tables.analyze(connect, settings.staging_schema)
    try:
        promotion = _promote(connect, settings, alone=True)
    except KeyTaken:  # with ON CONFLICT the server says what stands in the way
        promotion = _promote(connect, settings, alone=False)
    if promotion.already_done:
        return promotion
    analyze(connect, settings.live_schema)
    if promotion.inserted.items or promotion.inserted.vectors:
        store_tables.analyze(connect, settings.live_schema)
    ledger.analyze_promoted(connect)
    return promotion


def _promote(connect: Connect, settings: Settings, *, alone: bool) -> Promotion:
    """The transaction. `alone`: keys that are not live are taken to stay free until it ends."""
    with transaction(connect, "promoting staging", repeatable_read=True) as conn:
        run = ledger.hold(conn, settings.key)
        if run.state != "running":
            return msgspec.convert({**(run.promotion or {}), "already_done": True}, Promotion)
        _check_receipts(conn, settings)
        judgement = judge(conn, settings)
        note_threads(conn, settings)
        kept, replaced = _settle(conn, settings, judgement)
        found, inserted = {}, {}
        for name in KEYS:
            found[name] = count_rows(conn, identical(name, settings))
            is_free = alone and not (found[name] or judgement.total)
            inserted[name] = insert(conn, name, settings, is_free=is_free)
        note_written(conn, settings)
        of_store = hold_store(conn, settings)
        plain = plain_tables(connect, (*KEYS, *of_store), settings)
        for name in KEYS:
            prove(conn, name, settings, found[name] + inserted[name], plain=name in plain)
        removed = {name: removed_rows(conn, name, settings) for name in KEYS}
        store = promote_store(conn, settings, of_store, plain)
        promotion = Promotion(
            inserted=as_counts(inserted) + store.inserted,
            identical=as_counts(found) + store.identical,
            removed=as_counts(removed) + store.removed,
            kept=kept + store.kept,
            replaced=replaced + store.replaced,
            removed_threads=removed_threads(conn, settings),
        )
        promotion = _with_judgement(promotion, judgement)
        all_inserted = not (found["checkpoints"] or judgement.total)
        record(conn, settings, alone=alone, as_staged=all_inserted and "checkpoints" in plain)
        ledger.mark_promoted(conn, settings.key, promotion)
        return promotion


class _Undone(Exception):
    """Ends a transaction that is not to be committed, with what was found in it."""

    def __init__(self, found: Judgement) -> None:
        self.found = found


def judge_real_tables(connect: Connect, settings: Settings) -> Judgement:
    """What a real run of a rehearsal's settings would meet on live: raised as it would be raised.

    Nothing is written to live, and what is noted in staging on the way is rolled back.
    """
    try:
        with transaction(connect, "judging the real tables", repeatable_read=True) as conn:
            ledger.hold(conn, settings.key)
            raise _Undone(judge(conn, settings.as_real))
    except _Undone as undone:
        return undone.found


def as_on_live(promotion: Promotion, settings: Settings, judgement: Judgement) -> Promotion:
    """A rehearsal's promotion with what the real one would have kept, replaced and left out."""
    replaces = settings.on_conflict == "replace"
    return replace(
        _with_judgement(promotion, judgement),
        kept=0 if replaces else judgement.differing,
        replaced=judgement.differing if replaces else 0,
    )


def _with_judgement(promotion: Promotion, judgement: Judgement) -> Promotion:
    return replace(
        promotion,
        conflicts=judgement.conflicts,
        conflicting=judgement.total,
        other_histories=len(judgement.histories),
        on_both_sides=len(judgement.on_both_sides),
        both_sides=judgement.on_both_sides[:SHOWN],
    )


def _settle(conn: Conn, settings: Settings, judgement: Judgement) -> tuple[int, int]:
    """Do with conflicts what `on_conflict` asks; returns how many live rows stay, and how many give way."""
    if not judgement.total:
        return 0, 0
    if settings.on_conflict == "replace":
        return 0, replace_live(conn, settings)
    leave_out(conn, settings, judgement.histories)
    return note_kept(conn, settings), 0


def _check_receipts(conn: Conn, settings: Settings) -> None:
    there = count(conn, settings.staging_schema)
    receipts = CHECKPOINTS.total(conn, settings.key)
    if there != receipts:
        raise StagingLost(
            f"staging holds {there.checkpoints:,} checkpoints and {there.writes:,} writes; the receipts "
            f"say {receipts.checkpoints:,} and {receipts.writes:,}.",
            next="clear plan_batches, so that every batch is loaded again.",
        )
