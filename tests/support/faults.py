"""Faults for the engine, and what must hold after each: kills, a proxy that misbehaves, six invariants.

Faults live here, never as switches in the product. What is killed runs in a process of its own.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
import socket
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import psycopg
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from typing_extensions import TypedDict

from include import checkpoint_migration as engine
from include.checkpoint_migration import Export, MigrationError
from include.checkpoint_migration.export import places
from include.checkpoint_migration.promotion.transaction import promote_staged
from tests.support.engine import Migration, rows
from tests.support.postgres import Database
from tests.support.sqlite_sources import listing

Rows = dict[str, list[tuple[Any, ...]]]
TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")
NO_ROWS: Rows = {name: [] for name in TABLES}
CANARY = "what-somebody-said-in-confidence"  # in every value of a source, and nowhere else
THREADS = ("anna", "bert")
BATCH_SIZE = 5


# --- sources ----------------------------------------------------------------------------------


class Talk(TypedDict):
    said: list[str]
    notes: dict[str, Any]


def go_on(saver: Any, thread: str, turns: int = 1, *, said: str = CANARY) -> None:
    """Have a real graph take so many turns in a thread: three checkpoints and three writes each."""
    builder = StateGraph(Talk)
    builder.add_node(
        "answer",
        lambda state: {
            "said": [*state["said"], said],
            "notes": {"turns": len(state["said"]), "last": said},
        },
    )
    builder.add_edge(START, "answer")
    builder.add_edge("answer", END)
    graph = builder.compile(checkpointer=saver)
    config = {"configurable": {"thread_id": thread}}
    for _ in range(turns):
        before = graph.get_state(config).values.get("said", [])
        graph.invoke({"said": [*before, said], "notes": {}}, config)


def grow(source: Path, thread: str, turns: int = 1, *, said: str = CANARY) -> None:
    """Let the application go on in a closed source."""
    with SqliteSaver.from_conn_string(str(source)) as saver:
        go_on(saver, thread, turns, said=said)


def write_source(path: Path, *threads: str, turns: int = 2) -> Path:
    """A closed database of the real saver: a few turns a thread, and a write without checkpoint."""
    for thread in threads or THREADS:
        grow(path, thread, turns)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute(
            "INSERT INTO writes (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx,"
            " channel, type, value) VALUES ('orphan', '', 'gone', 'task', '~', 0, 'said',"
            " 'msgpack', x'a178')"
        )
    return path


# --- the invariants ---------------------------------------------------------------------------


def live_rows(dsn: str, schema: str = "public") -> Rows:
    """Every live row; none where the tables are not there yet."""
    try:
        return rows(dsn, schema)
    except psycopg.errors.UndefinedTable:
        return NO_ROWS


@dataclass
class Trial:
    """A run that faults are let loose on, and what must hold after each of them.

    `expected` is what a run without a fault leaves live; `before` is what was live at first.
    """

    database: Database
    source: Path
    exports: Path
    expected: Rows
    params: dict[str, Any] = field(default_factory=dict)
    run_id: str = "trial"
    max_export_tasks: int = 1
    before: Rows = field(init=False)

    def __post_init__(self) -> None:
        self.before = live_rows(self.database.dsn)
        self._folder = listing(self.source.parent)
        self.migration = self.another(self.run_id)
        self.errors: list[MigrationError] = []

    def another(self, run_id: str, **params: Any) -> Migration:
        """A run with the trial's source, target and folder."""
        return Migration(
            self.database.dsn,
            self.source,
            self.exports,
            {"batch_size": BATCH_SIZE, **self.params, **params},
            run_id=run_id,
            max_export_tasks=self.max_export_tasks,
        )

    def through(self, dsn: str) -> Migration:
        """The same run over another way to the server."""
        return replace(self.migration, dsn=dsn)

    @contextlib.contextmanager
    def fails(self, kind: type[MigrationError], *, transient: bool | None = None) -> Iterator[None]:
        """The block raises this failure, and everything that must hold after a fault does."""
        try:
            yield
        except kind as error:
            self.holds(error)
            assert transient is None or error.transient is transient, error
        else:
            raise AssertionError(f"no {kind.__name__}")

    def holds(self, error: MigrationError | None = None) -> None:
        """Assert what holds after every fault, before the last try."""
        assert listing(self.source.parent) == self._folder, "the source's folder changed"
        self.live()
        self.nothing_left_outside()
        if error is not None:
            self.errors.append(error)
            assert all(part.strip() for part in (error.what, error.safe, error.next)), error
        self.nothing_told()

    def live(self) -> str:
        """Which of the only two states the live tables are in: `before` or `after`."""
        now = live_rows(self.database.dsn)
        assert now in (self.before, self.expected), "live is neither as before nor as after"
        return "after" if now == self.expected else "before"

    def nothing_left_outside(self) -> None:
        """Nothing lies anywhere but in the run's folder, its staging and the ledger."""
        schemas = {
            name
            for (name,) in self.database.rows(
                "SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema)'"
            )
        }
        ours = {"public", "checkpoint_migration", self.migration.run.settings.staging_schema}
        assert schemas <= ours
        tables = {
            name
            for (name,) in self.database.rows(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
            )
        }
        assert tables <= {*TABLES, "checkpoint_migrations"}
        if self.exports.exists():
            assert {p.name for p in self.exports.iterdir()} <= {self.migration.folder.name}

    def nothing_told(self) -> None:
        """No secret and no value stands in an error, a log, a step's record or a report."""
        told = [str(e) + repr(e.facts) for e in self.errors] + self.migration.log
        folder = self.migration.folder
        if folder.exists():
            told += [
                path.read_text()
                for path in folder.rglob("*")
                if path.suffix in (".json", ".html") and not path.is_symlink()
            ]
        password = str(conninfo_to_dict(self.database.dsn).get("password") or "\0")
        for text in told:
            assert CANARY not in text
            assert password not in text

    def last_try(self) -> dict[str, Any]:
        """With the fault gone the same run ends as one that never met it."""
        report = self.migration.all()
        self.concluded(report)
        return report

    def go_on(self, exports: list[Export] | None = None, *, load: bool = False) -> dict[str, Any]:
        """As Airflow goes on: from the task that failed, and with what the ones before handed on."""
        try:
            if exports is not None:
                if load:
                    self.migration.load(exports)
                self.migration.verify(exports)
            self.migration.promote()
            self.migration.witness()
        finally:
            report = self.migration.conclude()
        self.concluded(report)
        return report

    def concluded(self, report: dict[str, Any]) -> None:
        self.holds()
        assert report["succeeded"] is (report["verdict"] == "identical")
        assert report["verdict"] == "identical", report["error"]
        assert self.live() == "after"
        left = {"report.html", "report.json"}
        assert {p.name for p in self.migration.folder.iterdir()} == left
        assert staging_schemas(self.database) == []


def staging_schemas(database: Database) -> list[str]:
    found = database.rows(
        "SELECT nspname FROM pg_namespace WHERE nspname ~ '^checkpoint_migration_'"
    )
    return [name for (name,) in found]


def staged_rows(database: Database, migration: Migration) -> int:
    """How many rows the run's staging holds, in all three tables."""
    return sum(map(len, rows(database.dsn, migration.run.settings.staging_schema).values()))


def receipts(database: Database) -> list[tuple[Any, ...]]:
    return database.rows(
        "SELECT run_key, shard, batch, checkpoints, writes, blobs FROM checkpoint_migration.batches"
        " ORDER BY 1, 2, 3"
    )


def wait_for_a_lock(database: Database, seconds: float = 10) -> None:
    """Wait until somebody waits for a lock."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        waiting = "SELECT 1 FROM pg_locks JOIN pg_database d ON d.oid = database WHERE NOT granted"
        waiting += " AND datname = current_database() UNION ALL SELECT 1 FROM pg_stat_activity"
        waiting += " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        if database.rows(waiting):
            return
        time.sleep(0.02)


# --- processes that are killed ----------------------------------------------------------------

_children = multiprocessing.get_context("forkserver")
_children.set_forkserver_preload([__name__])


class Child:
    """Work in a process of its own; a failure of the engine comes back as `error`."""

    def __init__(self, work: Callable[..., Any], *args: Any) -> None:
        self._answers, answer = _children.Pipe(duplex=False)
        self._process = _children.Process(target=_work, args=(answer, work, args), daemon=True)
        self._process.start()
        answer.close()
        self.error: MigrationError | None = None
        self.result: Any = None

    def kill(self) -> None:
        self._process.kill()

    @property
    def exitcode(self) -> int | None:
        return self._process.exitcode

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def wait(self, seconds: float = 60) -> int:
        """The exit code: 0, or the number of the signal that ended it, negative."""
        try:
            if self._answers.poll(seconds):
                self.result, self.error = self._answers.recv()
        except EOFError:
            pass
        self._process.join(seconds)
        assert self._process.exitcode is not None, "the child hangs"
        return self._process.exitcode


def _work(answer: Any, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
        answer.send((work(*args), None))
    except MigrationError as error:
        answer.send((None, error))


def killed(work: Callable[..., Any], *args: Any) -> bool:
    """Run work that is to be killed; whether it was, rather than having ended before."""
    child = Child(work, *args)
    code = child.wait()
    assert child.error is None, child.error
    assert code in (0, -signal.SIGKILL, -signal.SIGXFSZ), code
    return code != 0


def promote_killed_at_exchange(migration: Migration, number: int, sent: bool) -> None:
    """Promote, dying at the `number`-th exchange with the server: before it, or once it is sent.

    Every statement is an exchange, BEGIN and COMMIT as well.
    """
    die_at_exchange(number, sent)
    promote_staged(migration.connect, migration.run.settings)


def die_at_exchange(number: int, sent: bool) -> None:
    """Have this process die at its `number`-th exchange with a server from now on."""
    real, seen = psycopg.Connection.wait, 0

    def wait(self: Any, exchange: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == number:
            if sent:
                next(exchange, None)  # psycopg's generators send, and then yield to be woken
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, exchange, *args, **kwargs)

    psycopg.Connection.wait = wait  # type: ignore[method-assign]


def step_killed_at_byte(migration: Migration, step: str, args: tuple[Any, ...], limit: int) -> None:
    """Run a step that the kernel kills once a file of it would be longer than `limit` bytes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    run_step(migration, step, args)


def export_by_file_with_files_limited(migration: Migration, limit: int) -> Any:
    """An export that keeps nothing in memory, so that its version book lies in a file."""
    places.KEPT_BYTES = 0
    return step_with_files_limited(migration, "export_one", (), limit)


def step_with_files_limited(
    migration: Migration, step: str, args: tuple[Any, ...], limit: int
) -> None:
    """Run a step whose files cannot grow beyond `limit` bytes: writing on fails with EFBIG."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    run_step(migration, step, args)


def run_step(migration: Migration, step: str, args: tuple[Any, ...] = ()) -> Any:
    return getattr(migration, step)(*args)


def plan(migration: Migration) -> tuple[list[Export], list[engine.Load]]:
    """Go on to the point where the first batch is to be loaded."""
    migration.check()
    migration.freeze()
    exports = migration.export()
    return exports, engine.plan_batches(migration.run, exports)


def load_one(migration: Migration, load: engine.Load) -> list[engine.Receipt]:
    return engine.load_batch(migration.run, load)


# --- a network that misbehaves ----------------------------------------------------------------

PROMOTING = b"SET state = 'promoted'"  # the last statement before promote's COMMIT
TO_SERVER, TO_CLIENT = "to server", "to client"


class Link:
    """One connection through the proxy, with all that each side has sent."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self._sockets = {TO_SERVER: server, TO_CLIENT: client}
        self.seen = {TO_SERVER: bytearray(), TO_CLIENT: bytearray()}
        self.hung = False

    def forward(self, way: str, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self._sockets[way].sendall(data)

    def cut(self) -> None:
        """Reset both ends, as a dead router or a killed peer does."""
        self.hung = True
        for each in self._sockets.values():
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.shutdown(
                    socket.SHUT_RD
                )  # wakes who reads; the reset comes with the last close
            each.close()

    def drop(self) -> None:
        """End both ends in good order, as a server or a balancer that shuts down does."""
        self.hung = True
        for each in self._sockets.values():
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self, way: str) -> None:
        """One side ended: let the other know."""
        with contextlib.suppress(OSError):
            self._sockets[way].shutdown(socket.SHUT_WR)


Rule = Callable[[Link, str, bytes], "bytes | None"]
"""What of the data to pass on; None: the rule has dealt with it."""


class Proxy:
    """A TCP proxy in front of a server. `rule` sees each piece of data before it is passed on."""

    def __init__(self, dsn: str) -> None:
        parts = conninfo_to_dict(dsn)
        self._to = (str(parts.get("host") or "127.0.0.1"), int(parts.get("port") or 5432))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.dsn = make_conninfo(
            dsn, host="127.0.0.1", port=self.port, sslmode="disable", gssencmode="disable"
        )
        self.rule: Rule = lambda link, way, data: data
        self.links: list[Link] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for link in self.links:
            link.cut()

    def cut_all(self) -> None:
        for link in self.links:
            link.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._to)
            except OSError:
                client.close()
                continue
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = Link(client, server)
            self.links.append(link)
            for way, from_ in ((TO_SERVER, client), (TO_CLIENT, server)):
                threading.Thread(target=self._pass, args=(link, way, from_), daemon=True).start()

    def _pass(self, link: Link, way: str, from_: socket.socket) -> None:
        while True:
            try:
                data = from_.recv(1 << 16)
            except OSError:
                data = b""
            if not data:
                if not link.hung:
                    link.close(way)
                return
            passed = self.rule(link, way, data)
            link.seen[way] += data
            if passed and not link.hung:
                link.forward(way, passed)


class Once:
    """A rule that acts once, when what the client has sent on a link comes to a certain point.

    With `word`: when the link brings it, `sent` deciding whether the server still gets it. With
    `after`, links count only from the point where that word was sent; with `bytes_`, the point is
    so many bytes after it.
    """

    def __init__(
        self,
        act: Callable[[Link], None],
        *,
        after: bytes = b"",
        word: bytes = b"",
        bytes_: int = 0,
        sent: bool = True,
    ) -> None:
        self._act, self._after, self._word, self._bytes = act, after, word, bytes_
        self._sent = sent
        self.done = threading.Event()
        self.finished = threading.Event()

    def __call__(self, link: Link, way: str, data: bytes) -> bytes | None:
        if way == TO_CLIENT or self.done.is_set():
            return data
        stream = bytes(link.seen[TO_SERVER]) + data
        start = stream.find(self._after)
        if start < 0:
            return data
        if self._word:
            found = stream.find(self._word, start)
            if found < 0:
                return data
            passed = data if self._sent else b""
        else:
            point = start + self._bytes
            if len(stream) < point:
                return data
            passed = data[: max(0, point - len(link.seen[TO_SERVER]))]
        self.done.set()
        link.forward(TO_SERVER, passed)
        self._act(link)
        self.finished.set()
        return None


class LoseAnswer:
    """A rule that lets a COMMIT through, loses the answer to it, and cuts the connection."""

    def __init__(self, *, after: bytes, act: Callable[[Link], None] = Link.cut) -> None:
        self._after, self._act = after, act
        self._link: Link | None = None
        self.done = threading.Event()
        self.finished = threading.Event()

    def __call__(self, link: Link, way: str, data: bytes) -> bytes | None:
        if self.done.is_set():
            return data
        if way == TO_SERVER and self._link is None:
            stream = bytes(link.seen[TO_SERVER]) + data
            start = stream.find(self._after)
            if start >= 0 and stream.find(b"COMMIT\0", start) >= 0:
                self._link = link
            return data
        if way == TO_CLIENT and link is self._link:
            self.done.set()
            self._act(link)
            self.finished.set()
            return None
        return data


def hang(link: Link) -> None:
    """Nothing passes any more, and no end learns of it."""
    link.hung = True


class Before:
    """A rule that lets something happen right before the server gets what holds `word`, once."""

    def __init__(self, word: bytes, act: Callable[[], None]) -> None:
        self._word, self._act = word, act
        self.done = threading.Event()

    def __call__(self, link: Link, way: str, data: bytes) -> bytes | None:
        if way == TO_SERVER and not self.done.is_set() and self._word in data:
            self.done.set()
            self._act()
        return data
