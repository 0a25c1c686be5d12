"""Connections that rest between the transactions of one task: making one costs more than using it.

No state of a session is relied on, so any of them serves. One that ended while it rested is replaced
by whoever takes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

Connection = psycopg.Connection[Any]

# Of this thread alone: what gives signs of life beside a task has a connection of its own.
_resting: ContextVar[list[tuple[object, Connection]] | None] = ContextVar("resting", default=None)


@contextmanager
def resting_connections() -> Iterator[None]:
    """Within the block, a connection that ended its transaction serves the next one; then all close."""
    if _resting.get() is not None:  # a block within a block
        yield
        return
    resting: list[tuple[object, Connection]] = []
    token = _resting.set(resting)
    try:
        yield
    finally:
        _resting.reset(token)
        for _, conn in resting:
            conn.close()


def take(connect: object) -> Connection | None:
    """A connection that rests, made by `connect`; None where there is none."""
    resting = _resting.get() or []
    for place, (made_by, conn) in enumerate(resting):
        if made_by == connect:
            del resting[place]
            return conn
    return None


def give_back(connect: object, conn: Connection) -> None:
    """Let a connection rest whose transaction is over; close it where none may."""
    resting = _resting.get()
    idle = not conn.closed and conn.info.transaction_status == TransactionStatus.IDLE
    if resting is None or not idle:
        conn.close()
    else:
        resting.append((connect, conn))
