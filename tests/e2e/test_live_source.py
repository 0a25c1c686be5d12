"""An application writes 500 rows a second during the whole run: it is neither misread nor disturbed."""

from __future__ import annotations

import multiprocessing
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import ERROR
from langgraph.checkpoint.sqlite import SqliteSaver

from include.checkpoint_migration.errors import SourceDrifted, TargetConflict
from include.checkpoint_migration.findings import Counts
from tests.support.engine import Migration
from tests.support.faults import Child, live_rows, staged_rows
from tests.support.postgres import Database
from tests.support.sqlite_sources import names

RATE = 500  # rows a second, each a commit
BUSY, FAILING, LEAVING = 7, 20, 300  # threads that grow, that fail again, that are deleted
AT_FIRST = 300  # checkpoints in the threads that grow
PATIENCE = 5.0  # seconds that SQLite waits for a lock before the application sees an error

Key = tuple[Any, ...]
Change = dict[str, int]


# --- what the application does: step `number`, on a saver and in our own books ------------------


@dataclass
class Books:
    """Which rows there are, by key, and what each says."""

    checkpoints: dict[Key, str] = field(default_factory=dict)
    writes: dict[Key, str] = field(default_factory=dict)

    def put(self, thread: str, n: int) -> None:
        self.checkpoints[thread, "", id_of(n)] = f"said {n}"

    def put_writes(self, thread: str, n: int, channel: str, value: str) -> None:
        idx = -1 if channel == ERROR else 0
        self.writes[thread, "", id_of(n), "task", idx] = value

    def delete_thread(self, thread: str) -> None:
        for rows in (self.checkpoints, self.writes):
            for key in [key for key in rows if key[0] == thread]:
                del rows[key]

    @property
    def counts(self) -> tuple[int, int]:
        return len(self.checkpoints), len(self.writes)


class Saved:
    """The same verbs on the real saver."""

    def __init__(self, saver: SqliteSaver) -> None:
        self.saver = saver

    def put(self, thread: str, n: int) -> None:
        version = f"{n + 1:032}.{n:016}"
        values = {"said": [f"said {n}"], "name": thread}
        checkpoint: Any = {
            "v": 4,
            "ts": "2026-01-01T00:00:00+00:00",
            "id": id_of(n),
            "channel_values": values,
            "channel_versions": {"said": version, "name": f"{1:032}.{0:016}"},
            "versions_seen": {"__input__": {}},
            "updated_channels": ["said"],
        }
        config = config_of(thread, n - BUSY if n >= BUSY and thread.startswith("busy") else None)
        metadata: Any = {"source": "loop", "step": n, "parents": {}}
        self.saver.put(config, checkpoint, metadata, {"said": version})

    def put_writes(self, thread: str, n: int, channel: str, value: str) -> None:
        self.saver.put_writes(config_of(thread, n), [(channel, value)], "task", "~")

    def delete_thread(self, thread: str) -> None:
        self.saver.delete_thread(thread)


def id_of(n: int) -> str:
    return f"1f000000-0000-6000-8000-{n:012x}"


def config_of(thread: str, n: int | None) -> Any:
    named = {} if n is None else {"checkpoint_id": id_of(n)}
    return {"configurable": {"thread_id": thread, "checkpoint_ns": "", **named}}


def begin(to: Books | Saved) -> None:
    """What is there before the application is busy."""
    for n in range(AT_FIRST):
        to.put(f"busy-{n % BUSY}", n)
    for kind, threads in (("failing", FAILING), ("leaving", LEAVING)):
        for n in range(threads):
            to.put(f"{kind}-{n}", n)
            to.put_writes(f"{kind}-{n}", n, ERROR, "failed at first")


def take(to: Books | Saved, number: int, edits: bool) -> None:
    """One step, which is one commit: a checkpoint, then a pending write of it, and so on.

    With `edits` a task fails again now and then, which replaces a write, or a thread is deleted.
    """
    n = AT_FIRST + number // 2
    if edits and number % 10 == 8:
        thread = number // 10 % FAILING
        to.put_writes(f"failing-{thread}", thread, ERROR, f"failed at {number}")
    elif edits and number % 100 == 6 and number // 100 < LEAVING:
        to.delete_thread(f"leaving-{number // 100}")
    elif number % 2 == 0:
        to.put(f"busy-{n % BUSY}", n)
    else:
        to.put_writes(f"busy-{n % BUSY}", n, "said", f"wrote {number}")


# --- the application's process ------------------------------------------------------------------


@contextmanager
def saver_on(path: Path, journal_mode: str) -> Iterator[SqliteSaver]:
    with closing(sqlite3.connect(path, check_same_thread=False, timeout=PATIENCE)) as conn:
        conn.execute("PRAGMA synchronous=OFF")
        saver = SqliteSaver(conn)
        saver.setup()
        conn.execute(f"PRAGMA journal_mode={journal_mode}")
        yield saver


def work(
    path: Path, journal_mode: str, edits: bool, taken: Any, ready: Any, stop: Any
) -> dict[str, Any]:
    """Take step after step at the rate until told to stop; what went wrong, and the worst wait."""
    worst, errors = 0.0, []
    with saver_on(path, journal_mode) as saver:
        begin(Saved(saver))
        ready.set()
        began = time.monotonic()
        while not stop.is_set() and not errors:
            before = time.monotonic()
            try:
                take(Saved(saver), taken.value, edits)
            except sqlite3.Error as error:
                errors.append(repr(error))
            else:
                taken.value += 1
            now = time.monotonic()
            worst = max(worst, now - before)
            time.sleep(max(0.0, began + taken.value / RATE - now))
        seconds = time.monotonic() - began
    return {"worst": worst, "errors": errors, "rate": taken.value / seconds}


class Application:
    """The parent's handle on it."""

    def __init__(self, path: Path, journal_mode: str, edits: bool) -> None:
        self.path, self.edits = path, edits
        context = multiprocessing.get_context("forkserver")
        self._taken, ready, self._stop = context.Value("q", 0), context.Event(), context.Event()
        self._child = Child(work, path, journal_mode, edits, self._taken, ready, self._stop)
        assert ready.wait(60)

    @property
    def taken(self) -> int:
        """Steps that are committed for certain; one more may be."""
        return int(self._taken.value)

    def stop(self) -> dict[str, Any]:
        self._stop.set()
        assert self._child.wait() == 0
        return dict(self._child.result)

    def books(self, first: int, last: int) -> Iterator[tuple[int, Books]]:
        """Our own books after each number of steps from `first` to `last`."""
        books = Books()
        begin(books)
        for number in range(last + 1):
            if number >= first:
                yield number, books
            take(books, number, self.edits)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()


# --- what the files hold, and how our books differ ----------------------------------------------


def books_of(path: Path) -> Books:
    """The rows of a database that nobody writes, told as our books tell them."""
    serde, books = JsonPlusSerializer(), Books()
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as conn:
        for *key, kind, blob in conn.execute(
            "SELECT thread_id, checkpoint_ns, checkpoint_id, type, checkpoint FROM checkpoints"
        ):
            said = serde.loads_typed((kind, blob))["channel_values"]["said"]
            books.checkpoints[tuple(key)] = said[0]
        for *key, kind, blob in conn.execute(
            "SELECT thread_id, checkpoint_ns, checkpoint_id, task_id, idx, type, value FROM writes"
        ):
            books.writes[tuple(key)] = serde.loads_typed((kind, blob))
    return books


def change(then: dict[Key, str], now: dict[Key, str]) -> Change:
    both = then.keys() & now.keys()
    return {
        "added": len(now) - len(both),
        "changed": sum(then[key] != now[key] for key in both),
        "removed": len(then) - len(both),
    }


def drift(then: Books, now: Books) -> dict[str, Change]:
    return {
        "checkpoints": change(then.checkpoints, now.checkpoints),
        "writes": change(then.writes, now.writes),
    }


@dataclass
class Watched:
    """A run beside the application, with its steps counted before each of the run's."""

    app: Application
    migration: Migration
    at: dict[str, int] = field(default_factory=dict)

    def all(self) -> dict[str, Any]:
        """The whole pipeline; `report` and `frozen` tell what it found."""
        try:
            return self.migration.all(self.note)
        finally:
            self.note("end")

    def note(self, step: str) -> None:
        self.at[step] = self.app.taken

    def prove_frozen(self) -> Books:
        """What was frozen is what our books held at one moment of that step."""
        frozen = books_of(self.migration.folder / "source.sqlite")
        moments = self.app.books(self.at["freeze"], self.at["export"] + 1)
        assert [number for number, books in moments if books == frozen] != []
        return frozen

    def prove_drift(self, frozen: Books) -> None:
        """What was counted as drift is, to the row, how our books differed at one moment of promote."""
        report = self.migration.report
        last = self.at.get("witness", self.at["end"]) + 1
        then = {kind: report["counts"][kind]["source"] for kind in ("checkpoints", "writes")}
        moments = [
            number
            for number, books in self.app.books(self.at["promote"], last)
            if books.counts == tuple(then.values()) and drift(frozen, books) == report["drift"]
        ]
        assert moments != []
        assert self.app.edits or len(moments) == 1  # each step adds a row: no two moments agree


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "application").mkdir()
    return tmp_path / "application"


@pytest.fixture
def run(run_on: Callable[..., Migration], folder: Path) -> Callable[..., Migration]:
    def run(run_id: str, **params: Any) -> Migration:
        asked = {"batch_size": 100, "keep_exports": True, **params}
        return run_on(folder / "app.sqlite", asked, run_id=run_id, max_export_tasks=4)

    return run


def undisturbed(app: Application) -> None:
    """Stop the application; it saw no error, and none was near."""
    told = app.stop()
    print(f"{told['rate']:.0f} rows/s, worst wait {told['worst']:.3f} s")  # noqa: T201 - see it with -s
    assert told["errors"] == []
    assert told["worst"] < PATIENCE


each_journal_mode = pytest.mark.parametrize("journal_mode", ["wal", "delete"])


@each_journal_mode
def test_drift_that_is_refused_leaves_nothing_live_and_is_counted_exactly(
    run: Callable[..., Migration],
    database: Database,
    folder: Path,
    journal_mode: str,
) -> None:
    """The frozen state is staged and proven, promote counts every row since then and refuses."""
    with Application(folder / "app.sqlite", journal_mode, edits=True) as app:
        watched = Watched(app, run("refused"))
        with pytest.raises(SourceDrifted) as refused:
            watched.all()
        seen = set(names(folder))
        undisturbed(app)
    report = watched.migration.report
    frozen = watched.prove_frozen()
    watched.prove_drift(frozen)
    for kinds in report["drift"].values():
        assert kinds["added"] > 0
    assert report["drift"]["writes"]["changed"] > 0
    assert report["drift"]["checkpoints"]["removed"] > 0
    assert f"checkpoints +{report['drift']['checkpoints']['added']:,} ~0" in refused.value.what

    assert (report["verdict"], report["succeeded"]) == ("unproven", False)
    assert report["error"]["type"] == "SourceDrifted"
    for kind, rows in zip(("checkpoints", "writes"), frozen.counts, strict=True):
        counts = report["counts"][kind]
        assert (counts["frozen"], counts["exported"], counts["staged"]) == (rows, rows, rows)
        assert counts["live"] is None
    assert staged_rows(database, watched.migration) >= sum(frozen.counts)
    assert not any(live_rows(database.dsn).values())
    assert seen <= {"app.sqlite", "app.sqlite-wal", "app.sqlite-shm", "app.sqlite-journal"}


@each_journal_mode
def test_drift_that_is_reported_catches_up_with_a_second_run(
    run: Callable[..., Migration],
    database: Database,
    folder: Path,
    journal_mode: str,
) -> None:
    """The frozen state is live and identical; the next run adds just what was written since."""
    with Application(folder / "app.sqlite", journal_mode, edits=False) as app:
        watched = Watched(app, run("bulk", on_drift="report"))
        report = watched.all()
        undisturbed(app)
    frozen = watched.prove_frozen()
    watched.prove_drift(frozen)
    assert (report["verdict"], report["succeeded"]) == ("identical", True)
    assert report["drift"]["checkpoints"]["added"] > 0
    assert live_keys(database) == keys_of(frozen)

    second = run("catching up")
    second.to_staging()
    promotion = second.promote()
    second.witness()
    report = second.conclude()
    now = books_of(folder / "app.sqlite")
    checkpoints, writes = (a - b for a, b in zip(now.counts, frozen.counts, strict=True))
    assert promotion.inserted == Counts(checkpoints, writes, blobs=checkpoints)
    assert (promotion.identical.checkpoints, promotion.identical.writes) == frozen.counts
    assert (report["verdict"], report["succeeded"]) == ("identical", True)
    assert live_keys(database) == keys_of(now)
    assert [n for n, books in app.books(app.taken, app.taken) if books == now] == [app.taken]


def test_rows_that_changed_meanwhile_are_conflicts_until_they_are_replaced(
    run: Callable[..., Migration],
    database: Database,
    folder: Path,
) -> None:
    """Catching up names each row that the application replaced, and takes it when told to."""
    with Application(folder / "app.sqlite", "wal", edits=True) as app:
        watched = Watched(app, run("bulk", on_drift="report"))
        report = watched.all()
        undisturbed(app)
    frozen = watched.prove_frozen()
    watched.prove_drift(frozen)
    assert report["verdict"] == "identical"
    assert live_keys(database) == keys_of(frozen)

    since = drift(frozen, now := books_of(folder / "app.sqlite"))
    before = live_rows(database.dsn)
    refused = run("catching up")
    with pytest.raises(TargetConflict):
        refused.all()
    conflicts = refused.report["conflicts"]
    assert {row["thread_id"] for row in conflicts} == {
        thread for thread, *_ in changed(frozen.writes, now.writes)
    }
    assert len(conflicts) == since["writes"]["changed"]
    assert live_rows(database.dsn) == before

    told = run("catching up, told what to do", on_conflict="replace")
    told.to_staging()
    promotion = told.promote()
    told.witness()
    report = told.conclude()
    assert report["verdict"] == "identical"
    assert promotion.replaced == since["writes"]["changed"]
    assert promotion.inserted.checkpoints == since["checkpoints"]["added"]
    assert promotion.inserted.writes == since["writes"]["added"]
    warnings = {warning["kind"]: warning["count"] for warning in report["warnings"]}
    assert warnings["removed_in_source"] == since["checkpoints"]["removed"] > 0
    assert live_keys(database) == tuple(
        a | b for a, b in zip(keys_of(frozen), keys_of(now), strict=True)
    )


def changed(then: dict[Key, str], now: dict[Key, str]) -> list[Key]:
    return [key for key in then.keys() & now.keys() if then[key] != now[key]]


def keys_of(books: Books) -> tuple[set[Key], set[Key]]:
    return set(books.checkpoints), set(books.writes)


def live_keys(database: Database) -> tuple[set[Key], set[Key]]:
    rows = live_rows(database.dsn)
    return {row[:3] for row in rows["checkpoints"]}, {row[:5] for row in rows["checkpoint_writes"]}
