"""Promote: the one transaction that makes staging live, or leaves live exactly as it was."""

from __future__ import annotations

from typing import Any

import msgspec
import psycopg
from psycopg import sql

from ..errors import StagingLost, TargetBusy, TargetConflict, quoted
from ..load.staging import COLUMNS, KEYS, analyze, as_counts, count, key_order
from ..model import Difference, Promotion
from ..postgres import Connect, table, transaction
from ..run import ledger
from ..settings import Settings
from .left_out import count_rows, keep_live, note_left_out, removed_rows, removed_threads
from .relations import differing, identical, on_key, same_row, staged, wanted

SHOWN = 100
Conn = psycopg.Connection[Any]


def promote(connect: Connect, settings: Settings) -> Promotion:
    """Make every staged row live in one transaction, or raise and leave live as it was.

    REPEATABLE READ: an application that writes one of our keys meanwhile makes this fail and be
    tried again, instead of ending with its content under our verdict. A run that is promoted
    already returns what its transaction recorded.
    """
    row = ledger.find_run(connect, settings.key)
    if row is None or row.state == "running":
        analyze(connect, settings.staging_schema)
    with transaction(connect, "promoting staging", repeatable_read=True) as conn:
        run = ledger.hold(conn, settings.key)
        if run.state != "running":
            return msgspec.convert({**(run.promotion or {}), "again": True}, Promotion)
        _check_receipts(conn, settings)
        note_left_out(conn, settings)
        conflicts = _conflicts(conn, settings)
        kept = replaced = 0
        if conflicts:
            if settings.on_conflict == "fail" or conflicts[0].table == "checkpoint_blobs":
                raise _conflict(conflicts, _count_differing(conn, settings))
            if settings.on_conflict == "replace":
                replaced = _replace(conn, settings)
            else:
                kept = keep_live(conn, settings)
        found, inserted = {}, {}
        for name in KEYS:
            found[name] = count_rows(conn, identical(name, settings))
            inserted[name] = _insert(conn, name, settings)
        for name in KEYS:
            _prove(conn, name, settings, found[name] + inserted[name])
        promotion = Promotion(
            inserted=as_counts(inserted),
            identical=as_counts(found),
            removed=as_counts({name: removed_rows(conn, name, settings) for name in KEYS}),
            kept=kept,
            replaced=replaced,
            removed_threads=removed_threads(conn, settings),
            conflicts=tuple(conflicts),
        )
        _record(conn, settings)
        ledger.mark_promoted(conn, settings.key, promotion)
    analyze(connect, settings.live_schema)
    return promotion


def _check_receipts(conn: Conn, settings: Settings) -> None:
    there = count(conn, settings.staging_schema)
    receipts = ledger.receipts_total(conn, settings.key)
    if there != receipts:
        raise StagingLost(
            f"staging holds {there.checkpoints:,} checkpoints and {there.writes:,} writes; the receipts "
            f"say {receipts.checkpoints:,} and {receipts.writes:,}.",
            next="clear plan_batches, so that every batch is loaded again.",
        )


def _conflicts(conn: Conn, settings: Settings) -> list[Difference]:
    """The first live rows that have a staged row's key and other content, blobs first."""
    first: list[Difference] = []
    for name in KEYS:
        is_blob = name == "checkpoint_blobs"
        for thread_id, ns, place in conn.execute(
            sql.SQL("SELECT s.thread_id, s.checkpoint_ns, s.{} FROM {} LIMIT {}").format(
                sql.Identifier("channel" if is_blob else "checkpoint_id"),
                differing(name, settings),
                sql.Literal(SHOWN - len(first)),
            )
        ):
            first.append(
                Difference(
                    thread_id,
                    ns,
                    "" if is_blob else place,
                    name,
                    f"channel {quoted(place)}" if is_blob else "",
                    "the live row has the same key and other content",
                )
            )
    return first


def _count_differing(conn: Conn, settings: Settings) -> int:
    return sum(count_rows(conn, differing(name, settings)) for name in KEYS)


def _conflict(conflicts: list[Difference], total: int) -> TargetConflict:
    return TargetConflict(
        f"{total:,} live rows have the same keys as rows of this run and other content, the first in "
        f"thread {quoted(conflicts[0].thread_id)} ({conflicts[0].table}).",
        next="look at the rows that the report lists as conflicts. Blobs were written since the export: "
        "trigger the DAG again, and the incoming contents get versions of their own."
        if conflicts[0].table == "checkpoint_blobs"
        else "look at the rows that the report lists as conflicts; then run again with on_conflict keep "
        "or replace, or take those rows out of the live tables.",
        conflicts=conflicts,
    )


def _replace(conn: Conn, settings: Settings) -> int:
    """Give live rows the staged content. Blobs are never replaced: the application's own later
    checkpoints share them, and an incoming content that differs has a version of its own.
    """
    replaced = 0
    for name in ("checkpoints", "checkpoint_writes"):
        columns = [column for column in COLUMNS[name] if column not in KEYS[name]]
        assignments = [sql.SQL("{0} = s.{0}").format(sql.Identifier(c)) for c in columns]
        if name == "checkpoints":
            assignments.append(sql.SQL("type = NULL").format())
        replaced += conn.execute(
            sql.SQL("UPDATE {} l SET {} FROM {} WHERE {} AND NOT {}").format(
                table(settings.live_schema, name),
                sql.SQL(", ").join(assignments),
                staged(name, settings),
                on_key(name),
                same_row(name, settings),
            )
        ).rowcount
    return replaced


def _insert(conn: Conn, name: str, settings: Settings) -> int:
    columns = sql.SQL(", ").join(sql.Identifier(column) for column in COLUMNS[name])
    return conn.execute(
        sql.SQL(
            "INSERT INTO {live} ({columns}) SELECT {staged_columns} FROM {wanted} ORDER BY {order}"
            " ON CONFLICT DO NOTHING"
        ).format(
            live=table(settings.live_schema, name),
            columns=columns,
            staged_columns=sql.SQL(", ").join(sql.Identifier("s", c) for c in COLUMNS[name]),
            wanted=wanted(name, settings),
            order=key_order(name, "s"),
        )
    ).rowcount


def _prove(conn: Conn, name: str, settings: Settings, expected: int) -> None:
    """Inserted and found identical are all that was to be live, and they read equal now."""
    should = count_rows(conn, wanted(name, settings))
    kept = count_rows(conn, differing(name, settings)) if settings.on_conflict == "keep" else 0
    live = count_rows(conn, identical(name, settings))
    if live + kept != should or expected + kept != should:
        raise TargetBusy(
            f"after inserting, {live:,} of {should:,} rows of {name} are live and equal: something "
            "else changes these tables.",
            next="nothing at first: the transaction is tried again. If it repeats, look for triggers "
            "or rules on the live tables.",
        )


def _record(conn: Conn, settings: Settings) -> None:
    """Write down which keys this run made live or found there, with what they hold."""
    live = table(settings.live_schema, "checkpoints")
    upsert = sql.SQL(
        " ON CONFLICT (live_schema, thread_id, checkpoint_ns, checkpoint_id) DO UPDATE SET"
        " run_key = excluded.run_key, source = excluded.source, orphan = excluded.orphan,"
        " digest = excluded.digest"
    )
    columns = sql.SQL(
        "INSERT INTO checkpoint_migration.promoted (live_schema, thread_id, checkpoint_ns,"
        " checkpoint_id, run_key, source, orphan, digest) "
    )
    ours = (settings.live_schema, settings.key, settings.source)
    conn.execute(
        columns
        + sql.SQL("SELECT %s, s.thread_id, s.checkpoint_ns, s.checkpoint_id, %s, %s, false, ")
        + DIGEST
        + sql.SQL(" FROM {}").format(identical("checkpoints", settings))
        + upsert,
        ours,
    )
    conn.execute(
        columns
        + sql.SQL(
            "SELECT DISTINCT %s, s.thread_id, s.checkpoint_ns, s.checkpoint_id, %s, %s, true, NULL::bytea"
            " FROM {} AND NOT EXISTS (SELECT 1 FROM {} l WHERE {})"
        ).format(wanted("checkpoint_writes", settings), live, on_key("checkpoints"))
        + upsert,
        ours,
    )


DIGEST = sql.SQL(
    "sha256(convert_to(concat_ws(chr(10), l.parent_checkpoint_id, l.checkpoint::text, l.metadata::text),"
    " 'UTF8'))"
)
"""What is recorded of a live checkpoint `l`, so that a later look can tell whether it changed."""
