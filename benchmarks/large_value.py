"""How much memory each step takes for one large value: `python -m benchmarks.large_value 512` (MiB)."""

from __future__ import annotations

import multiprocessing
import random
import re
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from include.checkpoint_migration import MigrationError
from scripts import postgres_server
from tests.support import postgres as pg
from tests.support.engine import Migration
from tests.support.sqlite_sources import empty

STEPS = ("check", "freeze", "export", "load", "verify", "promote", "witness", "conclude")


def write(path: Path, size: int) -> None:
    """A checkpoint with a value of so many bytes that nothing compresses."""
    chance = random.Random(size)
    value = b"".join(chance.randbytes(1 << 20) for _ in range(size >> 20))
    whole = {
        "v": 4,
        "ts": "2025-01-01T00:00:00+00:00",
        "id": "1f000000-0000-6000-8000-000000000001",
        "channel_values": {"large": value},
        "channel_versions": {"large": "1.5"},
        "versions_seen": {},
    }
    with closing(empty(path)) as conn:
        conn.execute(
            "INSERT INTO checkpoints VALUES ('large', '', ?, NULL, 'msgpack', ?, '{}')",
            (whole["id"], sqlite3.Binary(JsonPlusSerializer().dumps_typed(whole)[1])),
        )


def peak_mib() -> int:
    """The most that this process held; not `ru_maxrss`, which a child has from its parent."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) // 1024  # type: ignore[index]


def step_in_a_process(answers: Any, migration: Migration, step: str, args: tuple[Any, ...]) -> None:
    try:
        result = getattr(migration, step)(*args)
    except MigrationError as error:
        result = error
    answers.send((result, peak_mib()))


def main(megabytes: int) -> None:
    processes = multiprocessing.get_context("spawn")
    server_folder = pg.new_folder()
    server = pg.session_server(server_folder)
    try:
        with server.database() as database, tempfile.TemporaryDirectory() as made:
            source = Path(made) / "large.sqlite"
            write(source, megabytes << 20)
            migration = Migration(database.dsn, source, Path(made) / "exports", run_id="large")
            exports: Any = None
            for step in STEPS:
                mine, theirs = processes.Pipe(duplex=False)
                args = (exports,) if step in ("load", "verify") else ()
                process = processes.Process(
                    target=step_in_a_process, args=(theirs, migration, step, args)
                )
                process.start()
                result, peak = mine.recv()
                process.join()
                print(f"{step}: {peak:,} MiB at most", flush=True)
                if isinstance(result, MigrationError):
                    print(result, *result.facts.get("differences", ()), sep="\n")
                    return
                exports = result if step == "export" else exports
            print(f"verdict: {migration.report['verdict']}")
    finally:
        postgres_server.remove(server_folder)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 512)
