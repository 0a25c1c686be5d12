r"""`make bench`: how fast a migration is, in ratios within one run on the same data and server.

Ratios, because machines differ: against the loop over the savers' own API that people share (with
parents, versions and pending writes done right), against a binary `\copy` of the very rows that are
produced, and against a bare SELECT of all of SQLite. CHECKPOINTS (several sizes with commas between),
THREADS, ROUNDS and WORKERS are its knobs; with DAG=1 the DAG itself is measured too. Figures go to a
table, to JSON with OUT=file, and to a picture of cost against size with PLOT=file.svg.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# As deployments have it: else each process would compile our code anew, within what is measured.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import msgspec  # noqa: E402 - found through the line above
import psycopg  # noqa: E402 - found through the line above

from benchmarks.dag import dags_test, local_executor  # noqa: E402
from benchmarks.history import write_chats  # noqa: E402
from benchmarks.plot import draw  # noqa: E402
from benchmarks.reference import bare_select, binary_copy, careful_loop  # noqa: E402
from include import checkpoint_migration as engine  # noqa: E402
from scripts import postgres_server  # noqa: E402

DEBIAN = "/usr/lib/postgresql/*/bin/pg_ctl"
STAGES = ("export", "load", "verify", "promote", "witness")
TOLD = ("check", "freeze", "plan", *STAGES)
DAG_RUNS = {
    "dags_test": "Airflow's start included",
    "local_executor": "from the trigger to the end of the run",
}
Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    env = os.environ.get
    parser.add_argument("--checkpoints", default=env("CHECKPOINTS", "20000"))
    parser.add_argument("--threads", type=int, default=int(env("THREADS", "0")), help="0: 50 each")
    parser.add_argument("--rounds", type=int, default=int(env("ROUNDS", "3")))
    parser.add_argument("--workers", default=env("WORKERS", "1,2"))
    parser.add_argument("--dag", action="store_true", default=bool(env("DAG")))
    parser.add_argument("--out", default=env("OUT"))
    parser.add_argument("--plot", default=env("PLOT"))
    asked = parser.parse_args()
    found = [of_size(int(size), asked) for size in asked.checkpoints.split(",")]
    if asked.out:
        Path(asked.out).write_text(json.dumps(found, indent=1) + "\n")
    if asked.plot:
        draw(found, Path(asked.plot))


def of_size(checkpoints: int, asked: argparse.Namespace) -> dict[str, Any]:
    """The figures of one size, told as soon as they are there."""
    threads = asked.threads or max(1, checkpoints // 50)
    with tempfile.TemporaryDirectory(prefix="checkpoint-bench-") as name, server(name) as dsn:
        folder = Path(name)
        source = folder / "source.sqlite"
        write_chats(source, threads=threads, checkpoints=checkpoints)
        found = measure(folder, dsn, source, checkpoints, asked)
    found |= {"checkpoints": checkpoints, "threads": threads}
    print("\n".join(table(found)), flush=True)
    return found


@contextmanager
def server(folder: str) -> Iterator[Callable[[str], str]]:
    """The server that TEST_POSTGRES_DSN names, else Debian's, else the bundled one, which lacks lz4."""
    if dsn := os.environ.get("TEST_POSTGRES_DSN"):
        yield lambda database: psycopg.conninfo.make_conninfo(dsn, dbname=database)
        return
    Path(folder).chmod(0o711)  # the server of a root user runs as somebody else
    debian = sorted(Path("/").glob(DEBIAN.removeprefix("/")))
    binaries = debian[-1].parent if debian else None
    home = Path(folder) / "server"
    settings = ("max_wal_size=4GB", "shared_buffers=256MB")
    try:
        yield postgres_server.start(home, binaries=binaries, settings=settings).uri
    finally:
        postgres_server.remove(home)


def measure(
    folder: Path,
    dsn: Callable[[str], str],
    source: Path,
    checkpoints: int,
    asked: argparse.Namespace,
) -> dict[str, Any]:
    """All figures: seconds by name, medians of the rounds; peaks in MiB are the greatest seen."""
    workers = [int(n) for n in asked.workers.split(",")]
    bytes_, select = source.stat().st_size, []
    rounds: dict[int, list[dict[str, Figures]]] = {n: [] for n in workers}
    copies, loops = [], []
    for _ in range(asked.rounds):
        select.append(bare_select(source))
        part = min(checkpoints, 2_000)
        loops.append(part / careful_loop(fresh(dsn, "looped"), source, part))
        for n in workers:
            rounds[n].append(migrate(folder, fresh(dsn, f"by{n}"), source, n))
        copies.append(binary_copy(dsn(f"by{workers[0]}"), fresh(dsn, "copied"), folder))
    found: dict[str, Any] = {"bytes": bytes_, "select": statistics.median(select)}
    found["copy"] = statistics.median(copies)
    found["loop_rate"] = statistics.median(loops)
    for n in workers:
        found[f"workers_{n}"] = {
            stage: {
                "seconds": statistics.median(r[stage]["seconds"] for r in rounds[n]),
                "peak_mib": max(r[stage]["peak_mib"] for r in rounds[n]),
            }
            for stage in TOLD
        }
    if asked.dag:
        found["dags_test"] = dags_test(fresh(dsn, "tested"), source, folder)
        found["local_executor"] = local_executor(fresh(dsn, "scheduled"), source, folder)
    return found


def fresh(dsn: Callable[[str], str], name: str) -> str:
    """An empty database of this name."""
    with psycopg.connect(dsn("postgres"), autocommit=True) as conn:
        conn.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())
        conn.execute(f'CREATE DATABASE "{name}"'.encode())
    return dsn(name)


def migrate(folder: Path, dsn: str, source: Path, workers: int) -> dict[str, Figures]:
    """Each stage by so many processes of its own, as Airflow's workers have it, side by side."""
    exports = folder / "exports"
    shutil.rmtree(exports, ignore_errors=True)
    given = (dsn, str(source), str(exports), f"bench {time.time()}")
    found: dict[str, Figures] = {}

    def stage(name: str, step: str, items: list[Any], at_most: int = workers) -> list[Any]:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["include.checkpoint_migration"])
        with context.Pool(min(at_most, max(1, len(items))), _begin) as pool:
            pool.map(_nothing, range(at_most), chunksize=1)  # processes are there, imports done
            began = time.perf_counter()
            results = pool.map(_work, [(*given, step, item) for item in items], chunksize=1)
            seconds = time.perf_counter() - began
        found[name] = {"seconds": seconds, "peak_mib": max(peak for _, peak in results)}
        return [result for result, _ in results]

    stage("check", "check_schema", [None])
    stage("freeze", "freeze_source", [None])
    (shards,) = stage("plan", "plan_shards", [None])
    exported = stage("export", "export_threads", [shard["index"] for shard in shards])
    (loads,) = stage("plan_batches", "plan_batches", [exported])
    stage("load", "load_batch", loads)
    stage("verify", "verify_staged", exported)
    stage("promote", "promote", [None])
    (result,) = stage("witness", "verify_counts", [None])
    assert result["verdict"] == "identical", result
    found["load"]["seconds"] += found.pop("plan_batches")["seconds"]
    return found


def _begin() -> None:
    """Import what the steps need: that is not what is measured, as it is not of the loop."""
    for name in engine.__all__:
        getattr(engine, name)  # the façade imports what is asked for


def _nothing(_: int) -> None:
    time.sleep(0.05)


def _work(task: tuple[str, str, str, str, str, Any]) -> tuple[Any, float]:
    """One task; its result as plain data, and the greatest memory of its process so far."""
    dsn, source, exports, run_id, step, item = task
    settings = engine.parse_settings(
        {"source": source}, dag_id="migrate_checkpoints", run_id=run_id, default_export_uri=exports
    )
    run = engine.Run(settings, lambda: psycopg.connect(dsn), lambda line: None)
    arguments = {
        "load_batch": lambda: [msgspec.convert(item, engine.Load)],
        "verify_staged": lambda: [msgspec.convert(item, engine.Export)],
        "plan_batches": lambda: [[msgspec.convert(export, engine.Export) for export in item]],
        "export_threads": lambda: [item],
    }
    result = getattr(engine, step)(run, *arguments.get(step, list)())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return msgspec.to_builtins(result), peak


def table(found: dict[str, Any]) -> Iterator[str]:
    """The figures for people."""
    checkpoints = found["checkpoints"]
    loop = checkpoints / found["loop_rate"]
    yield (
        f"{checkpoints:,} checkpoints in {found['threads']:,} threads, {found['bytes'] / 2**20:.0f} MiB; "
        "medians"
    )
    yield f"  the loop over the savers' API  {found['loop_rate']:9,.0f}/s (a part of it)"
    yield f"  a bare SELECT of SQLite        {found['select']:9.2f} s"
    yield f"  a binary copy of our rows      {found['copy']:9.2f} s"
    for name, stages in found.items():
        if not name.startswith("workers_"):
            continue
        yield f"{name.removeprefix('workers_')} worker(s)"
        for stage, figures in stages.items():
            rate = checkpoints / figures["seconds"]
            yield (
                f"  {stage:9} {figures['seconds']:8.2f} s {rate:9,.0f}/s {rate / found['loop_rate']:7.1f} x loop"
                f"  peak {figures['peak_mib']:4.0f} MiB"
            )
        whole = sum(stages[stage]["seconds"] for stage in STAGES)
        live = stages["load"]["seconds"] + stages["promote"]["seconds"]
        yield f"  together  {whole:8.2f} s {checkpoints / whole:9,.0f}/s {loop / whole:7.1f} x loop"
        yield f"  load and promote / copy: {live / found['copy']:.2f}"
    for name, what in DAG_RUNS.items():
        if name in found:
            yield f"{name}: {found[name]:.1f} s, {loop / found[name]:.1f} x loop, {what}"


if __name__ == "__main__":
    main()
