"""Whether a run's rows can be told by its transaction's id: not after a restore, nor an age later."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from ..errors import NotUndoable
from ..figures import format_count
from ..run import undo_ledger
from .kinds import THREADS

Conn = psycopg.Connection[Any]

OLDEST = 2**31  # transactions; rows bear 32 bits of an id
SAFE = "nothing was undone: the live tables are as they were."
BY_HAND = "docs/what-if.md has the statements that take rows out by hand."


def transaction_of(conn: Conn, run_key: str) -> int:
    """The id of the transaction that promoted a run, or `NotUndoable` where ids came round since.

    An id of the future is one of another server: this one was restored from a copy.
    """
    xid, age = undo_ledger.promoting_transaction(conn, run_key)
    if age > OLDEST:
        raise NotUndoable(
            "more than 2,147,483,648 transactions began since this run was promoted: PostgreSQL may "
            "give its transaction's id to others by now.",
            safe=SAFE,
            next=BY_HAND,
            run=run_key,
        )
    if age < 0:
        raise _restored("this run's transaction is none of this server's", run_key)
    return xid


def refuse_unrecognised(conn: Conn, inserted: int, live: int) -> None:
    """Raise `NotUndoable` where no row bears the transaction's id and others are in the place of threads.

    Items of the store say nothing: an application may well have written each of them again.
    """
    if live or not inserted:
        return
    asked = sql.SQL("SELECT FROM {} WHERE rewritten LIMIT 1").format(THREADS.left)
    rewritten = conn.execute(asked).fetchone()
    if rewritten is not None:
        raise _restored(
            f"not one of the {format_count(inserted)} rows that this run inserted is as its "
            "transaction left it"
        )


def _restored(what: str, run_key: str | None = None) -> NotUndoable:
    return NotUndoable(
        f"{what}: the tables were restored from a copy, or rewritten, since.",
        safe=SAFE,
        next=BY_HAND,
        **({"run": run_key} if run_key else {}),
    )
