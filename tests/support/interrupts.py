"""A task whose time is up while the server works for it, as Airflow tells it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.postgres import Database

WAITING = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"


SOON = 20  # seconds: a lock is waited for half a minute, and the server looks every five


class TimeIsUp(BaseException):
    """As Airflow's AirflowTaskTimeout: no Exception, raised by a signal's handler."""


@contextmanager
def time_is_up_once(database: Database, waiting: str) -> Iterator[None]:
    """The block is interrupted by TimeIsUp once a statement of it waits at the server for this."""

    def look(*_: Any) -> None:
        asked = f"{WAITING} AND wait_event = '{waiting}'"
        if database.rows(asked):
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise TimeIsUp

    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
    try:
        with pytest.raises(TimeIsUp):
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def wait_until(database: Database, asked: str, *, there: bool) -> None:
    """Wait until the server has a session that this asks for, or none any more."""
    end = time.monotonic() + SOON
    while bool(database.rows(asked)) is not there:
        assert time.monotonic() < end, f"{'never' if there else 'still'} there: {asked}"
        time.sleep(0.05)
