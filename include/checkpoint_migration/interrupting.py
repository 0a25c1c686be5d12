"""What an interruption ends at the server: a statement would go on to its end there, locks and all.

A timeout of the task, Ctrl-C and an error beside a statement come here. Of a process that is killed
the server learns by itself (`client_connection_check_interval`, which each transaction sets).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

T = TypeVar("T")

Connection = psycopg.Connection[Any]
PATIENCE = 5.0  # seconds that a request to cancel may take
AGAIN = 0.2  # seconds after which one is sent anew: between two statements it does nothing


def was_within_sqlite(error: Exception) -> bool:
    """Whether SQLite's module made this of what a signal raised in a function of ours: nothing else does."""
    return "user-defined function raised" in str(error)


def cancel(conn: Connection) -> None:
    """Ask the server to end what it is doing on a connection, whichever thread waits for it."""
    if _is_at_work(conn):
        with suppress(psycopg.Error):
            conn.cancel_safe(timeout=PATIENCE)


@contextmanager
def interruptible(conn: Connection) -> Iterator[None]:
    """Where the block is left while the server works on `conn`, that work and the connection end."""
    try:
        yield
    except BaseException:
        if _is_at_work(conn):
            cancel(conn)
            conn.close()
        raise


def _is_at_work(conn: Connection) -> bool:
    return not conn.closed and conn.info.transaction_status == TransactionStatus.ACTIVE


@contextmanager
def meanwhile(
    connect: Callable[[], Connection], work: Callable[[Callable[[], Connection]], T]
) -> Iterator[Future[T]]:
    """Have the server do some work beside the block, on connections of its own.

    Where the block ends by an error the work is cancelled: nobody waits for it.
    """
    made: list[Connection] = []

    def connect_noted() -> Connection:
        made.append(connect())
        return made[-1]

    with ThreadPoolExecutor(1) as thread:
        result = thread.submit(work, connect_noted)
        try:
            yield result
        except BaseException:
            while wait([result], timeout=AGAIN).not_done:
                for conn in made:
                    cancel(conn)
            raise
