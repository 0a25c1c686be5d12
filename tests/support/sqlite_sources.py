"""Databases for tests of the source, what their folders look like, and readers of another uid."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import sqlite3
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from include.checkpoint_migration.task_sizes import TaskSizes

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
OWNER, WORKER = 1234, 65534  # neither of them root, and not each other
IS_ROOT = os.geteuid() == 0


class State(TypedDict):
    log: list[str]


def run_graph(saver: Any, thread: str, steps: int = 1) -> None:
    """Have a real graph leave its checkpoints and pending writes in the saver."""
    builder = StateGraph(State)
    builder.add_node("step", lambda state: {"log": [*state["log"], "stepped"]})
    builder.add_edge(START, "step")
    builder.add_edge("step", END)
    graph = builder.compile(checkpointer=saver)
    for _ in range(steps):
        graph.invoke({"log": ["in"]}, {"configurable": {"thread_id": thread}})


def saved(path: Path, *threads: str) -> Path:
    """A closed database, written by the real `SqliteSaver` and a real graph."""
    with SqliteSaver.from_conn_string(str(path)) as saver:
        saver.setup()
        for thread in threads:
            run_graph(saver, thread)
    return path


def empty(path: Path) -> sqlite3.Connection:
    """An open database with the real saver's tables in rollback mode, for rows made by hand."""
    conn = sqlite3.connect(path, isolation_level=None)
    SqliteSaver(conn).setup()
    conn.execute("PRAGMA journal_mode=DELETE")
    conn.execute("PRAGMA synchronous=OFF")
    return conn


def add_checkpoint(
    conn: sqlite3.Connection, thread: Any, ns: Any = "", id: Any = "1", blob: bytes = b"\x80"
) -> None:
    conn.execute(
        "INSERT INTO checkpoints VALUES (?, ?, ?, NULL, 'msgpack', ?, x'7b7d')",
        (thread, ns, id, blob),
    )


def add_write(
    conn: sqlite3.Connection, thread: Any, id: Any = "1", task: Any = "t", idx: Any = 0
) -> None:
    conn.execute(
        "INSERT INTO writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type,"
        " value) VALUES (?, '', ?, ?, ?, 'c', 'msgpack', x'01')",
        (thread, id, task, idx),
    )


def listing(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Every entry of a folder with owner, mode and content (of a -shm too)."""
    entries = {}
    for entry in sorted(folder.iterdir()):
        found = entry.lstat()
        digest = hashlib.sha256(entry.read_bytes()).hexdigest() if entry.is_file() else ""
        entries[entry.name] = (found.st_uid, found.st_gid, oct(found.st_mode), digest)
    return entries


def names(folder: Path) -> dict[str, int]:
    """Every entry of a folder with its owner alone, for folders that somebody writes meanwhile."""
    owners = {}
    for entry in sorted(folder.iterdir()):
        with suppress(FileNotFoundError):
            owners[entry.name] = entry.lstat().st_uid
    return owners


@contextmanager
def open_folder(owner: int | None = None, mode: int = 0o755) -> Iterator[Path]:
    """A folder that other users reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="source-of-"))
    try:
        if owner is not None and IS_ROOT:
            os.chown(folder, owner, owner)
        folder.chmod(mode)
        yield folder
    finally:
        shutil.rmtree(folder)


def fork() -> int:
    with warnings.catch_warnings():  # idle threads of a graph's executor do no harm here
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def as_user(uid: int, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function in a process of its own, as `uid` if we are root.

    An exception comes back as a value.
    """
    reading, writing = os.pipe()
    child = fork()
    if child == 0:  # imports are done: another user may not reach the interpreter's files
        try:
            if uid != os.geteuid() and IS_ROOT:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
            try:
                result = call(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - the caller looks at it
                result = error
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump(result, pipe)
        except BaseException:  # noqa: BLE001 - the parent says that the reader died
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    assert answer, f"the reader died ({status})"
    return pickle.loads(answer)


def rows_of(path: Path, table: str = "checkpoints") -> int:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as conn:
        return int(conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def even(shards: int) -> TaskSizes:
    """A thread for each shard up to so many, and so many even shards beyond, however little there is."""
    return TaskSizes(
        threads_alone=shards, fewest_shards=shards, shard_bytes_at_least=1, max_export_tasks=shards
    )
