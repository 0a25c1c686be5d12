"""What the ledger keeps so that a run can be undone: the id of the promoting transaction, the originals
of the rows that it replaced, what its threads and items held before; and the receipts of what was undone.

All of it is written in the promoting transaction, and forgotten when its time is over or it was used.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from ..errors import RunUndone
from ..postgres import Connect, transaction

Conn = psycopg.Connection[Any]

TABLES = """
CREATE TABLE IF NOT EXISTS checkpoint_migration.undoable (
    run_key text PRIMARY KEY,
    promoted timestamptz NOT NULL DEFAULT now(),
    xid bigint NOT NULL DEFAULT txid_current()
);
CREATE TABLE IF NOT EXISTS checkpoint_migration.replaced (
    run_key text NOT NULL,
    table_name text NOT NULL,
    key bytea NOT NULL,
    digest bytea NOT NULL,
    columns text[] NOT NULL,
    original bytea[] NOT NULL
);
CREATE TABLE IF NOT EXISTS checkpoint_migration.threads_before (
    run_key text NOT NULL,
    thread_id text NOT NULL,
    others bigint NOT NULL,
    sum_of_keys numeric NOT NULL,
    written bigint NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS checkpoint_migration.items_before (
    run_key text NOT NULL,
    prefix text NOT NULL,
    key text NOT NULL,
    others bigint NOT NULL,
    sum_of_keys numeric NOT NULL,
    written bigint NOT NULL
);
CREATE TABLE IF NOT EXISTS checkpoint_migration.undone (
    undo_key text PRIMARY KEY,
    run_key text NOT NULL,
    undone timestamptz NOT NULL DEFAULT now(),
    stands boolean NOT NULL DEFAULT true,
    result jsonb NOT NULL
);
"""
KEPT = ("replaced", "threads_before", "items_before", "undoable")  # by run

# A run that was undone and then began anew is one that was not undone.
IS_UNDONE = (
    "EXISTS (SELECT FROM checkpoint_migration.undone AS u WHERE u.run_key = {} AND u.stands)"
)

RUNS = """
SELECT r.run_key, r.dag_id, r.run_id, r.source, r.live_schema, r.started,
       r.state IN ('promoted', 'done') AS promoted,
       r.live_schema = 'checkpoint_rehearsal_' || r.run_key AS rehearsal,
       EXISTS (SELECT FROM checkpoint_migration.undone AS u WHERE u.undo_key = r.run_key)
           OR r.dag_id = %(undo_dag)s AS undoing,
       EXISTS (SELECT FROM checkpoint_migration.undone AS u
                WHERE u.run_key = r.run_key AND u.stands) AS undone,
       EXISTS (SELECT FROM checkpoint_migration.undoable AS k WHERE k.run_key = r.run_key) AS kept,
       r.promotion
  FROM checkpoint_migration.runs AS r
"""
NAMED = RUNS + " WHERE r.run_id = %(run_id)s ORDER BY r.started DESC"
ONE = RUNS + " WHERE r.run_key = %(key)s"
LATEST = RUNS + " ORDER BY r.started DESC LIMIT %(limit)s"
# The noted id of the promoting transaction, and how many transactions began since then.
TRANSACTION = """
SELECT xid, txid_current() - xid FROM checkpoint_migration.undoable WHERE run_key = %s
"""
MARK_UNDONE = """
INSERT INTO checkpoint_migration.undone (undo_key, run_key, result) VALUES (%s, %s, %s)
"""
RESULT = """
SELECT result FROM checkpoint_migration.undone WHERE run_key = %s AND stands
"""
EXPIRED = """
SELECT run_key FROM checkpoint_migration.undoable
 WHERE promoted < now() - make_interval(days => %s) FOR UPDATE SKIP LOCKED
"""


class KnownRun(NamedTuple):
    """A run as the ledger knows it, for whoever wants it undone."""

    run_key: str
    dag_id: str
    run_id: str
    source: str
    live_schema: str
    started: Any
    promoted: bool
    rehearsal: bool
    undoing: bool
    undone: bool
    kept: bool
    promotion: Any

    @property
    def took_store(self) -> bool:
        """Whether it promoted rows of the store, or found them live and equal."""
        promoted = self.promotion or {}
        counts = [promoted.get(name) or {} for name in ("inserted", "identical")]
        return any(each.get(kind) for each in counts for kind in ("items", "vectors"))


def refuse_undone(state: str, key: str) -> None:
    """Raise where a run's rows were taken out again: its tasks have nothing to go on from."""
    if state == "undone":
        raise RunUndone(
            "this run was undone: what it had made live was taken out again.",
            safe="the source is untouched; nothing was written on the target.",
            next="trigger the DAG anew; or clear check_schema and what follows, and this run begins anew.",
            run=key,
        )


def runs_named(conn: Conn, run_id: str, undo_dag: str) -> list[KnownRun]:
    """The runs of this Airflow run id, of whatever DAG; undoing ones are none."""
    return [r for r in _known(conn, NAMED, undo_dag, run_id=run_id) if not r.undoing]


def latest_runs(conn: Conn, undo_dag: str, limit: int) -> list[KnownRun]:
    """The last runs that made rows live."""
    found = _known(conn, LATEST, undo_dag, limit=1000)
    return [r for r in found if not r.undoing and not r.rehearsal and r.promoted][:limit]


def known_run(conn: Conn, key: str, undo_dag: str) -> KnownRun:
    """A run that is known to be there."""
    (found,) = _known(conn, ONE, undo_dag, key=key)
    return found


def _known(conn: Conn, query: str, undo_dag: str, **names: Any) -> list[KnownRun]:
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(query.encode(), {"undo_dag": undo_dag, **names}).fetchall()
    return [KnownRun(**row) for row in rows]


def promoting_transaction(conn: Conn, run_key: str) -> tuple[int, int]:
    """The id of the transaction that promoted a run, with its epoch, and its age in transactions."""
    (found,) = conn.execute(TRANSACTION, (run_key,)).fetchall()
    return int(found[0]), int(found[1])


def noted_items(conn: Conn, run_key: str) -> bool:
    """Whether a run noted items of the store that it wrote rows of."""
    asked = "SELECT FROM checkpoint_migration.items_before WHERE run_key = %s LIMIT 1"
    return conn.execute(asked, (run_key,)).fetchone() is not None


def mark_undone(conn: Conn, undo_key: str, run_key: str, result: Any) -> None:
    """Within the undoing transaction: leave the receipt, and forget what the ledger kept for it."""
    conn.execute(MARK_UNDONE, (undo_key, run_key, msgspec.json.encode(result).decode()))
    forget(conn, run_key)


def result_of(conn: Conn, run_key: str) -> dict[str, Any] | None:
    """What the undoing of a run left as its receipt, where it stands."""
    row = conn.execute(RESULT, (run_key,)).fetchone()
    return row[0] if row else None


def begin_anew(conn: Conn, run_key: str) -> None:
    """A run that was undone begins again: its undoing does not stand any more."""
    conn.execute(
        "UPDATE checkpoint_migration.undone SET stands = false WHERE run_key = %s", (run_key,)
    )


def forget(conn: Conn, run_key: str) -> None:
    """Forget what was kept so that a run can be undone."""
    for name in KEPT:
        kept = sql.Identifier("checkpoint_migration", name)
        if not _is_there(conn, name):  # a ledger that an earlier release made
            continue
        conn.execute(sql.SQL("DELETE FROM {} WHERE run_key = %s").format(kept), (run_key,))


def _is_there(conn: Conn, name: str) -> bool:
    found = conn.execute("SELECT to_regclass(%s)", (f"checkpoint_migration.{name}",)).fetchone()
    return found != (None,)


def forget_expired(connect: Connect, days: int) -> int:
    """Forget what was kept longer than so many days ago; returns for how many runs."""
    with transaction(connect, "forgetting what was kept for undoing") as conn:
        keys = [key for (key,) in conn.execute(EXPIRED, (days,)).fetchall()]
        for key in keys:
            forget(conn, key)
    return len(keys)
