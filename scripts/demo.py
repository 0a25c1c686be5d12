"""`make demo`: a whole migration on this machine, told in a page.

A sample of 3,000 checkpoints is migrated by the real DAG into a real PostgreSQL server that the
demo brings along; then the application goes on there with a thread that waits for a person.
Exits 1 unless the verdict is `identical` and the application went on.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import psycopg
from psycopg import sql

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts import demo_sample, postgres_server  # noqa: E402 - found through the line above

DAG = "migrate_checkpoints"
DATABASE = "langgraph"
STAGES = ("source", "frozen", "exported", "staged", "live")

# `2026-01-31T12:00:00.000000Z [info     ] the message   [the.logger] key=value`, as Airflow prints
LINE = re.compile(r"^\d{4}-\d\d-\d\dT\S+ \[(?P<level>\w+)\s*\] (?P<rest>.*)$", re.DOTALL)
LOGGER = re.compile(r"\s*\[(?P<name>[A-Za-z_][\w.]*)\](?P<facts>( \w+=.*)?)\s*$", re.DOTALL)
TASK = re.compile(r"\[DAG TEST\] starting task_id=(?P<task>\S+) map_index=(?P<index>-?\d+)")
LOUD = ("error", "critical")
NOISE = ("XCom not found",)  # how Airflow's client learns that a list has ended
SPEAKING = 3  # instances of a mapped task whose lines are shown
ANSWERS = ("verdict: ", "report: ")
OWN = ("include.", "checkpoint_migration", "unusual_prefix_")


class DemoFailed(Exception):
    """The demo could not show what it promises."""


def home() -> Path:
    """Return AIRFLOW_HOME as `scripts/airflow` has it."""
    return Path(os.environ.get("AIRFLOW_HOME") or ROOT / ".airflow")


def sample_path() -> Path:
    return home() / "demo" / "support-desk.sqlite"


def make_database(server: postgres_server.Server, *, reset: bool) -> None:
    """Make the demo's database in the demo's own server, in place of the old one if `reset`."""
    name = sql.Identifier(DATABASE)
    with psycopg.connect(server.uri("postgres"), autocommit=True) as connection:
        if reset:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
        query = "SELECT 1 FROM pg_database WHERE datname = %s"
        if connection.execute(query, (DATABASE,)).fetchone() is None:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(name))


def environment(server: postgres_server.Server) -> dict[str, str]:
    """Return the caller's variables and the demo's connection, which is defined nowhere else."""
    return {**os.environ, "AIRFLOW_CONN_LANGGRAPH_POSTGRES": server.uri(DATABASE)}


def migrate(server: postgres_server.Server, source: Path, log: Path) -> Path:
    """Run the DAG on `source`, showing its own lines; return the path of `report.json`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [ROOT / "scripts" / "airflow", "dags", "test", DAG]
    with (
        log.open("w") as kept,
        subprocess.Popen(
            [*command, "-c", json.dumps({"source": str(source)})],
            env=environment(server),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as run,
    ):
        assert run.stdout is not None
        report = None
        for line in shown(run.stdout, kept):
            print(f"  {line}", flush=True)
            if line.startswith("report: "):
                report = Path(line.removeprefix("report: ").strip())
    if run.returncode != 0 or report is None:
        tail = "".join(log.read_text().splitlines(keepends=True)[-25:])
        told = "" if report else f"\n{tail}"
        raise DemoFailed(f"the migration failed (exit code {run.returncode}); see {log}{told}")
    return report


def shown(lines: Iterable[str], kept: TextIO) -> Iterator[str]:
    """Yield the migration's own lines and all errors; everything goes to `kept`.

    Of a mapped task's instances the first ones speak, the others are counted.
    """
    name, index, folded, ours = "", -1, 0, True
    for raw in lines:
        kept.write(raw)
        line = raw.rstrip("\n")
        if (task := TASK.search(line)) is not None:
            index = int(task["index"])
            if task["task"] != name:
                if folded:
                    yield f"… and {folded} lines more of this kind"
                name, folded = task["task"], 0
                yield f"· {name}"
        text, loud = line, False
        if (logged := LINE.match(line)) is not None:
            text, found = logged["rest"], LOGGER.search(logged["rest"])
            loud = logged["level"] in LOUD and not any(noise in text for noise in NOISE)
            ours = loud or (task is None and (found is None or is_ours(found)))
        elif line.startswith(ANSWERS):
            ours = True
        if not (ours or loud) or not text.strip():
            continue  # what was printed, or goes on over lines, belongs to the line before
        if index < SPEAKING or loud:
            yield without_logger(text)
        else:
            folded += 1


def is_ours(found: re.Match[str] | None) -> bool:
    return found is not None and found["name"].startswith(OWN)


def without_logger(text: str) -> str:
    found = LOGGER.search(text)
    return text[: found.start()].rstrip() if found and is_ours(found) else text.rstrip()


def table(counts: dict[str, dict[str, int | None]]) -> Iterator[str]:
    """Yield the report's counts as a table: a row for each kind, a column for each stage."""
    yield " " * 14 + "".join(f"{stage:>10}" for stage in STAGES)
    for kind, at in counts.items():
        cells = [at.get(stage, "") for stage in STAGES]
        spelled = ["-" if c is None else f"{c:,}" if isinstance(c, int) else c for c in cells]
        yield f"{kind:<14}" + "".join(f"{cell:>10}" for cell in spelled)


def step(text: str) -> None:
    print(f"\n{text}", flush=True)


def run_demo() -> None:
    began = time.monotonic()
    folder = postgres_server.demo_folder()
    started = postgres_server.status(folder) is None
    step("PostgreSQL, brought along as a Python package")
    server = postgres_server.start(folder)
    try:
        print(f"  listens on {server.host}:{server.port}, its data in {folder}")
        make_database(server, reset=True)

        step("The application's memory in SQLite, written by real LangGraph graphs")
        source = demo_sample.write_sample(sample_path())
        print(f"  {source}")

        step(f"The migration: scripts/airflow dags test {DAG} -c '{{\"source\": …}}'")
        log = home() / "logs" / "demo.log"
        print(f"  all of Airflow's own lines are in {log}")
        report_path = migrate(server, source, log)

        report: dict[str, Any] = json.loads(report_path.read_text())
        step("The report")
        for line in table(report["counts"]):
            print(f"  {line}")
        print(f"  verdict   {report['verdict']}: {report['sentence']}")
        print(f"  report    {report_path}")
        print(f"            {report_path.with_suffix('.html')}")
        if report["verdict"] != "identical":
            raise DemoFailed(f"the verdict is {report['verdict']}, not identical")

        step(f"The application goes on with {demo_sample.WAITING!r}, now on PostgreSQL")
        for line in demo_sample.resume_waiting(server.uri(DATABASE)):
            print(f"  {line}")
    finally:
        if started:
            postgres_server.stop(folder)
    step(f"Done in {time.monotonic() - began:.0f} s. To look around in the target:")
    print("  .venv/bin/python scripts/postgres_server.py start")
    print('  psql "$(.venv/bin/python scripts/postgres_server.py url)"')
    print("In the browser: make airflow")


def main() -> int:
    try:
        run_demo()
    except (DemoFailed, postgres_server.ServerError, subprocess.CalledProcessError) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
