"""Whatever an application called its threads: paths, SQL and reports are unharmed, or it is refused by name."""

from __future__ import annotations

import json
import random
import sqlite3
import string
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from include.checkpoint_migration.errors import (
    Blocked,
    MigrationError,
    SettingsInvalid,
    SourceHasNoTables,
    SourceUnreadable,
)
from tests.support.engine import Migration
from tests.support.faults import CANARY, NO_ROWS, THREADS, grow, live_rows
from tests.support.postgres import Database
from tests.support.sqlite_sources import listing

HOSTILE = (
    "../../etc/passwd",
    "/etc/passwd",
    "..",
    "a" * 3000,
    "ab" * 5000,
    'it\'s "quoted" `twice`',
    "'; DROP TABLE checkpoints; --",
    "two\nlines\r\nand a\ttab",
    "verdict: identical\nreport: /tmp/forged.json",
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "{{ 7*7 }} {% raw %} ${HOME} $(id)",
    "100% %s %(x)s %%",
    "back\\slash \\x41 \\",
    "\u202egnorw \u0000fffe \U0001f40b é".replace("\u0000", ""),
    "\x1b[31mred\x1b[0m\x7f\x01",
    " ",
    "",
    "*",
    "[a-z]",
    "!not",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "application"
    folder.mkdir()
    return folder


@pytest.fixture
def run(database: Database, tmp_path: Path) -> Callable[..., Migration]:
    def run(source: Path | str, **params: Any) -> Migration:
        return Migration(
            database.dsn, source, tmp_path / "exports", {"batch_size": 5, **params}, run_id="run"
        )

    return run


def refused(migration: Migration, kind: type[MigrationError]) -> MigrationError:
    """The run fails with this failure, which is terminal, says its three things, and is reported."""
    with pytest.raises(kind) as raised:
        migration.all()
    error = raised.value
    assert not error.transient
    assert all((error.what, error.safe, error.next))
    report = migration.report
    assert (report["verdict"], report["succeeded"]) == ("unproven", False)
    assert report["error"] == error.as_dict()
    assert CANARY not in json.dumps(report)
    return error


# --- thread ids -------------------------------------------------------------------------------


@pytest.mark.parametrize("tasks", [64, 3])
def test_hostile_thread_ids_migrate_and_touch_nothing(
    run: Callable[..., Migration], database: Database, folder: Path, tmp_path: Path, tasks: int
) -> None:
    """Every id is live as it was, each file has a name of ours, and the report shows ids escaped."""
    source = folder / "app.sqlite"
    for thread in HOSTILE:
        grow(source, thread)
    before = listing(folder)
    migration = run(source)
    migration.max_export_tasks = tasks
    migration.to_staging()
    allowed = {"source.sqlite", "source.seen.json", "plan.json", "steps"}
    allowed |= {f"{n:04}{end}" for n in range(tasks) for end in (".jsonl.zst", ".manifest.json")}
    assert {path.name for path in migration.folder.iterdir()} <= allowed
    migration.promote()
    migration.witness()
    report = migration.conclude()
    assert report["verdict"] == "identical"
    assert {t["thread_id"] for t in report["threads"]["listed"]} == set(HOSTILE)
    assert {row[0] for row in live_rows(database.dsn)["checkpoints"]} == set(HOSTILE)
    with PostgresSaver.from_conn_string(database.dsn) as saver:
        for thread in HOSTILE:
            found = saver.get_tuple({"configurable": {"thread_id": thread}})
            assert found is not None
            assert found.checkpoint["channel_values"]["notes"] == {"turns": 1, "last": CANARY}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["application", "exports"]
    assert [p.name for p in (tmp_path / "exports").iterdir()] == [migration.folder.name]
    assert listing(folder) == before
    page = (migration.folder / "report.html").read_text()
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert not [line for line in migration.log if "\n" in line or "\x1b" in line]


def test_the_filter_takes_hostile_ids_as_globs_only(
    run: Callable[..., Migration], database: Database, folder: Path
) -> None:
    """A glob is matched, never run: quotes and percent signs in it mean themselves."""
    source = folder / "app.sqlite"
    for thread in HOSTILE:
        grow(source, thread)
    taken = ["'; DROP*", "100%*", "*script>", "!</*"]
    report = run(source, threads=taken).all()
    assert report["verdict"] == "identical"
    found = {row[0] for row in live_rows(database.dsn)["checkpoints"]}
    assert found == {HOSTILE[6], "100% %s %(x)s %%", "<script>alert(1)</script>"}


# --- what PostgreSQL has no place for ---------------------------------------------------------

NUL_PLACES = {
    "checkpoints.thread_id": "thread_id",
    "checkpoints.checkpoint_ns": "checkpoint_ns",
    "checkpoints.checkpoint_id": "checkpoint_id",
    "checkpoints.parent_checkpoint_id": "parent_checkpoint_id",
    "writes.task_id": "task_id",
    "writes.channel": "channel",
    "writes.task_path": "task_path",
    "writes.thread_id": "thread_id",
}


@pytest.mark.parametrize(("place", "named"), NUL_PLACES.items(), ids=NUL_PLACES)
def test_a_nul_in_a_key_blocks_and_is_named(
    run: Callable[..., Migration], database: Database, source: Path, place: str, named: str
) -> None:
    """A text with NUL has no place in PostgreSQL: the run is refused with a list, and live is untouched."""
    table, column = place.split(".")
    with closing(sqlite3.connect(source, isolation_level=None)) as conn:
        changed = conn.execute(
            f"UPDATE {table} SET {column} = {column} || char(0) || 'x' WHERE thread_id = 'bert'"
            f" AND {column} IS NOT NULL"
        ).rowcount
    assert changed
    migration = run(source)
    refused(migration, Blocked)
    blockers = migration.report["blockers"]
    assert {blocker["column"].removeprefix("writes.") for blocker in blockers} == {named}
    assert {blocker["thread_id"].split("\0")[0] for blocker in blockers} == {"bert"}
    assert live_rows(database.dsn) == NO_ROWS
    assert not any("\0" in line for line in migration.log)
    others = replace_params(migration, threads=["!bert*"])
    assert others.all()["verdict"] == "identical"


def replace_params(migration: Migration, **params: Any) -> Migration:
    return Migration(
        migration.dsn,
        migration.source,
        migration.exports,
        {**migration.params, **params},
        run_id=f"{migration.run_id}-again",
    )


def test_all_blockers_are_listed_at_once(run: Callable[..., Migration], source: Path) -> None:
    """One refusal names every row, over all threads."""
    with closing(sqlite3.connect(source, isolation_level=None)) as conn:
        conn.execute("UPDATE checkpoints SET checkpoint_id = checkpoint_id || char(0)")
        (number,) = conn.execute("SELECT count(*) FROM checkpoints").fetchone()
        conn.execute("UPDATE checkpoints SET parent_checkpoint_id = NULL")
    migration = run(source)
    migration.max_export_tasks = 64
    refused(migration, Blocked)
    listed = [b for b in migration.report["blockers"] if b["column"] == "checkpoint_id"]
    assert len(listed) >= number
    assert {b["thread_id"] for b in listed} == set(THREADS)


def test_a_channel_with_a_backslash_blocks(
    run: Callable[..., Migration], database: Database, folder: Path
) -> None:
    """The saver itself cannot read such a channel back from PostgreSQL, so it is refused by name."""
    channel = "path\\to"
    state: Any = TypedDict("state", {channel: list[str]})  # type: ignore[operator]
    builder = StateGraph(state)
    builder.add_node("step", lambda _: {channel: ["x", CANARY]})
    builder.add_edge(START, "step")
    builder.add_edge("step", END)
    source = folder / "app.sqlite"
    with SqliteSaver.from_conn_string(str(source)) as saver:
        graph = builder.compile(checkpointer=saver)
        graph.invoke({channel: ["in"]}, {"configurable": {"thread_id": "windows"}})
    migration = run(source)
    refused(migration, Blocked)
    assert {b["thread_id"] for b in migration.report["blockers"]} == {"windows"}
    assert live_rows(database.dsn) == NO_ROWS


def add_write_only(source: Path, thread: str) -> None:
    """A pending write whose checkpoint is not there."""
    with SqliteSaver.from_conn_string(str(source)) as saver:
        saver.setup()
        saver.conn.execute(
            "INSERT INTO writes (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx,"
            " channel, type, value) VALUES (?, '', 'c', 't', '~', -1, 'x', 'msgpack', x'c0')",
            (thread,),
        )
        saver.conn.commit()


def noise(length: int) -> str:
    """A text that does not compress."""
    return "".join(random.Random(length).choices(string.ascii_letters + string.digits, k=length))


def test_a_key_longer_than_an_index_row_blocks(
    run: Callable[..., Migration], database: Database, folder: Path
) -> None:
    """3 kB that do not compress have no place in the tables' keys; 10 kB that do have one."""
    source = folder / "app.sqlite"
    grow(source, noise(3000))
    grow(source, "spam " * 2000)
    migration = run(source)
    refused(migration, Blocked)
    assert {b["thread_id"] for b in migration.report["blockers"]} == {noise(3000)}
    assert live_rows(database.dsn) == NO_ROWS
    report = replace_params(migration, threads=["spam*"]).all()
    assert report["verdict"] == "identical"


@pytest.mark.parametrize(
    "length",
    [
        2600,
        2683,  # too long for the ledger
        2685,  # too long for staging
        2688,
    ],
)
def test_a_key_at_the_limit_of_an_index_row_migrates_or_blocks(
    run: Callable[..., Migration], folder: Path, length: int
) -> None:
    """Right at the limit there is nothing between a migrated row and a blocker."""
    source = folder / "app.sqlite"
    add_write_only(source, noise(length))
    migration = run(source)
    try:
        report = migration.all()
    except Blocked:
        assert migration.report["blockers"]
    else:
        assert report["verdict"] == "identical"


# --- next to nothing --------------------------------------------------------------------------


def test_an_empty_source_ends_identical_with_zeros(
    run: Callable[..., Migration], database: Database, folder: Path
) -> None:
    """Both tables and no row: there is nothing to do, and that is done."""
    source = folder / "app.sqlite"
    with SqliteSaver.from_conn_string(str(source)) as saver:
        saver.setup()
    report = run(source).all()
    assert (report["verdict"], report["succeeded"]) == ("identical", True)
    sides = {"source": 0, "frozen": 0, "exported": 0, "staged": 0, "live": 0}
    assert report["counts"]["checkpoints"] == report["counts"]["writes"] == sides
    assert report["counts"]["blobs"] == {"exported": 0, "staged": 0, "live": 0}
    assert report["threads"]["total"] == 0
    assert live_rows(database.dsn) == NO_ROWS


@pytest.mark.parametrize("globs", [["nobody"], ["*", "nobody"], ["nobody", "!*"]], ids=str)
def test_a_glob_that_takes_no_thread_is_refused(
    globs: list[str], run: Callable[..., Migration], database: Database, source: Path
) -> None:
    """It is most likely misspelt: a run of nothing, or of less than was meant, is no success."""
    migration = run(source, threads=globs)
    with pytest.raises(SettingsInvalid, match="no thread of the source matches 'nobody'"):
        migration.all()
    assert (migration.report["verdict"], migration.report["succeeded"]) == ("unproven", False)
    assert live_rows(database.dsn) == NO_ROWS


def test_a_glob_that_excludes_no_thread_is_told(
    run: Callable[..., Migration], source: Path
) -> None:
    """Threads that were to be left out may have been taken, and the report says so."""
    report = run(source, threads=["!nobody", "!some[*]"]).all()
    (warning,) = [w for w in report["warnings"] if w["kind"] == "unmatched_globs"]
    assert warning["count"] == 2
    assert "'!nobody'" in warning["message"]


def test_writes_without_a_checkpoint_migrate(
    run: Callable[..., Migration], database: Database, folder: Path
) -> None:
    """Pending writes whose checkpoint is not there are rows as well, even when there is nothing else."""
    source = folder / "app.sqlite"
    add_write_only(source, "lost")
    report = run(source).all()
    assert report["verdict"] == "identical"
    assert live_rows(database.dsn) == {
        **NO_ROWS,
        "checkpoint_writes": [("lost", "", "c", "t", -1, "~", "x", "msgpack", b"\xc0")],
    }


# --- what is no source ------------------------------------------------------------------------


def _text(path: Path) -> None:
    path.write_text("these are notes, and no database")


def _nothing(path: Path) -> None:
    path.write_bytes(b"")


def _other(path: Path) -> None:
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("CREATE TABLE other (x)")


def _half(path: Path) -> None:
    with SqliteSaver.from_conn_string(str(path)) as saver:
        saver.setup()
        saver.conn.execute("DROP TABLE writes")


def _cut(path: Path) -> None:
    for thread in THREADS:
        grow(path, thread)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2 // 4096 * 4096])


def _folder(path: Path) -> None:
    path.mkdir()


NO_SOURCES: dict[str, tuple[Callable[[Path], None], tuple[type[MigrationError], ...]]] = {
    "missing": (lambda path: None, (SourceUnreadable,)),
    "no SQLite": (_text, (SourceUnreadable,)),
    "0 bytes": (_nothing, (SourceHasNoTables,)),
    "without the tables": (_other, (SourceHasNoTables,)),
    "without one table": (_half, (SourceHasNoTables,)),
    "malformed": (_cut, (SourceUnreadable,)),
    "a folder": (_folder, (SourceUnreadable,)),
}


@pytest.mark.parametrize(("make", "kinds"), NO_SOURCES.values(), ids=NO_SOURCES)
def test_what_is_no_source_is_refused_before_the_target_is_touched(
    run: Callable[..., Migration],
    database: Database,
    folder: Path,
    make: Callable[[Path], None],
    kinds: tuple[type[MigrationError], ...],
) -> None:
    """The error has its three parts, and the target has not one schema or table more."""
    source = folder / "app.sqlite"
    make(source)
    before = listing(folder)
    error = refused(run(source), MigrationError)
    assert isinstance(error, kinds)
    assert listing(folder) == before
    assert relations(database) == []


@pytest.mark.parametrize(
    "source", ["app.sqlite", "./app.sqlite", "../app.sqlite", "", "http://x/y"]
)
def test_a_relative_source_is_refused(
    run: Callable[..., Migration], database: Database, source: str
) -> None:
    """What depends on where a worker runs is no source."""
    with pytest.raises(SettingsInvalid) as refusal:
        run(source).check()
    assert all((refusal.value.what, refusal.value.safe, refusal.value.next))
    assert relations(database) == []


def relations(database: Database) -> list[Any]:
    return database.rows(
        "SELECT nspname, relname FROM pg_namespace n LEFT JOIN pg_class c ON relnamespace = n.oid"
        " WHERE nspname !~ '^(pg_|information_schema)' AND (nspname <> 'public' OR relname IS NOT NULL)"
    )
