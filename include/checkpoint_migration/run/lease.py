"""Who may write a target: one run at a time, for as long as it gives signs of life.

A lock has to span tasks, and a session's lock does not; so a run holds a lease that its tasks
renew. A run that died is taken over: it is *superseded*, and its commits are refused.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from ..errors import AnotherRunIsAlive, MigrationError
from ..postgres import Connect, begin, started, transaction
from ..settings import Settings
from ..texts import quoted
from . import rehearsals, store_ledger, undo_ledger
from .ledger import TABLES, RunRow, drop_schema, find_in, void_receipts

BEAT = 5.0  # seconds between signs of life while a task works
LEASE = 30.0  # seconds for which a sign of life counts
GAP = 300.0  # seconds that a run may rest between two tasks
PATIENCE = 45.0  # seconds that a new run watches an older one before it believes that it lives
DOING = "giving a sign of life"

FIND_LEASE = """
SELECT l.run_key, l.fence, l.beats, l.owner, l.until > clock_timestamp(), r.dag_id, r.run_id
  FROM checkpoint_migration.leases AS l
  LEFT JOIN checkpoint_migration.runs AS r USING (run_key)
 WHERE l.live_schema = %s
   FOR UPDATE OF l
"""
TAKE_LEASE = """\
INSERT INTO checkpoint_migration.leases (live_schema, run_key, fence, until, owner)
VALUES (%s, %s, %s, clock_timestamp() + make_interval(secs => %s), %s)
    ON CONFLICT (live_schema) DO UPDATE
   SET run_key = excluded.run_key, fence = excluded.fence, until = excluded.until,
       owner = excluded.owner, beats = leases.beats + 1
"""
KEEP_LEASE = """
UPDATE checkpoint_migration.leases
   SET beats = beats + 1, until = clock_timestamp() + make_interval(secs => %s)
  FROM checkpoint_migration.runs
 WHERE runs.run_key = leases.run_key AND runs.state <> 'done'
   AND leases.until >= %s::timestamptz AND leases.live_schema = %s AND leases.run_key = %s
"""
SUPERSEDE = """
UPDATE checkpoint_migration.runs
   SET state = 'superseded', finished = now()
 WHERE run_key = %s AND state = 'running'
"""
BEGIN_RUN = """
INSERT INTO checkpoint_migration.runs (run_key, dag_id, run_id, source, live_schema, staging_schema,
                                       fence, state)
VALUES (%s, %s, %s, %s, %s, %s, %s, 'running')
    ON CONFLICT (run_key) DO UPDATE
   SET fence = excluded.fence, state = 'running', finished = NULL
"""
OLD_STAGING = """
SELECT r.staging_schema
  FROM checkpoint_migration.runs AS r
  JOIN pg_namespace AS n ON n.nspname = r.staging_schema
 WHERE r.live_schema = %s AND r.run_key <> %s
"""
OLD_REHEARSALS = """
SELECT r.run_key, r.staging_schema, r.live_schema, l.until > clock_timestamp(), l.owner
  FROM checkpoint_migration.runs AS r
  JOIN checkpoint_migration.leases AS l USING (live_schema)
 WHERE r.live_schema = 'checkpoint_rehearsal_' || r.run_key AND r.run_key <> %s
   AND EXISTS (SELECT FROM pg_namespace AS n WHERE n.nspname IN (r.staging_schema, r.live_schema))
"""


def owner_of_process(pid: int | None = None) -> str:
    """A name for a process that no later one has: host, pid, and when it started."""
    pid = pid or os.getpid()
    return f"{socket.gethostname()}/{pid}/{_started(pid)}"


def _started(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return "-"


def _certainly_dead(owner: str | None) -> bool:
    """Whether the process that carries a whole run ended; only its own host can tell."""
    if not owner:
        return False
    host, pid, started = owner.rsplit("/", 2)
    return (
        host == socket.gethostname()
        and Path("/proc/self").exists()
        and _started(int(pid)) != started
    )


def acquire(
    connect: Connect,
    settings: Settings,
    *,
    owner: str | None = None,
    patience: float = PATIENCE,
    sleep: Callable[[float], None] = time.sleep,
) -> RunRow:
    """Make this run the one that may write the target, or say that another one is alive.

    A run that died is taken over: it is marked superseded and its staging goes. `owner` names the
    process that carries the whole run, where there is such a process; its death is known at once.
    Returns the run's row; a run that is done already is returned as it is.
    """
    deadline = time.monotonic() + patience
    watched: tuple[str, int] | None = None
    while True:
        with transaction(connect, "opening the ledger") as conn:
            conn.execute("SELECT pg_advisory_xact_lock(hashtext('checkpoint_migration'))")
            conn.execute(TABLES)
            conn.execute(store_ledger.TABLES)
            conn.execute(undo_ledger.TABLES)
            conn.execute(rehearsals.TABLE)
            mine = find_in(conn, settings.key)
            if mine is not None and mine.state in ("promoted", "done"):
                return mine
            lease = conn.execute(FIND_LEASE, (settings.live_schema,)).fetchone()
            row: RunRow | None = None
            left = LeftByOthers([], [])
            if lease is None or lease[0] == settings.key or _dead(lease[4], lease[3]):
                row = _take(conn, settings, owner, lease)
                if mine is not None and mine.state == "undone":
                    void_receipts(conn, settings.key)
                    undo_ledger.begin_anew(conn, settings.key)
                left = _left_by_others(conn, settings)
        if row is not None:
            for staging_schema in left.staging:
                drop_schema(connect, staging_schema)
            for key, live_schema in left.rehearsals:
                rehearsals.drop_rehearsal(connect, key, live_schema)
            return row
        assert lease is not None
        seen = (str(lease[0]), int(lease[2]))
        if (watched is not None and watched != seen) or time.monotonic() >= deadline:
            dag_id, run_id = lease[5], lease[6]
            raise AnotherRunIsAlive(
                f"the run {quoted(str(run_id), 120)} of the DAG {quoted(str(dag_id))} ({seen[0]}) is "
                f"working on the same tables (schema {quoted(settings.live_schema)}).",
                safe="this run has done nothing; the other one is not disturbed.",
                next="wait until it ended, or stop it; a run that died is given up after "
                f"{GAP / 60:.0f} minutes at the latest.",
                other=seen[0],
                dag_id=dag_id,
                run_id=run_id,
            )
        watched = seen
        sleep(1.0)


class LeftByOthers(NamedTuple):
    """What may be dropped: the staging of others, and dead rehearsals by key and scratch schema."""

    staging: list[str]
    rehearsals: list[tuple[str, str]]


def _left_by_others(conn: psycopg.Connection[Any], settings: Settings) -> LeftByOthers:
    """What runs that ended, or were taken over, have left in staging for the same tables; and what
    rehearsals that nobody concluded have left: no later run has their scratch schema.
    """
    found = conn.execute(OLD_STAGING, (settings.live_schema, settings.key)).fetchall()
    staging = [schema for (schema,) in found]
    rehearsals = []
    for key, schema, live_schema, *lease in conn.execute(OLD_REHEARSALS, (settings.key,)):
        if _dead(*lease):
            staging.append(schema)
            rehearsals.append((key, live_schema))
    return LeftByOthers(staging, rehearsals)


def _dead(current: bool, owner: str | None) -> bool:
    return not current or _certainly_dead(owner)


def _take(
    conn: psycopg.Connection[Any], settings: Settings, owner: str | None, lease: Any
) -> RunRow:
    fence = lease[1] if lease else 0
    if lease is None or lease[0] != settings.key:
        fence += 1
        if lease is not None:
            conn.execute(SUPERSEDE, (lease[0],))
    conn.execute(TAKE_LEASE, (settings.live_schema, settings.key, fence, LEASE, owner))
    conn.execute(
        BEGIN_RUN,
        (
            settings.key,
            settings.dag_id,
            settings.run_id.replace("\0", "?"),
            settings.source,
            settings.live_schema,
            settings.staging_schema,
            fence,
        ),
    )
    return RunRow(settings.key, fence, "running", None, None)


@contextmanager
def alive(connect: Connect, settings: Settings) -> Iterator[RunRow | None]:
    """Give signs of life for the length of a task; afterwards the run may rest for a while.

    Yields the run's row as it is when the task begins.
    """
    with transaction(connect, DOING) as conn:
        _hold(conn, settings, LEASE, since="-infinity")
        row = find_in(conn, settings.key)
    stop = threading.Event()

    def hold(conn: psycopg.Connection[Any]) -> None:
        with begin(conn):
            _hold(conn, settings, LEASE)

    def beat() -> None:
        conn: psycopg.Connection[Any] | None = None
        while not stop.wait(BEAT):
            # The task itself will meet whatever the trouble is.
            with suppress(Exception):
                conn = started(connect, DOING, hold, conn)
        if conn is not None:
            conn.close()

    thread = threading.Thread(target=beat, name="checkpoint-migration-alive", daemon=True)
    thread.start()
    try:
        yield row
    finally:
        stop.set()
        thread.join(timeout=BEAT)
        try:
            with transaction(connect, DOING) as conn:
                _hold(conn, settings, GAP)
        except MigrationError:
            pass  # what happened in the task matters more


def _hold(
    conn: psycopg.Connection[Any], settings: Settings, seconds: float, *, since: str = "epoch"
) -> None:
    """Hold the lease for a while longer, unless the run is done: cleared tasks keep nobody waiting.

    A task that begins holds it again where the run has let go of it (`-infinity`); one that works on
    or ends after the report, because somebody marked the run as failed, does not.
    """
    conn.execute(KEEP_LEASE, (seconds, since, settings.live_schema, settings.key))
