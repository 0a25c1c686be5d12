"""An application works on the target while a migration loads and promotes beside it."""

from __future__ import annotations

import multiprocessing
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.postgres import PostgresSaver

from benchmarks.history import write_history
from tests.support.engine import Migration
from tests.support.faults import Child
from tests.support.postgres import Database

THREADS, CHECKPOINTS = 50, 5_000
EACH = CHECKPOINTS // THREADS
OWN = ("own-0", "own-1", "own-2")
SHARED = ("user-000000", "user-000031")  # threads of the migration that it goes on with
BROUGHT = "user-000017"  # a thread that only the migration writes
WORST = 10.0  # seconds


def id_of(n: int) -> str:
    """An id that no migrated checkpoint has, and that is later than all of them."""
    return f"1f900000-0000-6000-8000-{n:012x}"


def values_of(n: int) -> dict[str, Any]:
    return {"messages": [f"message {n}", {"n": n}], "step": n, "late": bool(n % 2)}


def writes_of(n: int) -> list[tuple[str, Any]]:
    return [("messages", [f"pending {n}"]), ("step", n)]


def config_of(thread: str, checkpoint_id: str | None = None) -> Any:
    named = {} if checkpoint_id is None else {"checkpoint_id": checkpoint_id}
    return {"configurable": {"thread_id": thread, "checkpoint_ns": "", **named}}


def put(saver: PostgresSaver, thread: str, n: int, before: str | None) -> None:
    """A checkpoint with all its values new, and two pending writes of it."""
    values = values_of(n)
    versions: Any = dict.fromkeys(values, f"{n + 1_000_000:032}.{0:016}")
    checkpoint = {**empty_checkpoint(), "id": id_of(n)}
    checkpoint |= {"channel_values": values, "channel_versions": versions}
    config = config_of(thread, before)
    saved = saver.put(config, checkpoint, {"source": "loop", "step": n, "parents": {}}, versions)
    saver.put_writes(saved, writes_of(n), f"task-{n}", "~path")


def work(dsn: str, began: dict[str, str], ready: Any, stop: Any) -> dict[str, Any]:
    """Write and read until told to stop; `began` are the checkpoints that a thread goes on from.

    Returns what was written where, what looks at migrated threads showed (how many checkpoints, and
    how much of the latest one), what went wrong, and the worst wait.
    """
    told: dict[str, Any] = {"written": [], "errors": [], "worst": 0.0, "calls": 0}
    told |= {"listed": set(), "latest": set()}
    latest: dict[str, int] = {}

    def timed(call: Callable[..., Any], *args: Any) -> Any:
        began = time.monotonic()
        try:
            return call(*args)
        except Exception as error:  # noqa: BLE001 - whatever it is, a user saw it
            told["errors"].append(repr(error))
            return None
        finally:
            told["worst"] = max(told["worst"], time.monotonic() - began)
            told["calls"] += 1

    def read(thread: str) -> None:
        found = saver.get_tuple(config_of(thread))
        assert found is not None
        assert found.checkpoint["channel_values"] == values_of(latest[thread])
        assert len(found.pending_writes or ()) == 2

    def listed(thread: str) -> int:
        return sum(found.checkpoint["id"] < id_of(0) for found in saver.list(config_of(thread)))

    def brought() -> tuple[int, int] | None:
        found = saver.get_tuple(config_of(BROUGHT))
        if found is None:
            return None
        return len(found.checkpoint["channel_values"]), len(found.pending_writes or ())

    with PostgresSaver.from_conn_string(dsn) as saver:
        n = 0
        while not stop.is_set():
            thread = (*OWN, *SHARED)[n % (len(OWN) + len(SHARED))]
            before = id_of(latest[thread]) if thread in latest else began.get(thread)
            timed(put, saver, thread, n, before)
            latest[thread] = n
            told["written"].append((thread, n))
            timed(read, thread)
            told["latest"].add(timed(brought))
            if n % 20 == 0:
                told["listed"].add(timed(listed, SHARED[0]))
            n += 1
            if n == 20:
                ready.set()
    return told


class Application:
    """The application at work on PostgreSQL, in a process of its own."""

    def __init__(self, dsn: str, began: dict[str, str]) -> None:
        context = multiprocessing.get_context("forkserver")
        ready, self._stop = context.Event(), context.Event()
        self._child = Child(work, dsn, began, ready, self._stop)
        assert ready.wait(60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()

    def stop(self) -> dict[str, Any]:
        self._stop.set()
        assert self._child.wait() == 0
        return dict(self._child.result)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "app.sqlite"
    write_history(path, threads=THREADS, checkpoints=CHECKPOINTS, messages=2)
    return path


def latest_of(source: Path) -> dict[str, str]:
    """The latest checkpoint of each shared thread: the application goes on before it is live."""
    latest = "SELECT max(checkpoint_id) FROM checkpoints WHERE thread_id = ?"
    with closing(sqlite3.connect(f"file:{source}?mode=ro&immutable=1", uri=True)) as conn:
        return {thread: conn.execute(latest, (thread,)).fetchone()[0] for thread in SHARED}


def test_an_application_on_the_target_loses_nothing_and_is_not_kept_waiting(
    database: Database,
    source: Path,
    tmp_path: Path,
) -> None:
    """Reads and writes beside load and promote meet no error, and every write is there afterwards."""
    with PostgresSaver.from_conn_string(database.dsn) as saver:
        saver.setup()
    migration = Migration(database.dsn, source, tmp_path / "exports", max_export_tasks=3)
    migration.check()
    migration.freeze()
    exports = migration.export()
    with Application(database.dsn, latest_of(source)) as application:
        migration.load(exports)
        migration.verify(exports)
        promotion = migration.promote()
        migration.witness()
        report = migration.conclude()
        time.sleep(0.2)  # it goes on beside what is live now
        told = application.stop()

    print(f"{told['calls']} calls, worst wait {told['worst']:.3f} s")  # noqa: T201 - see it with -s
    assert told["errors"] == []
    assert told["worst"] < WORST
    assert told["listed"] == {0, EACH}  # all of a thread went live at once
    assert told["latest"] == {None, (3, 2)}
    assert (report["verdict"], report["succeeded"]) == ("identical", True)
    assert promotion.inserted.checkpoints == CHECKPOINTS
    assert report["counts"]["checkpoints"]["live"] == CHECKPOINTS  # the run's own alone

    with PostgresSaver.from_conn_string(database.dsn) as saver:
        listed = {t: {f.checkpoint["id"]: f for f in saver.list(config_of(t))} for t in OWN}
        listed |= {t: {f.checkpoint["id"]: f for f in saver.list(config_of(t))} for t in SHARED}
    for thread, n in told["written"]:
        found = listed[thread].pop(id_of(n))
        assert found.checkpoint["channel_values"] == values_of(n)
        assert [(w[1], w[2]) for w in found.pending_writes] == writes_of(n)
    assert {t: len(rest) for t, rest in listed.items()} == dict.fromkeys(OWN, 0) | dict.fromkeys(
        SHARED, EACH
    )
