"""The one transaction that takes a run's rows out of live again, or leaves live exactly as it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import psycopg
from psycopg import sql

from ..errors import NotUndoable, TargetNotReady
from ..findings import Promotion, Undone
from ..postgres import Connect, transaction
from ..row_digests import content, from_bytes
from ..run import ledger, undo_ledger
from ..settings import Settings
from ..store_tables import STORE
from ..tables import KEYS, by_table, count_rows, table
from .kinds import THREADS, Kind, kinds_of, on
from .left_behind import left_blobs, left_items, left_threads
from .ours import may_go, note_kind, note_needed, note_replaced, ours
from .recognised import refuse_unrecognised, transaction_of
from .referring import refuse_what_follows

Conn = psycopg.Connection[Any]

TAKE_OUT = "DELETE FROM {live} AS l USING {ours} AS o WHERE {on} AND NOT o.replaced AND {may_go}"
RESTORE = """\
UPDATE {live} AS l SET {assignments}
  FROM {ours} AS o
  JOIN checkpoint_migration.replaced AS r
    ON r.run_key = {key} AND r.table_name = {name} AND r.key = o.key_digest
 WHERE {on} AND o.replaced AND {may_go}"""
ORIGINAL = "r.original[array_position(r.columns, {column})]"

# Where a later run looks for what the application removed, nothing is said of these any more.
FORGET_THREADS = """
DELETE FROM checkpoint_migration.promoted AS p
 WHERE p.live_schema = {schema}
   AND (p.thread_id, p.checkpoint_ns, p.checkpoint_id, p.orphan)
       IN (SELECT thread_id, checkpoint_ns, checkpoint_id, false FROM {checkpoints} AS o
            WHERE NOT o.replaced AND {checkpoints_go}
            UNION
           SELECT thread_id, checkpoint_ns, checkpoint_id, true FROM {writes} AS o
            WHERE NOT o.replaced AND {writes_go})
"""
FORGET_ITEMS = """
DELETE FROM checkpoint_migration.promoted_items AS p
 WHERE p.live_schema = {schema}
   AND (p.prefix, p.key) IN (SELECT prefix, key FROM {items} AS o WHERE NOT o.replaced AND {items_go})
"""


def undo_run(connect: Connect, settings: Settings, run_key: str) -> Undone:
    """Take out of live what the run inserted and bring back what it replaced, in one transaction.

    `settings` are the undoing run's, which holds the target. Threads that somebody went on with, or of
    which a row was changed, stay whole, and so does an item of the store; so do blobs that a checkpoint
    outside the run refers to. Other writers of these tables wait until this ends. A run
    that is undone already is left as it is, and what its undoing found is returned. Raises
    `NotUndoable` where the ledger keeps nothing of it, or its rows cannot be told from others any more.
    """
    with transaction(connect, "undoing a run") as conn:
        mine = ledger.hold(conn, settings.key)
        if mine.state != "running":
            return _again(mine.promotion)
        run = undo_ledger.known_run(conn, run_key, settings.dag_id)
        if run.undone:
            undone = _again(undo_ledger.result_of(conn, run_key))
        elif not run.promoted:
            undone = _nothing_live(run)
        elif not run.kept:
            raise _not_kept(run)
        else:
            undone = _undo(conn, run)
            undo_ledger.mark_undone(conn, settings.key, run_key, undone)
        ledger.mark_promoted(conn, settings.key, undone)
    return undone


def _again(recorded: dict[str, Any] | None) -> Undone:
    return msgspec.convert({**(recorded or {}), "already_done": True}, Undone)


def _undo(conn: Conn, run: undo_ledger.KnownRun) -> Undone:
    schema = run.live_schema
    kinds = kinds_of(conn, run.run_key, schema)
    names = [name for kind in kinds for name in kind.keys]
    # Nobody adds a checkpoint to a thread while it is judged and taken out; readers go on.
    tables = sql.SQL(", ").join(table(schema, name) for name in names)
    conn.execute(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(tables))
    refuse_what_follows(conn, schema, names)
    xid = transaction_of(conn, run.run_key)
    note_replaced(conn, run.run_key)
    for kind in kinds:
        note_kind(conn, kind, schema, run.run_key, xid)
    inserted = by_table(msgspec.convert(run.promotion, Promotion).inserted)
    live = {name: _live(conn, name) for name in names}
    refuse_unrecognised(conn, sum(inserted[name] for name in KEYS), sum(live.values()))
    removed, restored = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for kind in kinds:
        # children go first, for a foreign key may tie these tables together
        for name in reversed(kind.keys):
            if name == "checkpoint_blobs":  # the checkpoints are as they will stay by now
                note_needed(conn, schema)
            back, out = _going(conn, kind, name, replaced=True), _going(conn, kind, name)
            restored[name] = _restore(conn, kind, name, schema, run.run_key)
            removed[name] = _take_out(conn, kind, name, schema)
            if (restored[name], removed[name]) != (back, out):
                raise _kept_back(name, back + out - restored[name] - removed[name])
    _forget(conn, schema, kinds)
    threads, items = left_threads(conn, kinds), left_items(conn, kinds)
    blobs = left_blobs(conn)
    return Undone(
        run_id=run.run_id,
        dag_id=run.dag_id,
        schema=schema,
        removed=removed,
        restored=restored,
        left={name: live[name] - removed[name] for name in names},
        gone={name: inserted[name] - live[name] for name in names},
        left_threads=threads.total,
        threads=threads.first,
        left_items=items.total,
        items=items.first,
        left_blobs=blobs.total,
        blobs=blobs.first,
    )


def _going(conn: Conn, kind: Kind, name: str, *, replaced: bool = False) -> int:
    """How many rows are to go, or to be what they were before the run replaced them."""
    rows = sql.SQL("{ours} AS o WHERE o.replaced = {replaced} AND {may_go}")
    return count_rows(
        conn,
        rows.format(ours=ours(name), replaced=sql.Literal(replaced), may_go=may_go(kind, name)),
    )


def _kept_back(name: str, rows: int) -> TargetNotReady:
    return TargetNotReady(
        f"{rows:,} rows of {name} did not go or change when they were to: a trigger or rule of the "
        "database keeps them.",
        safe="nothing was undone: the transaction was rolled back as a whole.",
        next="see which triggers and rules the live tables have, switch them off for the undo, and "
        "trigger the DAG again.",
        table=name,
    )


def _take_out(conn: Conn, kind: Kind, name: str, schema: str) -> int:
    statement = sql.SQL(TAKE_OUT).format(
        live=table(schema, name),
        ours=ours(name),
        on=on(kind.keys[name], "l", "o"),
        may_go=may_go(kind, name),
    )
    return conn.execute(statement).rowcount


def _restore(conn: Conn, kind: Kind, name: str, schema: str, run_key: str) -> int:
    assignments = [
        sql.SQL("{} = {}").format(
            sql.Identifier(column),
            from_bytes(name, column, sql.SQL(ORIGINAL).format(column=sql.Literal(column)), "l"),
        )
        for column in content(name)
    ]
    return conn.execute(
        sql.SQL(RESTORE).format(
            live=table(schema, name),
            assignments=sql.SQL(", ").join(assignments),
            ours=ours(name),
            key=sql.Literal(run_key),
            name=sql.Literal(name),
            on=on(kind.keys[name], "l", "o"),
            may_go=may_go(kind, name),
        )
    ).rowcount


def _forget(conn: Conn, schema: str, kinds: Sequence[Kind]) -> None:
    conn.execute(
        sql.SQL(FORGET_THREADS).format(
            schema=sql.Literal(schema),
            checkpoints=ours("checkpoints"),
            checkpoints_go=may_go(THREADS, "checkpoints"),
            writes=ours("checkpoint_writes"),
            writes_go=may_go(THREADS, "checkpoint_writes"),
        )
    )
    for kind in kinds:
        if STORE in kind.keys:
            conn.execute(
                sql.SQL(FORGET_ITEMS).format(
                    schema=sql.Literal(schema), items=ours(STORE), items_go=may_go(kind, STORE)
                )
            )


def _live(conn: Conn, name: str) -> int:
    return count_rows(conn, sql.SQL("{} WHERE NOT replaced").format(ours(name)))


def _nothing_live(run: undo_ledger.KnownRun) -> Undone:
    none = dict.fromkeys(KEYS, 0)
    return Undone(
        run_id=run.run_id,
        dag_id=run.dag_id,
        schema=run.live_schema,
        removed=none,
        restored=none,
        left=none,
        gone=none,
        nothing_live=True,
    )


def _not_kept(run: undo_ledger.KnownRun) -> NotUndoable:
    return NotUndoable(
        "the ledger keeps nothing any more of what this run inserted and replaced.",
        safe="nothing was undone: the live tables are as they were.",
        next="it is kept for CHECKPOINT_MIGRATION_UNDO_DAYS from promote on, by releases that know "
        "how to undo. docs/what-if.md has the statements that take rows out by hand.",
        run=run.run_key,
    )
