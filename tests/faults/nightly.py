"""Hours of faults: kill points over every step, mutations of export files, random faults over whole runs.

    python -m tests.faults.nightly [kills] [mutations] [random]

KILLS=200, MUTATIONS=10000 and MINUTES=60 say how much; SEED repeats a night, and is printed. It prints
how many runs and faults there were, and ends with an error at the first row that is lost, doubled or changed.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard
from langgraph.checkpoint.postgres import PostgresSaver

from include import checkpoint_migration as engine
from include.checkpoint_migration import MigrationError
from include.checkpoint_migration.errors import ExportCorrupted
from include.checkpoint_migration.exportfile import check_length, read_batch, read_manifest
from include.checkpoint_migration.load.batches import manifest_path
from scripts import postgres_server
from tests.support import postgres as pg
from tests.support.engine import Migration, rows
from tests.support.faults import (
    BATCH_SIZE,
    CANARY,
    NO_ROWS,
    Child,
    Proxy,
    Rows,
    Trial,
    die_at_exchange,
    go_on,
    grow,
    load_one,
    plan,
    run_step,
    step_killed_at_byte,
    step_with_files_limited,
    write_source,
)
from tests.support.undoing import Undo

STEPS = ("export", "copy", "verify", "promote")
EXCHANGES = {"copy": 26, "verify": 40, "promote": 60}  # about as many as each has, and some more


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)  # noqa: T201 - a script


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="nightly-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def unharmed(server: pg.TestServer, source: Path, **params: Any) -> Rows:
    """What a run that meets no fault makes of a source."""
    with server.database() as database, folder() as exports:
        asked = {"batch_size": BATCH_SIZE, **params}
        migration = Migration(database.dsn, source, exports, asked, max_export_tasks=1)
        assert migration.all()["verdict"] == "identical"
        return rows(database.dsn)


# --- kill points --------------------------------------------------------------------------------


def dying(
    migration: Migration, number: int, work: Callable[..., Any], args: tuple[Any, ...]
) -> Any:
    """Do work and die at the `number`-th exchange with the server, before it or once it is sent."""
    die_at_exchange(number, number % 2 == 0)
    return work(migration, *args)


def verify_one(migration: Migration, export: engine.Export) -> None:
    engine.verify_staged(migration.run, export)


def was_killed(work: Callable[..., Any], *args: Any) -> bool:
    child = Child(work, *args)
    code = child.wait(120)
    assert child.error is None, child.error
    return code != 0


def kills(server: pg.TestServer, chance: random.Random, wanted: int) -> Counter[str]:
    """Kill each step at random points, `wanted` kills in all; every run ends like an unharmed one."""
    done: Counter[str] = Counter()
    with folder() as here:
        source = write_source(here / "written.sqlite", "anna", "bert", "carl")
        expected = unharmed(server, source)
        while sum(done[step] for step in STEPS) < wanted:
            with server.database() as database, folder() as run:
                (run / "app").mkdir()
                copy = Path(shutil.copy(source, run / "app" / "app.sqlite"))
                trial = Trial(database, copy, run / "exports", expected)
                killed_in_one_run(trial, chance, done)
            done["runs"] += 1
    return done


def killed_in_one_run(trial: Trial, chance: random.Random, done: Counter[str]) -> None:
    migration = trial.migration
    migration.check()
    migration.freeze()
    [export] = migration.export()
    length = (migration.folder / "0000.jsonl.zst").stat().st_size
    for _ in range(4):
        for name in ("0000.jsonl.zst", "0000.manifest.json"):
            (migration.folder / name).unlink(missing_ok=True)
        limit = chance.randrange(length)
        done["export"] += was_killed(step_killed_at_byte, migration, "export_one", (), limit)
        trial.holds()
        migration.run.folder.sweep()
    [export] = migration.export()
    loads = engine.plan_batches(migration.run, [export])
    for load in loads:
        for _ in range(2):
            number = chance.randint(1, EXCHANGES["copy"])
            done["copy"] += was_killed(dying, migration, number, load_one, (load,))
            assert trial.live() == "before"
        load_one(migration, load)
    for _ in range(4):
        number = chance.randint(1, EXCHANGES["verify"])
        done["verify"] += was_killed(dying, migration, number, verify_one, (export,))
        assert trial.live() == "before"
    migration.verify([export])
    for _ in range(4):
        number = chance.randint(1, EXCHANGES["promote"])
        done["promote"] += was_killed(dying, migration, number, run_step, ("promote",))
        trial.holds()
    trial.go_on()


# --- mutations ----------------------------------------------------------------------------------


def mutations(server: pg.TestServer, chance: random.Random, wanted: int) -> Counter[str]:
    """Flip bits of export file and manifest, and mutate lines; each is to be found before a row."""
    done: Counter[str] = Counter()
    with folder() as here, server.database() as database:
        source = write_source(here / "app.sqlite", "anna", "bert", "carl", turns=3)
        migration = Migration(
            database.dsn, source, here / "exports", {"batch_size": BATCH_SIZE}, max_export_tasks=1
        )
        [export], _ = plan(migration)
        file, manifest = Path(export.path), Path(manifest_path(export.path))
        data, claims = file.read_bytes(), manifest.read_bytes()
        for number in range(wanted):
            kind = ("bit", "line", "manifest")[number % 3]
            if kind == "bit":
                file.write_bytes(flipped(data, chance))
            elif kind == "line":
                file.write_bytes(with_a_line_changed(data, export, chance))
            else:
                manifest.write_bytes(flipped(claims, chance))
            assert is_found(export), f"mutation {number} ({kind}) was not found"
            done[kind] += 1
            file.write_bytes(data)
            manifest.write_bytes(claims)
        assert not is_found(export), "the file itself is refused"
    return done


def flipped(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) * 8)
    changed = bytearray(data)
    changed[at // 8] ^= 1 << at % 8
    return bytes(changed)


def with_a_line_changed(data: bytes, export: engine.Export, chance: random.Random) -> bytes:
    """A frame that is valid in itself, with a line dropped, doubled, moved or changed in a letter."""
    manifest = read_manifest(Path(manifest_path(export.path)), export.manifest_sha256)
    batch = chance.choice(manifest.batches)
    frame = data[batch.offset : batch.offset + batch.length]
    lines = zstandard.ZstdDecompressor().decompressobj().decompress(frame).splitlines(keepends=True)
    before = list(lines)
    while lines == before:
        at = chance.randrange(len(lines))
        how = chance.choice(("drop", "double", "move", "letter"))
        if how == "drop":
            del lines[at]
        elif how == "double":
            lines.insert(at, lines[at])
        elif how == "move":
            lines.insert(chance.randrange(len(lines)), lines.pop(at))
        else:
            line = bytearray(lines[at])
            line[chance.randrange(len(line) - 1)] ^= 1
            lines[at] = bytes(line)
    packed = zstandard.ZstdCompressor(level=1, write_checksum=True).compress(b"".join(lines))
    return data[: batch.offset] + packed + data[batch.offset + batch.length :]


def is_found(export: engine.Export) -> bool:
    """Whether reading an export as `load_batch` does is refused before the bad batch's first row."""
    try:
        manifest = read_manifest(Path(manifest_path(export.path)), export.manifest_sha256)
        path = Path(export.path)
        check_length(path, manifest, path.stat().st_size)
        for number, batch in enumerate(manifest.batches):
            next(iter(read_batch(path, number, batch)))
    except ExportCorrupted:
        return True
    return False


# --- random faults ------------------------------------------------------------------------------


@dataclass
class Night:
    """A server that may be restarted, chance, and what was done so far."""

    server: postgres_server.Server
    chance: random.Random
    done: Counter[str] = field(default_factory=Counter)

    @property
    def databases(self) -> pg.TestServer:
        return pg.TestServer(self.server.uri())

    def later(self, act: Callable[[], Any]) -> threading.Thread:
        """Do something while a step works."""
        delay = self.chance.uniform(0, 0.8)
        thread = threading.Thread(target=lambda: (time.sleep(delay), act()), daemon=True)
        thread.start()
        return thread

    def restart(self) -> None:
        mode = self.chance.choice(("fast", "immediate"))
        postgres_server.restart(self.server.folder, mode=mode, settings=pg.SETTINGS)


class Application:
    """Takes turns on the target, in threads of its own, whatever happens to the server."""

    def __init__(self, dsn: str) -> None:
        self._dsn, self._stop = dsn, threading.Event()
        self.turns = 0
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(Exception), PostgresSaver.from_conn_string(self._dsn) as saver:
                while not self._stop.is_set():
                    go_on(saver, f"app-{self.turns % 3}", said="of the application")
                    self.turns += 1
            time.sleep(0.05)

    def end(self) -> None:
        self._stop.set()
        self._thread.join(30)


FAULTS = ("none", "kill", "restart", "drop", "full", "source writes")


def attempt(night: Night, migration: Migration, proxy: Proxy, step: str, args: Any) -> Child:
    """One try of a step in a process of its own, while a fault strikes or none."""
    fault = night.chance.choice(FAULTS)
    limited = fault == "full" and step in ("freeze", "export")
    if limited:
        limit = night.chance.randrange(20_000)
        child = Child(step_with_files_limited, migration, step, args, limit)
    else:
        child = Child(run_step, migration, step, args)
    acting = {
        "kill": child.kill,
        "restart": night.restart,
        "drop": proxy.cut_all,
        "source writes": lambda: grow(
            Path(migration.source), night.chance.choice(("anna", "dora"))
        ),
    }.get(fault)
    thread = night.later(acting) if acting else None
    child.wait(180)
    if thread is not None:
        thread.join(60)
    if acting or limited:
        night.done[f"fault: {fault}"] += 1
    return child


def one_run(night: Night, number: int) -> None:
    """A whole run under faults, then without; nothing lost, nothing doubled."""
    with night.databases.database() as database, folder() as here, Proxy(database.dsn) as proxy:
        with PostgresSaver.from_conn_string(database.dsn) as saver:
            saver.setup()
        (here / "app").mkdir()
        source = write_source(here / "app" / "app.sqlite", "anna", "bert", "carl")
        params = {"batch_size": BATCH_SIZE, "on_drift": "report", "keep_exports": True}
        migration = Migration(
            proxy.dsn, source, here / "exports", params, run_id=f"n{number}", max_export_tasks=2
        )
        application = Application(database.dsn)
        try:
            under_faults(night, migration, proxy)
        finally:
            application.end()
        report = Migration(
            database.dsn, source, here / "exports", params, run_id=f"n{number}", max_export_tasks=2
        )
        ended = finished(report)
        check_run(night, report, ended, database, application)
        if night.chance.random() < 0.3:
            undone(night, report, database)


def under_faults(night: Night, migration: Migration, proxy: Proxy) -> None:
    """The steps as Airflow would go on: a transient failure again, a terminal one from the loads on."""
    steps = ["check", "freeze", "export", "load", "verify", "promote", "witness"]
    exports: Any = None
    at, tries = 0, 0
    while at < len(steps) and tries < 25:
        tries += 1
        step = steps[at]
        args = (exports,) if step in ("load", "verify") else ()
        child = attempt(night, migration, proxy, step, args)
        if child.error is not None:
            night.done[f"error: {type(child.error).__name__}"] += 1
            if not child.error.transient and at > 3:
                at = 3
        elif child.exitcode == 0:
            exports = child.result if step == "export" else exports
            at += step != "export" or exports is not None  # a kill after the end loses the answer
        else:
            night.done["ended"] += 1


def finished(migration: Migration) -> dict[str, Any]:
    """The same run with no fault any more, from its beginning, as one whose every task was cleared."""
    for last in (False, False, True):
        try:
            return migration.all()
        except MigrationError as error:
            if last or not error.transient:
                raise
            time.sleep(1)
    raise AssertionError


def check_run(
    night: Night,
    migration: Migration,
    report: dict[str, Any],
    database: pg.Database,
    application: Application,
) -> None:
    assert report["verdict"] == "identical", report["error"]
    assert report["succeeded"]
    live = rows(database.dsn)
    ours = {n: [r for r in live[n] if not r[0].startswith("app-")] for n in live}
    expected = unharmed(night.databases, migration.folder / "source.sqlite")
    assert ours == expected, "a row was lost, doubled or changed"
    theirs = [r for r in live["checkpoints"] if r[0].startswith("app-")]
    assert len(theirs) >= 3 * application.turns, "a turn of the application is lost"
    for path in migration.folder.rglob("*.json"):
        assert CANARY not in path.read_text()
    schemas = {n for (n,) in database.rows("SELECT nspname FROM pg_namespace")}
    assert not [n for n in schemas if n.startswith(("checkpoint_migration_", "checkpoint_rehears"))]
    night.done["checkpoints proven"] += len(expected["checkpoints"])
    night.done["turns of the application"] += application.turns


def undone(night: Night, migration: Migration, database: pg.Database) -> None:
    """Undo it, killed or not; then only the application's rows are there, all of them."""
    before = rows(database.dsn)
    undo = Undo.of(migration)
    child = Child(Undo.all, undo)
    night.later(child.kill).join()
    child.wait(60)
    time.sleep(0.2)
    database.execute("UPDATE checkpoint_migration.leases SET until = '-infinity'")
    undo.all()
    now = rows(database.dsn)
    theirs = {n: [r for r in before[n] if r[0].startswith("app-")] for n in before}
    assert now == theirs, "undo took too much, or too little"
    assert theirs != NO_ROWS
    night.done["undone"] += 1


def random_faults(chance: random.Random, minutes: float) -> Counter[str]:
    end = time.monotonic() + 60 * minutes
    with pg.own_server() as server:
        night = Night(server, chance)
        while time.monotonic() < end:
            one_run(night, night.done["runs"])
            night.done["runs"] += 1
            if night.done["runs"] % 10 == 0:
                say(f"{night.done['runs']} runs: {told(night.done)}")
    return night.done


def told(done: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(done.items()))


def main(parts: list[str]) -> None:
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    say(f"SEED={seed}")
    chance = random.Random(seed)
    server_folder = pg.new_folder()
    server = pg.session_server(server_folder)
    try:
        if "kills" in parts:
            done = kills(server, chance, int(os.environ.get("KILLS") or 200))
            say(
                f"kill points: {told(done)}; every run ended identical, nothing lost, nothing doubled"
            )
        if "mutations" in parts:
            done = mutations(server, chance, int(os.environ.get("MUTATIONS") or 10_000))
            say(f"mutations: {told(done)}; all found before a row was read")
        if "random" in parts:
            done = random_faults(chance, float(os.environ.get("MINUTES") or 60))
            say(f"random faults: {told(done)}; nothing lost, nothing doubled")
    finally:
        postgres_server.remove(server_folder)


if __name__ == "__main__":
    main(sys.argv[1:] or ["kills", "mutations", "random"])
