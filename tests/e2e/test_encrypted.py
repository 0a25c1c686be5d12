"""Encrypted threads stay encrypted: opened with the application's key, sealed again, read as before."""

from __future__ import annotations

import base64
import operator
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
import zstandard
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from include.checkpoint_migration.errors import KeyNeeded
from tests.support.engine import Migration, rows
from tests.support.graphs import alike, config_of, outcome, shown
from tests.support.postgres import Database, TestServer
from tests.support.readers import (
    differences,
    keys_of,
    order_differences,
    postgres_side,
    sqlite_side,
    write_rows,
)
from tests.support.sqlite_sources import listing

RELEASES = ("3.1.2", "2.0.6")
THREADS = {"asking", "answered", *(f"encrypted by {release}" for release in RELEASES)}
FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
KEY = b"0123456789abcdef"
EMPTY = {"checkpoints": [], "checkpoint_blobs": [], "checkpoint_writes": []}
HIDDEN_TEXT, HIDDEN_NUMBER, HIDDEN_FLOAT = "patient-zero", 918273645, 0.918273645
HIDDEN = [HIDDEN_TEXT, str(HIDDEN_NUMBER), str(HIDDEN_FLOAT), "in-a-list", "an-answer"]


def sealing(key: bytes = KEY) -> EncryptedSerializer:
    return EncryptedSerializer.from_pycryptodome_aes(key=key)


# --- an application of our own, beside the fixtures --------------------------------------------


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    name: str
    number: int
    ratio: float
    nothing: None
    yes: bool


def build(saver: Any) -> Any:
    """A graph that keeps plain values of every kind at the top of its state, and asks."""

    def note(state: State) -> State:
        return {"log": ["in-a-list"], "number": state["number"] + 0, "nothing": None, "yes": True}

    def ask(state: State) -> State:
        return {"log": [interrupt({"about": state["name"]})]}

    builder = StateGraph(State)
    builder.add_node("note", note)
    builder.add_node("ask", ask)
    builder.add_edge(START, "note")
    builder.add_edge("note", "ask")
    builder.add_edge("ask", END)
    return builder.compile(checkpointer=saver)


def begin(path: Path) -> None:
    with SqliteSaver.from_conn_string(str(path)) as saver:
        saver.serde = sealing()
        graph = build(saver)
        first = {"name": HIDDEN_TEXT, "number": HIDDEN_NUMBER, "ratio": HIDDEN_FLOAT}
        for thread in ("asking", "answered"):
            graph.invoke(first, config_of(thread))
        graph.invoke(Command(resume="an-answer"), config_of("answered"))


def add_fixture(path: Path, release: str) -> None:
    """Add a release's encrypted thread, under a name of its own."""
    with closing(sqlite3.connect(path.as_uri(), uri=True)) as conn:
        fixture = (FIXTURES / f"checkpoint-sqlite-{release}.sqlite").as_uri()
        conn.execute("ATTACH ? AS f", (f"{fixture}?immutable=1",))
        for table, columns in (
            ("checkpoints", "parent_checkpoint_id, type, checkpoint, metadata"),
            ("writes", "task_id, idx, channel, type, value"),
        ):
            columns = f"checkpoint_ns, checkpoint_id, {columns}"
            conn.execute(
                f"INSERT INTO {table} (thread_id, {columns}) SELECT ?, {columns} FROM f.{table}"
                " WHERE thread_id = 'encrypted'",
                (f"encrypted by {release}",),
            )
        conn.commit()


@dataclass(frozen=True)
class Moved:
    """A migrated database. `source` may be opened by `SqliteSaver`; the runs keep their files."""

    source: Path
    dsn: str
    first: Migration
    again: Migration
    reports: list[dict[str, Any]]


@pytest.fixture(scope="module")
def moved(postgres_server: TestServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moved]:
    """Encrypted threads of three releases, migrated with the key and then once more."""
    folder = tmp_path_factory.mktemp("encrypted")
    source, copy = folder / "source.sqlite", folder / "copy.sqlite"
    begin(source)
    for release in RELEASES:
        add_fixture(source, release)
    shutil.copyfile(source, copy)
    params = {"keep_exports": True}
    with postgres_server.database() as target:
        runs = [
            Migration(target.dsn, source, folder / name, params, aes_key=KEY, max_export_tasks=2)
            for name in ("first", "again")
        ]
        yield Moved(copy, target.dsn, *runs, [run.all() for run in runs])


def test_every_checkpoint_reads_equal_with_the_key(moved: Moved) -> None:
    """Both savers, given the application's serializer, read the same checkpoints and writes."""
    keys = keys_of(moved.source)
    assert {key[0] for key in keys} == THREADS
    assert moved.reports[0]["verdict"] == "identical"
    assert moved.reports[0]["counts"]["checkpoints"]["live"] == len(keys)
    with (
        sqlite_side(moved.source, sealing()) as before,
        postgres_side(moved.dsn, sealing()) as after,
    ):
        assert differences(before, after, keys) == []
        assert order_differences(before, after, keys) == []


def test_a_second_run_writes_the_same_bytes(moved: Moved) -> None:
    """The second run finds every row identical, because sealing a value again repeats exactly."""
    assert moved.reports[1]["verdict"] == "identical"
    promoted = next(line for line in moved.again.log if line.startswith("promoted"))
    checkpoints = moved.reports[0]["counts"]["checkpoints"]["live"]
    assert promoted.startswith(f"promoted: 0 checkpoints new, {checkpoints} found identical")
    assert moved.reports[1]["counts"]["blobs"] == moved.reports[0]["counts"]["blobs"]
    exports = [sorted(run.folder.glob("*.jsonl.zst")) for run in (moved.first, moved.again)]
    assert [p.read_bytes() for p in exports[0]] == [p.read_bytes() for p in exports[1]] != []


def test_no_value_lies_inline_but_true(moved: Moved) -> None:
    """In JSONB no channel has a value, primitives included; blobs are ciphertext by their type."""
    live = rows(moved.dsn)
    assert {row[4] for row in live["checkpoint_blobs"]} == {"msgpack+aes"}
    with closing(moved.first.connect()) as conn:
        inline = conn.execute(
            "SELECT DISTINCT v FROM checkpoints,"
            " jsonb_each_text(checkpoint -> 'channel_values') AS e(k, v)"
        ).fetchall()
    assert inline == [("true",)]  # of the channel `yes`


def test_writes_stay_the_same_ciphertext(moved: Moved) -> None:
    """A pending write is copied without being opened."""
    expected = write_rows(moved.source)
    found = [(*row[:8], bytes(row[8])) for row in rows(moved.dsn)["checkpoint_writes"]]
    assert sorted(found) == expected
    assert {row[7].partition("+")[2] for row in expected} == {"aes"}


def test_the_key_is_in_no_file_log_report_or_table(moved: Moved) -> None:
    """Neither raw nor in hex or base64, in anything that the run left."""
    spelled = [KEY, KEY.hex().encode(), base64.b64encode(KEY)[:-2]]
    left = [path for path in moved.first.exports.rglob("*") if path.is_file()]
    assert {"report.json", "report.html", "0000.jsonl.zst", "0000.manifest.json", "plan.json"} <= {
        path.name for path in left
    }
    contents = [unpacked(path) for path in left]
    contents.append("\n".join(moved.first.log).encode())
    contents.append(repr(moved.first.run).encode())
    contents += ledger(moved)
    assert not [content for content in contents for key in spelled if key in content]


def ledger(moved: Moved) -> list[bytes]:
    """Every table of the migration's own schema, as text."""
    with closing(moved.first.connect()) as conn:
        tables = conn.execute(
            "SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace"
            " WHERE nspname = 'checkpoint_migration' AND relkind = 'r'"
        ).fetchall()
        assert tables
        return [
            repr(
                conn.execute(f"SELECT t::text FROM checkpoint_migration.{t} t").fetchall()
            ).encode()
            for (t,) in tables
        ]


def unpacked(path: Path) -> bytes:
    """The bytes of a file; of an export file both the lines and what their base64 holds."""
    data = path.read_bytes()
    if path.suffix != ".zst":
        return data
    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
        lines = reader.read()
    assert lines
    parts = [lines]
    for piece in lines.split(b'"'):
        if len(piece) % 4 == 0:
            try:
                parts.append(base64.b64decode(piece, validate=True))
            except ValueError:
                continue
    return b"\n".join(parts)


def test_the_state_is_in_clear_nowhere(moved: Moved) -> None:
    """No text or number of the state stands in a live table, an export file or a report."""
    live = repr(rows(moved.dsn)).encode()
    left = [unpacked(path) for path in moved.first.exports.rglob("*") if path.is_file()]
    for content in (live, *left, *ledger(moved), "\n".join(moved.first.log).encode()):
        assert not [value for value in HIDDEN if value.encode() in content]


def test_the_report_says_what_the_next_put_will_do(moved: Moved) -> None:
    """It warns, with the threads, that the application's own next put stores primitives in clear."""
    (warning,) = [w for w in moved.reports[0]["warnings"] if w["kind"] == "encrypted"]
    assert warning["count"] == moved.reports[0]["counts"]["checkpoints"]["live"]
    assert set(warning["threads"]) == THREADS
    assert "unencrypted" in warning["message"]


# --- going on ----------------------------------------------------------------------------------


def test_encrypted_threads_go_on(database: Database, tmp_path: Path) -> None:
    """After each of three further steps PostgreSQL shows what the thread that stayed shows."""
    source, stayed = tmp_path / "source.sqlite", tmp_path / "stayed.sqlite"
    begin(source)
    shutil.copyfile(source, stayed)
    assert Migration(database.dsn, source, tmp_path / "e", aes_key=KEY).all()["succeeded"]
    with (
        closing(sqlite3.connect(stayed, check_same_thread=False)) as conn,
        PostgresSaver.from_conn_string(database.dsn) as moved_saver,
    ):
        stayed_saver = SqliteSaver(conn, serde=sealing())
        moved_saver.serde = sealing()
        before, after = build(stayed_saver), build(moved_saver)
        for thread in ("asking", "answered"):
            config = config_of(thread)
            assert shown(after, config) == shown(before, config)
            for step in (Command(resume="yes"), {"name": "b", "number": 5}, Command(resume=1.5)):
                expected = outcome(lambda: before.invoke(step, config))  # noqa: B023
                assert outcome(lambda: after.invoke(step, config)) == expected  # noqa: B023
                assert alike(shown(after, config)) == alike(shown(before, config))


def test_an_application_that_began_to_encrypt_is_caught_up_with(
    database: Database, tmp_path: Path
) -> None:
    """What it wrote in clear is found live again, though the same thread goes on sealed."""
    source, params = tmp_path / "source.sqlite", {"keep_exports": True}
    first = {"name": HIDDEN_TEXT, "number": HIDDEN_NUMBER, "ratio": HIDDEN_FLOAT}
    with SqliteSaver.from_conn_string(str(source)) as saver:
        build(saver).invoke(first, config_of("both"))
    one = Migration(database.dsn, source, tmp_path / "e", params).all()
    before = rows(database.dsn)
    with SqliteSaver.from_conn_string(str(source)) as saver:
        saver.serde = sealing()
        build(saver).invoke(Command(resume="an-answer"), config_of("both"))
    two = Migration(database.dsn, source, tmp_path / "e", params, aes_key=KEY).all()
    assert (one["verdict"], two["verdict"]) == ("identical", "identical")
    after = rows(database.dsn)
    for table, known in before.items():
        assert [row for row in after[table] if row in known] == known
    assert {row[4] for row in after["checkpoint_blobs"]} >= {"msgpack", "msgpack+aes"}


# --- without the key ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (None, "no key was given"),
        (b"fedcba9876543210", "does not open with the key"),
        (KEY + b"01234567", "does not open with the key"),
        (b"short", "is not 16, 24 or 32 bytes long"),
        (KEY + b"\n", "is not 16, 24 or 32 bytes long"),
    ],
    ids=["none", "wrong", "longer", "short", "with a newline"],
)
def test_without_the_right_key_nothing_is_loaded(
    database: Database, tmp_path: Path, key: bytes | None, says: str
) -> None:
    """The run ends with `KeyNeeded`, which says why and shows no key; no row is live or staged."""
    source = tmp_path / "application" / "source.sqlite"
    source.parent.mkdir()
    shutil.copyfile(FIXTURES / "checkpoint-sqlite-3.1.2.sqlite", source)
    before = listing(source.parent)
    params = {"threads": ["encrypted", "simple"]}
    migration = Migration(
        database.dsn, source, tmp_path / "exports", params, max_export_tasks=1, aes_key=key
    )
    with pytest.raises(KeyNeeded, match=says) as raised:
        migration.all()
    assert not raised.value.transient
    report = migration.report
    assert (report["verdict"], report["succeeded"]) == ("unproven", False)
    assert report["error"] == raised.value.as_dict()
    assert "aes_conn_id" in raised.value.next or "LANGGRAPH_AES_KEY" in raised.value.next
    assert rows(database.dsn) == EMPTY
    assert database.rows("SELECT 1 FROM pg_namespace WHERE nspname ~ 'migration_[0-9a-f]{8}'") == []
    assert listing(source.parent) == before
    if key is not None:
        everything = [p.read_bytes() for p in migration.exports.rglob("*") if p.is_file()]
        everything += [str(raised.value).encode(), "\n".join(migration.log).encode()]
        assert not [part for part in everything if key in part]


def test_threads_in_clear_need_no_key(database: Database, tmp_path: Path) -> None:
    """Without the encrypted threads the rest migrates, and no key is asked for."""
    source = tmp_path / "source.sqlite"
    shutil.copyfile(FIXTURES / "checkpoint-sqlite-3.1.2.sqlite", source)
    params = {"threads": ["s*", "!encrypted"]}
    report = Migration(database.dsn, source, tmp_path / "e", params, max_export_tasks=2).all()
    assert report["verdict"] == "identical"
    assert "encrypted" not in {warning["kind"] for warning in report["warnings"]}
