"""The one transaction that takes a run's rows out of live again, or leaves live exactly as it was."""

from __future__ import annotations

from typing import Any

import msgspec
import psycopg
from psycopg import sql

from ..errors import NotUndoable
from ..findings import LeftBlob, LeftThread, Undone
from ..postgres import Connect, transaction
from ..row_digests import content, from_bytes
from ..run import ledger, undo_ledger
from ..settings import Settings
from ..tables import KEYS, table
from .ours import BY_THREAD, may_go, note_kept, note_left_threads, note_ours, on_key, ours
from .referring import refuse_what_follows

Conn = psycopg.Connection[Any]
SHOWN = 100

# Children go first, for a team may have tied these tables together.
ORDER = tuple(reversed(KEYS))

TAKE_OUT = "DELETE FROM {live} AS l USING {ours} AS o WHERE {on} AND NOT o.replaced AND {may_go}"
RESTORE = """\
UPDATE {live} AS l SET {assignments}
  FROM {ours} AS o
  JOIN checkpoint_migration.replaced AS r
    ON r.run_key = {key} AND r.table_name = {name} AND r.key = o.key
 WHERE {on} AND o.replaced AND {may_go}"""
ORIGINAL = "r.original[array_position(r.columns, {column})]"

# Where a later run looks for what the application removed, nothing is said of these any more.
FORGET = """
DELETE FROM checkpoint_migration.promoted AS p
 WHERE p.live_schema = {schema}
   AND (p.thread_id, p.checkpoint_ns, p.checkpoint_id, p.orphan)
       IN (SELECT thread_id, checkpoint_ns, checkpoint_id, false FROM {checkpoints} AS o
            WHERE NOT o.replaced AND {checkpoints_go}
            UNION
           SELECT thread_id, checkpoint_ns, checkpoint_id, true FROM {writes} AS o
            WHERE NOT o.replaced AND {writes_go})
"""
COUNT = """
SELECT (SELECT count(*) FROM undo_kept WHERE table_name = {name} AND NOT replaced),
       (SELECT count(*) FROM {ours} WHERE NOT replaced)
"""
LEFT = """
SELECT t.thread_id, t.changed, t.went_on, {counts}, count(*) OVER ()
  FROM undo_left AS t
  JOIN ({rows}) AS o USING (thread_id)
 GROUP BY t.thread_id, t.changed, t.went_on
 ORDER BY t.thread_id COLLATE "C"
 LIMIT {limit}
"""
LEFT_ROWS = "SELECT thread_id, {name} AS name FROM {ours}"
LEFT_COUNT = "count(*) FILTER (WHERE o.name = {name})"
LEFT_BLOBS = """
SELECT o.thread_id, o.checkpoint_ns, o.channel, count(*) OVER ()
  FROM {ours} AS o
  JOIN undo_needed AS n ON {on}
 WHERE NOT o.replaced
 ORDER BY 1, 2, 3 LIMIT {limit}
"""
WHY = {
    (True, False): "rows of the run were changed since",
    (False, True): "the application or a later run wrote to it, or removed rows, since",
    (True, True): "rows of the run were changed since, and others written or removed",
}


def undo_run(connect: Connect, settings: Settings, run_key: str) -> Undone:
    """Take out of live what the run inserted and bring back what it replaced, in one transaction.

    `settings` are the undoing run's, which holds the target. Threads that somebody went on with, or of
    which a row was changed, stay whole; so do blobs that a checkpoint outside the run refers to. Other
    writers of the three tables wait until this ends. A run that is undone already is left as it is,
    and what its undoing found is returned. Raises `NotUndoable` where the ledger keeps nothing of it.
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
    names = sql.SQL(", ").join(table(schema, name) for name in KEYS)
    # Nobody adds a checkpoint to a thread while it is judged and taken out; readers go on.
    conn.execute(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(names))
    refuse_what_follows(conn, schema)
    note_kept(conn, run.run_key)
    for name in KEYS:
        note_ours(conn, name, schema)
    note_left_threads(conn, schema)
    removed, restored = {}, {}
    for name in ORDER:
        restored[name] = _restore(conn, name, schema, run.run_key)
        removed[name] = _take_out(conn, name, schema)
    _forget(conn, schema)
    inserted, live = {}, {}
    for name in KEYS:
        inserted[name], live[name] = _counts(conn, name)
    threads, left_threads = _left_threads(conn)
    blobs, left_blobs = _left_blobs(conn)
    return Undone(
        run_id=run.run_id,
        dag_id=run.dag_id,
        schema=schema,
        removed={name: removed[name] for name in KEYS},
        restored={name: restored[name] for name in KEYS},
        left={name: live[name] - removed[name] for name in KEYS},
        gone={name: inserted[name] - live[name] for name in KEYS},
        left_threads=left_threads,
        threads=threads,
        left_blobs=left_blobs,
        blobs=blobs,
    )


def _take_out(conn: Conn, name: str, schema: str) -> int:
    statement = sql.SQL(TAKE_OUT).format(
        live=table(schema, name), ours=ours(name), on=on_key(name), may_go=may_go(name)
    )
    return conn.execute(statement).rowcount


def _restore(conn: Conn, name: str, schema: str, run_key: str) -> int:
    assignments = [
        sql.SQL("{} = {}").format(
            sql.Identifier(column),
            from_bytes(name, column, sql.SQL(ORIGINAL).format(column=sql.Literal(column))),
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
            on=on_key(name),
            may_go=may_go(name),
        )
    ).rowcount


def _forget(conn: Conn, schema: str) -> None:
    conn.execute(
        sql.SQL(FORGET).format(
            schema=sql.Literal(schema),
            checkpoints=ours("checkpoints"),
            checkpoints_go=may_go("checkpoints"),
            writes=ours("checkpoint_writes"),
            writes_go=may_go("checkpoint_writes"),
        )
    )


def _counts(conn: Conn, name: str) -> tuple[int, int]:
    row = conn.execute(sql.SQL(COUNT).format(name=sql.Literal(name), ours=ours(name))).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def _left_threads(conn: Conn) -> tuple[tuple[LeftThread, ...], int]:
    """The threads that stayed and hold rows of the run."""
    counts = [sql.SQL(LEFT_COUNT).format(name=sql.Literal(name)) for name in BY_THREAD]
    of = [sql.SQL(LEFT_ROWS).format(name=sql.Literal(n), ours=ours(n)) for n in BY_THREAD]
    rows = conn.execute(
        sql.SQL(LEFT).format(
            counts=sql.SQL(", ").join(counts),
            rows=sql.SQL(" UNION ALL ").join(of),
            limit=sql.Literal(SHOWN),
        )
    ).fetchall()
    threads = [
        LeftThread(row[0], WHY[row[1], row[2]], dict(zip(BY_THREAD, row[3:-1], strict=True)))
        for row in rows
    ]
    return tuple(threads), rows[0][-1] if rows else 0


def _left_blobs(conn: Conn) -> tuple[tuple[LeftBlob, ...], int]:
    """The blobs that stayed because a checkpoint that stays refers to them."""
    name = "checkpoint_blobs"
    rows = conn.execute(
        sql.SQL(LEFT_BLOBS).format(
            ours=ours(name),
            on=on_key(name, "n", "o"),
            limit=sql.Literal(SHOWN),
        )
    ).fetchall()
    return tuple(LeftBlob(*row[:3]) for row in rows), rows[0][3] if rows else 0


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
