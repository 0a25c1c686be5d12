"""Many threads are dealt out to a bounded number of tasks, and long ones need no more memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.history import write_history
from include import checkpoint_migration as engine
from tests.support.engine import Migration
from tests.support.faults import Child, load_one, plan
from tests.support.sqlite_sources import empty, even

EXPORT_CAP, LOAD_CAP = 6, 4
MEGABYTE = 1 << 20
SLACK = 40 * MEGABYTE  # what ten or a hundred times as many rows may need more
PATIENCE = 240  # seconds until a child counts as hanging


@pytest.fixture
def run(run_on: Callable[..., Migration]) -> Callable[[Path], Migration]:
    sizes = replace(even(EXPORT_CAP), max_load_tasks=LOAD_CAP)
    return lambda source: run_on(source, {"batch_size": 100}, run_id=source.stem, sizes=sizes)


@pytest.mark.parametrize("threads", [0, 1, EXPORT_CAP + 1, 1_024, 3_000])
def test_however_many_threads_tasks_stay_within_their_caps(
    run: Callable[[Path], Migration], tmp_path: Path, threads: int
) -> None:
    """A task for each thread up to the cap, then shards of several; every thread is migrated once."""
    source = tmp_path / "app.sqlite"
    if threads:
        write_history(source, threads=threads, checkpoints=threads, messages=1)
    else:
        empty(source).close()
    migration = run(source)
    exports, loads = plan(migration)
    assert len(exports) == min(threads, EXPORT_CAP)
    assert len(loads) == min(sum(export.batches for export in exports), LOAD_CAP)
    assert sum(export.counts.checkpoints for export in exports) == threads
    for load in loads:
        load_one(migration, load)
    migration.verify(exports)
    promotion = migration.promote()
    migration.witness()
    report = migration.conclude()
    assert (report["verdict"], report["succeeded"]) == ("identical", True)
    assert report["threads"]["total"] == threads
    assert len(report["threads"]["listed"]) + report["threads"]["omitted"] == threads
    assert promotion.inserted.checkpoints == report["counts"]["checkpoints"]["live"] == threads
    assert promotion.inserted.writes == report["counts"]["writes"]["live"] == 2 * threads


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def plan_alone(migration: Migration) -> dict[str, Any]:
    """Check, freeze, plan and report; what the plan came to, its seconds, the peak after each."""
    peaks = {"start": peak()}
    for step in ("check", "freeze"):
        getattr(migration, step)()
        peaks[step] = peak()
    began = time.monotonic()
    shards = engine.plan_shards(migration.run)
    seconds = time.monotonic() - began
    peaks["plan"] = peak()
    report = migration.conclude()
    peaks["conclude"] = peak()
    assert len(report["threads"]["listed"]) < 1_001
    checkpoints = [shard["checkpoints"] for shard in shards]
    return {"checkpoints": checkpoints, "seconds": seconds, "peaks": peaks}


def take(migration: Migration, step: str, *args: Any) -> tuple[Any, int]:
    """One step; its result, and the peak."""
    return getattr(migration, step)(*args), peak()


def in_a_process(work: Callable[..., Any], *args: Any) -> Any:
    child = Child(work, *args)
    code = child.wait(PATIENCE)
    assert child.error is None, child.error
    assert code == 0
    return child.result


def migrate(migration: Migration) -> dict[str, int]:
    """A whole run, each step in a process of its own as in Airflow; their peaks."""
    peaks: dict[str, int] = {}

    def next_(step: str, *args: Any) -> Any:
        result, peaks[step] = in_a_process(take, migration, step, *args)
        return result

    next_("check")
    next_("freeze")
    exports = next_("export")
    next_("load", exports)
    next_("verify", exports)
    next_("promote")
    next_("witness")
    assert next_("conclude")["verdict"] == "identical"
    return peaks


def tiny_threads(path: Path, threads: int) -> Path:
    with closing(empty(path)) as conn:
        conn.execute("BEGIN")
        conn.executemany(
            "INSERT INTO checkpoints VALUES (?, '', '1', NULL, 'msgpack', x'80', x'7b7d')",
            ((f"thread-{n:06}",) for n in range(threads)),
        )
        conn.execute("COMMIT")
    return path


def test_planning_100_000_threads_takes_seconds_and_no_more_memory(
    run: Callable[[Path], Migration], tmp_path: Path
) -> None:
    """A hundred times as many threads are planned into even shards, in as much memory."""
    few = in_a_process(plan_alone, run(tiny_threads(tmp_path / "few.sqlite", 1_000)))
    many = in_a_process(plan_alone, run(tiny_threads(tmp_path / "many.sqlite", 100_000)))
    assert len(few["checkpoints"]) == len(many["checkpoints"]) == EXPORT_CAP
    assert sum(many["checkpoints"]) == 100_000
    assert max(many["checkpoints"]) < 1.1 * min(many["checkpoints"])
    assert many["seconds"] < 20
    growth = many["peaks"]["conclude"] - few["peaks"]["conclude"]
    assert growth < SLACK, (few["peaks"], many["peaks"])


def test_a_thread_of_20_000_checkpoints_needs_no_more_memory_than_one_of_2_000(
    run: Callable[[Path], Migration], tmp_path: Path
) -> None:
    """Every step streams: ten times the history moves in as much memory."""
    peaks = []
    for checkpoints in (2_000, 20_000):
        source = tmp_path / f"long-{checkpoints}.sqlite"
        write_history(source, threads=1, checkpoints=checkpoints, messages=1)
        migration = run(source)
        migration.params["batch_size"] = 1_000
        peaks.append(migrate(migration))
        assert migration.report["counts"]["checkpoints"]["live"] == checkpoints
    few, many = peaks
    growth = {step: many[step] - few[step] for step in few}
    print({step: f"{grown / MEGABYTE:+.0f} MB" for step, grown in growth.items()})  # noqa: T201 - see it with -s
    assert max(growth.values()) < SLACK, growth
