"""`make million`: one big migration of small checkpoints on one machine: time, memory and sizes.

CHECKPOINTS (1,000,000), THREADS (0: 50 checkpoints each) and WORKERS (2) are its knobs; the server is the
one of `make bench`. It ends with an error unless the verdict is `identical`.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import psycopg  # noqa: E402 - found through the line above

from benchmarks.history import write_history  # noqa: E402
from benchmarks.run import STAGES, TOLD, Figures, fresh, migrate, server  # noqa: E402

MESSAGES = 2  # in each state: about half a kilobyte
MIB = 1 << 20


def main() -> None:
    checkpoints = int(os.environ.get("CHECKPOINTS", "1000000"))
    threads = int(os.environ.get("THREADS", "0")) or max(1, checkpoints // 50)
    workers = int(os.environ.get("WORKERS", "2"))
    with tempfile.TemporaryDirectory(prefix="checkpoint-million-") as name, server(name) as dsn:
        folder = Path(name)
        source = folder / "source.sqlite"
        began = time.perf_counter()
        write_history(source, threads=threads, checkpoints=checkpoints, messages=MESSAGES)
        print(f"{checkpoints:,} checkpoints in {threads:,} threads", flush=True)
        print(f"written in {time.perf_counter() - began:.0f} s, {size(source)}", flush=True)
        target = fresh(dsn, "million")
        found = migrate(folder, target, source, workers)
        print("\n".join(table(found, checkpoints, workers)))
        exports = (path for path in (folder / "exports").rglob("*.jsonl.zst"))
        print(f"export files {sum(path.stat().st_size for path in exports) / MIB:,.0f} MiB")
        with psycopg.connect(target) as conn:
            (bytes_,) = conn.execute("SELECT pg_database_size(current_database())").fetchone() or (
                0,
            )
        print(f"on the server, staging and live: {bytes_ / MIB:,.0f} MiB")


def size(path: Path) -> str:
    return f"{path.stat().st_size / MIB:,.0f} MiB"


def table(found: dict[str, Figures], checkpoints: int, workers: int) -> Iterator[str]:
    yield f"{workers} worker(s)"
    for stage in TOLD:
        seconds, peak = found[stage]["seconds"], found[stage]["peak_mib"]
        yield f"  {stage:9} {seconds:8.1f} s {checkpoints / seconds:10,.0f}/s  peak {peak:4.0f} MiB"
    whole = sum(found[stage]["seconds"] for stage in TOLD)
    work = sum(found[stage]["seconds"] for stage in STAGES)
    yield f"  together  {whole:8.1f} s {checkpoints / whole:10,.0f}/s  ({work:.1f} s from export to witness)"


if __name__ == "__main__":
    main()
