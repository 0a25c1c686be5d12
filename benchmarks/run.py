"""`make bench`: how fast the engine is, in ratios within one run, and how much memory a step takes.

Ratios, because machines differ: against the loop over the savers' own API that people share (with
parents, versions and pending writes done right), and between a small and a large database.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import msgspec  # noqa: E402 - found through the line above
import psycopg  # noqa: E402 - found through the line above

from benchmarks.history import write_history  # noqa: E402
from include import checkpoint_migration as engine  # noqa: E402
from scripts import postgres_server  # noqa: E402

STEPS = (
    "check",
    "freeze",
    "plan",
    "export",
    "plan_batches",
    "load",
    "verify",
    "promote",
    "witness",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--small", type=int, default=2_000, help="checkpoints of the small database"
    )
    parser.add_argument("--large", type=int, default=20_000, help="checkpoints of the large one")
    parser.add_argument("--threads", type=int, default=20)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--settings", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        measure_step(arguments.step, json.loads(arguments.settings))
        return
    with tempfile.TemporaryDirectory(prefix="checkpoint-bench-") as folder:
        Path(folder).chmod(0o711)  # the server of a root user runs as somebody else
        server = postgres_server.start(Path(folder) / "server")
        try:
            compare(Path(folder), server, arguments)
        finally:
            postgres_server.remove(Path(folder) / "server")


def compare(folder: Path, server: Any, arguments: argparse.Namespace) -> None:
    """Print the figures of both databases, and of the loop on the small one."""
    results = {}
    for name in ("small", "large"):
        source = folder / f"{name}.sqlite"
        write_history(source, threads=arguments.threads, checkpoints=getattr(arguments, name))
        results[name] = migrate(folder, server, name, source)
        show(name, getattr(arguments, name), source.stat().st_size, results[name])
    loop = careful_loop(server, folder / "small.sqlite")
    ours = sum(step["seconds"] for step in results["small"].values())
    per = arguments.small
    print(f"\nthe loop over the savers' API, small database: {loop:.1f} s ({per / loop:,.0f}/s)")
    print(f"ours / loop, small database (proof included): {ours / loop:.2f}")
    large = sum(step["seconds"] for step in results["large"].values())
    growth = (large / arguments.large) / (ours / arguments.small)
    print(f"seconds a checkpoint, large / small: {growth:.2f}")
    peak = max(results["large"][s]["peak_mib"] for s in STEPS) / max(
        results["small"][s]["peak_mib"] for s in STEPS
    )
    print(f"peak memory of the hungriest step, large / small: {peak:.2f}")


def migrate(folder: Path, server: Any, name: str, source: Path) -> dict[str, dict[str, float]]:
    """Each step in a process of its own, as a worker has it."""
    make_database(server, name)
    settings = {
        "dsn": server.uri(name),
        "source": str(source),
        "exports": str(folder / "exports"),
        "run_id": name,
    }
    results = {}
    for step in STEPS:
        command = [sys.executable, __file__, "--step", step, "--settings", json.dumps(settings)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        results[step] = json.loads(done.stdout.splitlines()[-1])
    return results


def measure_step(step: str, settings: dict[str, Any]) -> None:
    """Run one step of the pipeline; print its seconds and this process's peak memory."""
    run = engine.Run(
        engine.parse_settings(
            {"source": settings["source"]},
            dag_id="migrate_checkpoints",
            run_id=settings["run_id"],
            default_export_uri=settings["exports"],
        ),
        lambda: psycopg.connect(settings["dsn"]),
        lambda line: None,
    )
    handed_on = run.folder.root / f"{settings['run_id']}-handed-on.json"
    kept = json.loads(handed_on.read_bytes()) if handed_on.exists() else {}
    work = STEP_WORK[step]
    before = time.perf_counter()
    result = work(run, kept)
    seconds = time.perf_counter() - before
    if result is not None:
        kept.update(result)
        handed_on.write_text(json.dumps(kept))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mib": peak}))


def _exports(kept: dict[str, Any]) -> list[engine.Export]:
    return [msgspec.convert(export, engine.Export) for export in kept["exports"]]


STEP_WORK: dict[str, Callable[[engine.Run, dict[str, Any]], dict[str, Any] | None]] = {
    "check": lambda run, kept: engine.check_schema(run) and None,
    "freeze": lambda run, kept: engine.freeze_source(run) and None,
    "plan": lambda run, kept: {"shards": [s["index"] for s in engine.plan_shards(run)]},
    "export": lambda run, kept: {
        "exports": [msgspec.to_builtins(engine.export_threads(run, i)) for i in kept["shards"]]
    },
    "plan_batches": lambda run, kept: {
        "loads": [msgspec.to_builtins(load) for load in engine.plan_batches(run, _exports(kept))]
    },
    "load": lambda run, kept: (
        [engine.load_batch(run, msgspec.convert(load, engine.Load)) for load in kept["loads"]]
        and None
    ),
    "verify": lambda run, kept: [engine.verify_staged(run, e) for e in _exports(kept)] and None,
    "promote": lambda run, kept: engine.promote(run) and None,
    "witness": lambda run, kept: engine.verify_counts(run) and None,
}


def show(name: str, checkpoints: int, size: int, steps: dict[str, dict[str, float]]) -> None:
    total = sum(step["seconds"] for step in steps.values())
    print(f"\n{name}: {checkpoints:,} checkpoints, {size / 2**20:.0f} MiB")
    for step, figures in steps.items():
        rate = checkpoints / figures["seconds"]
        print(
            f"  {step:13} {figures['seconds']:7.2f} s  {rate:9,.0f}/s  peak {figures['peak_mib']:4.0f} MiB"
        )
    print(f"  {'together':13} {total:7.2f} s  {checkpoints / total:9,.0f}/s")


def careful_loop(server: Any, source: Path) -> float:
    """The scripts that people share, with their known losses mended as far as the API allows."""
    import sqlite3

    from langgraph.checkpoint.postgres import PostgresSaver
    from langgraph.checkpoint.sqlite import SqliteSaver

    make_database(server, "looped")
    with (
        closing(sqlite3.connect(source)) as conn,
        PostgresSaver.from_conn_string(server.uri("looped")) as target,
    ):
        target.setup()
        before = time.perf_counter()
        for saved in SqliteSaver(conn).list(None):
            config = {"configurable": {**saved.config["configurable"]}}
            parent = saved.parent_config
            config["configurable"]["checkpoint_id"] = (
                parent["configurable"]["checkpoint_id"] if parent else None
            )
            versions = saved.checkpoint["channel_versions"]
            target.put(config, saved.checkpoint, saved.metadata, versions)
            for task_id, channel, value in saved.pending_writes or ():
                target.put_writes(saved.config, [(channel, value)], task_id)
        return time.perf_counter() - before


def make_database(server: Any, name: str) -> None:
    with psycopg.connect(server.uri("postgres"), autocommit=True) as conn:
        conn.execute(f'DROP DATABASE IF EXISTS "{name}"')
        conn.execute(f'CREATE DATABASE "{name}"')


if __name__ == "__main__":
    main()
