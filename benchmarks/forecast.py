"""How well a rehearsal foretells: one rehearsal, a real run over twice the data, and the error.

Both go through `airflow dags test`. What the real run took of folder and server is looked at while it
runs. `python benchmarks/forecast.py --checkpoints 10000` prints a table.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import msgspec  # noqa: E402 - found through the line above
import psycopg  # noqa: E402 - found through the line above

from benchmarks.dag import dags_test  # noqa: E402
from benchmarks.history import write_chats  # noqa: E402
from benchmarks.run import fresh, server  # noqa: E402
from include.checkpoint_migration.rehearsal import Rehearsal  # noqa: E402
from include.checkpoint_migration.reporting.prediction import predict  # noqa: E402

LOOK = "SELECT pg_database_size(current_database()), pg_current_wal_lsn() - '0/0'::pg_lsn"
EVERY = 0.2  # seconds between two looks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoints", type=int, default=10_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="checkpoint-forecast-") as name, server(name) as dsn:
        folder = Path(name)
        target = fresh(dsn, "target")
        for part, times in (("rehearsed", 1), ("real", 2)):
            (folder / part).mkdir()
            count = times * asked.checkpoints
            write_chats(folder / part / "s.sqlite", threads=count // 50, checkpoints=count)
        rehearsed = folder / "rehearsed"
        dags_test(target, rehearsed / "s.sqlite", rehearsed, dag="rehearse_checkpoints")
        foretold = predict(recorded(target), 2.0)
        assert foretold is not None
        with watched(target, folder / "real" / "airflow-tested" / "exports") as seen:
            dags_test(target, folder / "real" / "s.sqlite", folder / "real")
        took = seconds_of(next(folder.glob("real/airflow-tested/exports/*/report.json")))
    print(f"{'':24}{'foretold':>10}{'was':>10}{'error':>8}")
    for name, guess, was in (
        ("seconds", foretold.seconds, took),
        ("MiB in the folder", foretold.folder_bytes / 2**20, seen["folder"] / 2**20),
        ("MiB on the server", foretold.server_bytes / 2**20, seen["server"] / 2**20),
        ("MiB of it to stay", foretold.stays_bytes / 2**20, seen["stays"] / 2**20),
    ):
        print(f"{name:24}{guess:10.1f}{was:10.1f}{100 * (guess / was - 1):+7.0f}%")


def recorded(dsn: str) -> Rehearsal:
    with psycopg.connect(dsn) as conn:
        found = conn.execute("SELECT record FROM checkpoint_migration.rehearsals").fetchone()
    assert found is not None
    return msgspec.convert(found[0], Rehearsal)


def seconds_of(path: Path) -> float:
    report: Any = json.loads(path.read_bytes())
    assert report["verdict"] == "identical"
    started, finished = (datetime.fromisoformat(report[key]) for key in ("started", "finished"))
    return (finished - started).total_seconds()


@contextmanager
def watched(dsn: str, folder: Path) -> Iterator[dict[str, int]]:
    """The most that lay in the folder and on the server, WAL included, and what stayed there."""
    seen = {"folder": 0, "server": 0, "stays": 0}
    over = threading.Event()
    with psycopg.connect(dsn, autocommit=True) as conn:
        size, wal = _look(conn)

        def watch() -> None:
            while not over.wait(EVERY):
                now, written = _look(conn)
                seen["server"] = max(seen["server"], now - size + written - wal)
                seen["folder"] = max(seen["folder"], _bytes_below(folder))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield seen
        finally:
            over.set()
            watcher.join()
        seen["stays"] = _look(conn)[0] - size


def _look(conn: psycopg.Connection[Any]) -> tuple[int, int]:
    found = conn.execute(LOOK).fetchone()
    assert found is not None
    return int(found[0]), int(found[1])


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # renamed or removed meanwhile
            continue
    return total


if __name__ == "__main__":
    main()
