"""The read-back through both savers: equal where it is equal, each planted difference found."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypedDict

import msgspec
import ormsgpack
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt
from psycopg import sql
from psycopg.rows import dict_row

from include.checkpoint_migration.errors import TargetUnreachable
from include.checkpoint_migration.readback import equality as same
from include.checkpoint_migration.readback import read_back
from include.checkpoint_migration.readback.equality import first_difference
from include.checkpoint_migration.readback.older import edges_of
from include.checkpoint_migration.readback.raw_serializer import Opaque, RawSerializer
from include.checkpoint_migration.readback.read_back import ReadBack
from include.checkpoint_migration.readback.rules import sanitize, tuple_differences
from include.checkpoint_migration.settings import ThreadFilter
from tests.support.postgres import Database, TestServer

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
TODAY = "checkpoint-sqlite-3.1.2.sqlite"
NOT_SPLIT = ("encrypted", "pickle")
TABLES = ("checkpoint_blobs", "checkpoints", "checkpoint_writes")


# --- a loader of its own: the read-back is tested without the code that it is to watch --------


def load(source: Path, conn: psycopg.Connection[Any]) -> set[str]:
    """Write a source's rows as PostgresSaver reads them; returns the threads that it leaves out.

    Those hold what is neither msgpack nor JSON, or metadata for which JSONB has no place.
    """
    with closing(sqlite3.connect(f"file:{source}?immutable=1", uri=True)) as rows:
        left_out = {
            row[0]
            for row in rows.execute("SELECT thread_id, type, checkpoint, metadata FROM checkpoints")
            if not has_a_place(*row[1:])
        }
        owners: dict[Any, bytes | None] = {}
        for row in rows.execute(
            "SELECT thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type,"
            " checkpoint, metadata FROM checkpoints ORDER BY 1, 2, 3"
        ):
            if row[0] not in left_out:
                _load_one(conn, row, owners)
        columns = [r[1] for r in rows.execute("PRAGMA table_info(writes)")]
        path = "task_path" if "task_path" in columns else "''"
        for write in rows.execute(
            "SELECT thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, value,"
            f" {path} FROM writes"
        ):
            conn.execute(
                "INSERT INTO checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id,"
                " idx, channel, type, blob, task_path)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
                write,
            )
    conn.commit()
    return left_out


def has_a_place(kind: str, checkpoint: bytes, metadata: bytes) -> bool:
    try:
        decoder(kind)(checkpoint, type=dict[str, msgspec.Raw])
        msgspec.json.decode(metadata)
    except (KeyError, msgspec.DecodeError):
        return False
    return b"\\u0000" not in metadata


def decoder(kind: str) -> Callable[..., Any]:
    return {"msgpack": msgspec.msgpack.decode, "json": msgspec.json.decode}[kind]


def _load_one(conn: psycopg.Connection[Any], row: Any, owners: dict[Any, bytes | None]) -> None:
    decode = decoder(row[4])
    parts = decode(row[5], type=dict[str, msgspec.Raw])
    values = decode(parts.pop("channel_values"), type=dict[str, msgspec.Raw])
    sends = parts.pop("pending_sends", None)
    envelope = {key: decode(raw) for key, raw in parts.items()}
    versions = envelope["channel_versions"]
    if sends is not None and decode(sends):
        values["__pregel_tasks"] = sends
        versions["__pregel_tasks"] = max(versions.values())
    elif sends is not None:
        envelope["pending_sends"] = []
    inline = {c: decode(raw) for c, raw in values.items() if c not in versions}
    renamed = {}
    for channel, version in versions.items():
        raw = values.get(channel)
        content = None if raw is None or bytes(raw) in (b"\xc3", b"true") else bytes(raw)
        if content is None and raw is not None:
            inline[channel] = True
        if owners.setdefault((*row[:2], channel, version), content) != content:
            digits = int.from_bytes(hashlib.sha256(content or b"").digest()[:8])
            renamed[channel] = (version, f"{version}.{digits}")
        if content is not None:
            conn.execute(
                "INSERT INTO checkpoint_blobs VALUES (%s, %s, %s, %s, %s, %s)"
                " ON CONFLICT DO NOTHING",
                (*row[:2], channel, str(renamed.get(channel, (0, version))[1]), row[4], content),
            )
    for mapping in (versions, *envelope["versions_seen"].values()):
        for channel, (old, new) in renamed.items():
            if mapping.get(channel) == old:
                mapping[channel] = new
    conn.execute(
        "INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id,"
        " checkpoint, metadata) VALUES (%s, %s, %s, %s, %s, %s)",
        (*row[:4], json.dumps(envelope | {"channel_values": inline}), row[6].decode()),
    )


def set_up(conn: psycopg.Connection[Any]) -> None:
    conn.autocommit = True
    PostgresSaver(conn).setup()  # type: ignore[arg-type]


def without(threads: Iterable[str]) -> ThreadFilter:
    return ThreadFilter(tuple(f"!{thread}" for thread in sorted(threads)))


def look(
    source: Path, connect: Callable[[], psycopg.Connection[Any]], schema: str = "public", **how: Any
) -> ReadBack:
    taken = how.pop("taken", without(NOT_SPLIT))
    return read_back(source, connect, schema, taken, **{"seed": "test", **how})


@pytest.fixture(scope="module")
def loaded(postgres_server: TestServer) -> Iterator[Database]:
    """Today's sample, live in `public`; tests copy it into schemas of their own."""
    with postgres_server.database() as database:
        with database.connect() as conn:
            set_up(conn)
            load(FIXTURES / TODAY, conn)
        yield database


@pytest.fixture
def copy(loaded: Database) -> Iterator[str]:
    """A schema with a copy of the live rows, to be spoilt."""
    with loaded.connect() as conn:
        conn.execute("CREATE SCHEMA spoilt")
        for table in TABLES:
            conn.execute(
                f"CREATE TABLE spoilt.{table} (LIKE public.{table} INCLUDING ALL)".encode()
            )
            conn.execute(f"INSERT INTO spoilt.{table} SELECT * FROM public.{table}".encode())
    yield "spoilt"
    loaded.execute("DROP SCHEMA spoilt CASCADE")


# --- equal ------------------------------------------------------------------------------------


def test_a_migrated_sample_reads_back_equal(loaded: Database, tmp_path: Path) -> None:
    """Every kind of value of today's release reads back equal, and the source is not changed."""
    source = Path(shutil.copy(FIXTURES / TODAY, tmp_path))
    source.chmod(0o400)
    before = source.read_bytes(), source.stat().st_mtime_ns
    result = look(source, loaded.connect)
    assert (result.found, result.unread) == (0, 0)
    assert result.threads == 31
    assert result.checkpoints == 136
    assert (source.read_bytes(), source.stat().st_mtime_ns) == before
    assert [path.name for path in tmp_path.iterdir()] == [TODAY]


@pytest.mark.parametrize(
    "name",
    [
        "checkpoint-sqlite-2.0.6.sqlite",
        "checkpoint-sqlite-1.0.4.sqlite",
        "js-checkpoint-sqlite-1.0.4.sqlite",
    ],
)
def test_older_layouts_read_back_equal(database: Database, tmp_path: Path, name: str) -> None:
    """Databases without task_path, with pending sends, JSON or integer versions read back equal."""
    source = Path(shutil.copy(FIXTURES / name, tmp_path))
    with database.connect() as conn:
        set_up(conn)
        # Of these PostgresSaver rebuilds the sends in another order: they had to be renamed.
        left_out = load(source, conn) | {f"sends_many{n}" for n in range(4)}
        counting = "SELECT count(*) FROM checkpoints WHERE thread_id NOT LIKE 'sends_many_'"
        (live,) = conn.execute(counting).fetchone() or (0,)
    result = look(source, database.connect, taken=without(left_out))
    assert result.differences == ()
    assert result.unread == 0
    assert result.checkpoints == live > 40


def test_sends_that_the_reader_rebuilds_are_read_too(database: Database, tmp_path: Path) -> None:
    """Where PostgresSaver repacks the sends of `v < 4` itself, the result is compared like any."""
    source = Path(shutil.copy(FIXTURES / "checkpoint-sqlite-2.0.6.sqlite", tmp_path))
    taken = ThreadFilter(("sends",))
    with database.connect() as conn:
        set_up(conn)
        load(source, conn)
        conn.execute(
            "DELETE FROM checkpoint_blobs WHERE thread_id = 'sends' AND channel = '__pregel_tasks'"
        )
        conn.execute(
            "UPDATE checkpoints SET checkpoint = checkpoint #- '{channel_versions,__pregel_tasks}'"
            " WHERE thread_id = 'sends'"
        )
    assert look(source, database.connect, taken=taken).differences == ()
    database.execute(
        "UPDATE checkpoint_writes SET idx = 99 WHERE thread_id = 'sends'"
        " AND channel = '__pregel_tasks' AND idx = (SELECT min(idx) FROM checkpoint_writes"
        " WHERE thread_id = 'sends' AND channel = '__pregel_tasks')"
    )
    assert look(source, database.connect, taken=taken).found


def test_threads_not_taken_are_not_looked_at(loaded: Database) -> None:
    """What the filter leaves out is neither compared nor counted, live or not."""
    result = look(FIXTURES / TODAY, loaded.connect, taken=ThreadFilter(("types", "s*", "!sends*")))
    assert result.threads == 5
    assert result.found == 0


def test_the_same_seed_draws_the_same_sample(loaded: Database, copy: str) -> None:
    """What is found depends on the rows and the seed alone; another seed looks elsewhere."""
    loaded.execute(f"UPDATE {copy}.checkpoints SET metadata = metadata || '{{\"step\": 77}}'")

    def found(seed: str) -> ReadBack:
        return look(FIXTURES / TODAY, loaded.connect, copy, seed=seed, sample=3)

    one = found("a")
    assert one == found("a")
    assert {one.differences, found("b").differences, found("c").differences} != {one.differences}
    assert one.checkpoints == 32 + 3


def test_differences_are_counted_beyond_those_that_are_listed(loaded: Database, copy: str) -> None:
    """The list is bounded, the count is exact, and neither shows a value."""
    loaded.execute(f'UPDATE {copy}.checkpoints SET metadata = \'{{"step": "leaked-value"}}\'')
    result = look(FIXTURES / TODAY, loaded.connect, copy, most_differences=5)
    assert len(result.differences) == 5
    assert result.found > 100
    assert "leaked-value" not in repr(result)


# --- planted differences, all of them with equal counts ---------------------------------------

SPOILT = {
    "a value's bytes": """
        UPDATE checkpoint_blobs SET blob = '\\x15' WHERE thread_id = 'simple' AND blob = '\\x14'""",
    "an int for a float": """
        UPDATE checkpoint_blobs SET blob = '\\xcb3ff0000000000000'
        WHERE thread_id = 'simple' AND blob = '\\x01'""",
    "a sign": """
        UPDATE checkpoint_blobs SET blob = replace(blob::text, '8000000000000000',
        '0000000000000000')::bytea WHERE thread_id = 'negzero' AND channel <> '__start__'""",
    "a blob's type": """
        UPDATE checkpoint_blobs SET type = 'bytes' WHERE thread_id = 'simple' AND channel = 'n'""",
    "a blob that is empty": """
        UPDATE checkpoint_blobs SET type = 'empty', blob = NULL
        WHERE thread_id = 'simple' AND channel = 'log'""",
    "bytes for a bytearray": """
        UPDATE checkpoint_writes SET type = 'bytes' WHERE type = 'bytearray'""",
    "an ext's name of a class": """
        UPDATE checkpoint_blobs SET blob = replace(blob::text, encode('SCol', 'hex'),
        encode('XCol', 'hex'))::bytea WHERE thread_id = 'strenum'""",
    "channels swapped": """
        UPDATE checkpoint_blobs a SET type = b.type, blob = b.blob FROM checkpoint_blobs b
        WHERE a.thread_id = 'simple' AND a.channel IN ('log', 'n') AND b.channel IN ('log', 'n')
        AND (b.thread_id, b.version) = (a.thread_id, a.version) AND a.channel <> b.channel""",
    "a channel renamed": """
        UPDATE checkpoint_blobs SET channel = 'log2'
        WHERE thread_id = 'simple' AND channel = 'log' AND version LIKE '%08.%'""",
    "a blob's version": """
        UPDATE checkpoint_blobs SET version = version || '1'
        WHERE thread_id = 'simple' AND channel = 'log' AND version LIKE '%08.%'""",
    "a checkpoint pointing at another version": """
        UPDATE checkpoints SET checkpoint = jsonb_set(checkpoint, '{channel_versions,log}',
        to_jsonb((SELECT min(version) FROM checkpoint_blobs
        WHERE thread_id = 'simple' AND channel = 'log'))) WHERE thread_id = 'simple'""",
    "a version lost": """
        UPDATE checkpoints SET checkpoint = checkpoint #- '{channel_versions,n}'
        WHERE thread_id = 'simple'""",
    "versions_seen of another version": """
        UPDATE checkpoints SET checkpoint = jsonb_set(checkpoint, '{versions_seen,a,branch:to:a}',
        '"00000000000000000000000000000001.5"') WHERE checkpoint -> 'versions_seen' ? 'a'""",
    "a node that has seen nothing": """
        UPDATE checkpoints SET checkpoint = checkpoint #- '{versions_seen,a}'""",
    "an inline value added": """
        UPDATE checkpoints SET checkpoint = jsonb_set(checkpoint, '{channel_values,ghost}', '1')
        WHERE thread_id = 'simple'""",
    "updated_channels": """
        UPDATE checkpoints SET checkpoint = checkpoint || '{"updated_channels": []}'""",
    "a time": """
        UPDATE checkpoints SET checkpoint = checkpoint || '{"ts": "2020-01-01T00:00:00+00:00"}'
        WHERE thread_id = 'simple'""",
    "a key lost from the envelope": """
        UPDATE checkpoints SET checkpoint = checkpoint - 'updated_channels'""",
    "no parent": """
        UPDATE checkpoints SET parent_checkpoint_id = NULL WHERE thread_id = 'forked'""",
    "each its own parent": """
        UPDATE checkpoints SET parent_checkpoint_id = checkpoint_id WHERE thread_id = 'forked'""",
    "a number in the metadata": """
        UPDATE checkpoints SET metadata = metadata || '{"step": 5}' WHERE thread_id = 'meta'""",
    "a key lost from the metadata": """
        UPDATE checkpoints SET metadata = metadata - 'parents'""",
    "true for one in the metadata": """
        UPDATE checkpoints SET metadata = metadata || '{"step": true}'
        WHERE thread_id = 'simple' AND metadata -> 'step' = '1'""",
    "a checkpoint's id": """
        UPDATE checkpoints SET checkpoint_id = checkpoint_id || '0'
        WHERE thread_id = 'simple' AND metadata -> 'step' = '0'""",
    "a checkpoint of another namespace": """
        UPDATE checkpoints SET checkpoint_ns = 'inner'
        WHERE thread_id = 'subgraph' AND checkpoint_ns <> ''""",
    "threads swapped": """
        UPDATE checkpoints SET thread_id = CASE thread_id WHEN 'bytes' THEN 'nul' ELSE 'bytes' END
        WHERE thread_id IN ('bytes', 'nul')""",
    "a write's value": """
        UPDATE checkpoint_writes SET blob = '\\xa1', type = 'bytes'
        WHERE channel = '__interrupt__'""",
    "a write's channel": """
        UPDATE checkpoint_writes SET channel = 'x' WHERE thread_id = 'simple' AND channel = 'n'""",
    "a write's task": """
        UPDATE checkpoint_writes SET task_id = 'somebody' WHERE thread_id = 'interrupted'""",
    "the order of a task's writes": """
        UPDATE checkpoint_writes SET idx = 100 - idx WHERE thread_id = 'sends'""",
    "a write of another checkpoint": """
        UPDATE checkpoint_writes w SET checkpoint_id = (SELECT min(checkpoint_id) FROM checkpoints
        WHERE thread_id = w.thread_id) WHERE thread_id = 'interrupted'""",
    "a null that is a value": """
        UPDATE checkpoint_writes SET type = 'bytes' WHERE type = 'null'""",
    "a write of a delta channel": """
        UPDATE checkpoint_writes SET blob = '\\x91a178' WHERE thread_id = 'delta'
        AND channel = 'items' AND checkpoint_id = (SELECT min(checkpoint_id) FROM checkpoint_writes
        WHERE thread_id = 'delta')""",
}


TOUCHED = (
    *("simple", "negzero", "bytearray", "strenum", "forked", "meta", "subgraph", "bytes", "nul"),
    *("interrupted", "sends", "delta", "dyn"),
)


@pytest.mark.parametrize("name", SPOILT)
def test_a_planted_difference_is_found(loaded: Database, copy: str, name: str) -> None:
    """Each change that leaves every count as it was is found by the read-back."""

    def counts() -> list[Any]:
        return [loaded.rows(f"SELECT count(*) FROM {copy}.{table}") for table in TABLES]

    def digests() -> list[Any]:
        rows = "SELECT md5(string_agg(t::text, ' ' ORDER BY t::text))"
        return [loaded.rows(f"{rows} FROM {copy}.{table} t") for table in TABLES]

    before = counts(), digests()
    with loaded.connect() as conn:
        conn.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(copy)))
        conn.execute(SPOILT[name].encode())
    assert counts() == before[0]
    assert digests() != before[1]
    result = look(FIXTURES / TODAY, loaded.connect, copy, taken=ThreadFilter(TOUCHED))
    assert result.found
    assert result.differences


def test_what_the_reader_cannot_read_is_a_difference(loaded: Database, copy: str) -> None:
    """Rows on which PostgresSaver itself fails, in Python or in the server, are all named."""
    with loaded.connect() as conn:
        conn.execute(
            f"UPDATE {copy}.checkpoint_writes SET type = NULL WHERE thread_id = 'simple'".encode()
        )
        conn.execute(
            f"UPDATE {copy}.checkpoint_blobs SET type = '\\' WHERE thread_id = 'types'".encode()
        )
    result = look(FIXTURES / TODAY, loaded.connect, copy)
    assert {d.thread_id for d in result.differences} == {"simple", "types"}
    assert all("raises" in d.why for d in result.differences)


# --- what is not a difference -----------------------------------------------------------------


class State(TypedDict):
    log: list[str]


def graph(saver: Any) -> Any:
    builder = StateGraph(State)
    builder.add_node("step", lambda state: {"log": [*state["log"], "step"]})
    builder.add_edge(START, "step")
    builder.add_edge("step", END)
    return builder.compile(checkpointer=saver)


def written(path: Path, threads: int = 3, rounds: int = 3) -> Path:
    with closing(sqlite3.connect(path, check_same_thread=False)) as conn:
        app = graph(SqliteSaver(conn))
        for thread in range(threads):
            for _ in range(rounds):
                app.invoke({"log": ["in"]}, {"configurable": {"thread_id": f"t{thread}"}})
        conn.execute("PRAGMA journal_mode = DELETE")
    return path


def test_an_application_that_went_on_is_no_difference(database: Database, tmp_path: Path) -> None:
    """Checkpoints that the application adds on PostgreSQL are passed over, however it is read."""
    source = written(tmp_path / "app.sqlite")
    with database.connect(row_factory=dict_row) as conn:
        set_up(conn)
        load(source, conn)
        app = graph(PostgresSaver(conn))
        for _ in range(10):
            app.invoke({"log": ["on"]}, {"configurable": {"thread_id": "t1"}})
        app.invoke({"log": ["new"]}, {"configurable": {"thread_id": "another"}})
    result = look(source, database.connect)
    assert result == ReadBack(threads=3, checkpoints=27, found=0, differences=(), unread=0)


def test_a_thread_that_was_resumed_is_no_difference(database: Database, tmp_path: Path) -> None:
    """Resuming adds writes to a migrated checkpoint: they are the application's, the others stay."""

    def asking(saver: Any) -> Any:
        builder = StateGraph(State)
        builder.add_node("ask", lambda state: {"log": [*state["log"], interrupt("?")]})
        builder.add_edge(START, "ask")
        return builder.compile(checkpointer=saver)

    path = tmp_path / "asked.sqlite"
    config: Any = {"configurable": {"thread_id": "asked"}}
    with closing(sqlite3.connect(path, check_same_thread=False)) as conn:
        asking(SqliteSaver(conn)).invoke({"log": []}, config)
        conn.execute("PRAGMA journal_mode = DELETE")
    with database.connect(row_factory=dict_row) as live:
        set_up(live)
        load(path, live)
        before = live.execute("SELECT max(checkpoint_id) AS id FROM checkpoints").fetchone()
        asking(PostgresSaver(live)).invoke(Command(resume="yes"), config)
        latest = before["id"] if before else None
        writes = "SELECT count(*) FROM checkpoint_writes WHERE checkpoint_id = %s"
        assert database.rows(writes, latest)[0][0] > 1
    assert look(path, database.connect).differences == ()
    database.execute("UPDATE checkpoint_writes SET blob = '\\x90' WHERE channel = '__interrupt__'")
    assert look(path, database.connect).found


def test_checkpoints_that_the_application_removed_are_no_difference(
    database: Database, tmp_path: Path
) -> None:
    """A thread pruned on PostgreSQL is fine where the ledger says so, else a difference."""
    source = written(tmp_path / "app.sqlite")
    with database.connect(row_factory=dict_row) as conn:
        set_up(conn)
        load(source, conn)
        PostgresSaver(conn).prune(["t1"], strategy="keep_latest")
        PostgresSaver(conn).delete_thread("t2")
        live = {r["checkpoint_id"] for r in conn.execute("SELECT checkpoint_id FROM checkpoints")}

    def removed(thread_id: str, checkpoint_ns: str, checkpoint_id: str) -> bool:
        return thread_id in ("t1", "t2") and checkpoint_id not in live

    assert look(source, database.connect, removed=removed).differences == ()
    untold = look(source, database.connect)
    assert {d.thread_id for d in untold.differences} == {"t1", "t2"}


def test_another_latest_checkpoint_is_a_difference(loaded: Database, copy: str) -> None:
    """Where the application would go on from another checkpoint than before, that is said."""
    loaded.execute(
        f"UPDATE {copy}.checkpoints SET checkpoint_id = '0' || checkpoint_id WHERE thread_id ="
        " 'meta' AND checkpoint_id = (SELECT max(checkpoint_id) FROM public.checkpoints"
        " WHERE thread_id = 'meta')"
    )
    result = look(FIXTURES / TODAY, loaded.connect, copy)
    whys = " ".join(d.why for d in result.differences)
    assert {d.thread_id for d in result.differences} == {"meta"}
    assert "takes another checkpoint for the latest one" in whys
    assert "it is not there" in whys


def test_a_broken_connection_is_not_taken_for_a_difference(loaded: Database) -> None:
    """A connection that ends during the read-back is a transient error, no verdict."""

    def connect() -> psycopg.Connection[Any]:
        conn = loaded.connect()
        loaded.rows("SELECT pg_terminate_backend(%s)", conn.info.backend_pid)
        return conn

    with pytest.raises(TargetUnreachable):
        look(FIXTURES / TODAY, connect)


# --- nothing is revived -----------------------------------------------------------------------


class Trap:
    """Unpickling this would leave a file behind."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path(os.environ["CANARY"]),))


def test_nothing_that_a_database_names_is_imported_or_run(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a msgpack ext nor JSON nor a pickle brings a class to life, on either side."""
    canary = tmp_path / "canary"
    monkeypatch.setenv("CANARY", str(canary))
    (tmp_path / "canary_module.py").write_text(f"open({str(canary)!r}, 'w')\nclass C: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    ext = ormsgpack.packb(
        [
            ormsgpack.Ext(code, ormsgpack.packb(["canary_module", "C", arg, "model_validate"]))
            for code, arg in ((0, 1), (1, []), (2, {}), (3, 1), (4, {}), (5, {}))
        ]
    )
    source = written(tmp_path / "app.sqlite", threads=1, rounds=1)
    envelope = json.dumps({"lc": 2, "type": "constructor", "id": ["canary_module", "C"]}).encode()
    writes = [("msgpack", ext), ("json", envelope), ("pickle", pickle.dumps(Trap()))]
    with closing(sqlite3.connect(source)) as conn:
        (key,) = conn.execute("SELECT max(checkpoint_id) FROM checkpoints").fetchone()
        conn.executemany(
            "INSERT INTO writes VALUES ('t0', '', ?, 'task', '', ?, 'c', ?, ?)",
            [(key, idx, *write) for idx, write in enumerate(writes)],
        )
        conn.execute(
            "UPDATE checkpoints SET checkpoint = ? WHERE checkpoint_id = ?",
            (_with_channel(conn, key, "c", ext), key),
        )
        conn.commit()
    with database.connect() as live:
        set_up(live)
        load(source, live)
    result = look(source, database.connect)
    assert (result.found, result.unread) == (0, 0)
    database.execute("UPDATE checkpoint_writes SET blob = blob || '\\x00' WHERE type = 'pickle'")
    assert look(source, database.connect).found
    assert not canary.exists()
    assert "canary_module" not in sys.modules


def _with_channel(conn: sqlite3.Connection, key: str, channel: str, raw: bytes) -> bytes:
    (blob,) = conn.execute(
        "SELECT checkpoint FROM checkpoints WHERE checkpoint_id = ?", (key,)
    ).fetchone()
    parts = msgspec.msgpack.decode(blob, type=dict[str, msgspec.Raw])
    values = msgspec.msgpack.decode(parts["channel_values"], type=dict[str, msgspec.Raw])
    versions = msgspec.msgpack.decode(parts["channel_versions"])
    values[channel] = msgspec.Raw(raw)
    versions[channel] = "00000000000000000000000000000009.0.5"
    parts["channel_values"] = msgspec.Raw(msgspec.msgpack.encode(values))
    parts["channel_versions"] = msgspec.Raw(msgspec.msgpack.encode(versions))
    return msgspec.msgpack.encode(parts)


def test_checkpoints_that_stay_opaque_are_counted_as_unread(loaded: Database) -> None:
    """Of pickled and encrypted checkpoints nothing is claimed: they are counted, not passed."""
    result = look(FIXTURES / TODAY, loaded.connect, taken=ThreadFilter(NOT_SPLIT))
    assert result.unread >= 7
    assert result.checkpoints == 0


def test_encrypted_values_are_compared_by_what_they_decrypt_to() -> None:
    """With the key, a value under a cipher is the plain value; without it, its bytes."""
    plain = ormsgpack.packb({"a": [1, 2.0]})

    def decrypt(kind: str, data: bytes) -> bytes:
        assert kind == "msgpack+aes"
        return data[::-1]

    serde = RawSerializer(decrypt)
    assert serde.loads_typed(("msgpack+aes", plain[::-1])) == {"a": [1, 2.0]}
    assert RawSerializer().loads_typed(("msgpack+aes", plain)) == Opaque("msgpack+aes", plain)


# --- strict equality --------------------------------------------------------------------------

NAN = float("nan")
DIFFERENT = [
    (1, True),
    (1, 1.0),
    (0.0, -0.0),
    (1e20, 10**20),
    ("1", b"1"),
    (b"1", bytearray(b"1")),
    ([1], (1,)),
    (None, False),
    ([], {}),
    ([1, 2], [2, 1]),
    ([1], [1, 1]),
    ({"a": 1}, {"a": 2}),
    ({"a": 1}, {"b": 1}),
    ({1: "x"}, {True: "x"}),
    ({1: "x"}, {"1": "x"}),
    ({1.0: "x"}, {1: "x"}),
    (NAN, 0.0),
    (Opaque("ext 5", b"x"), Opaque("ext 0", b"x")),
    (Opaque("ext 5", b"x"), b"x"),
    ("e\u0301", "\u00e9"),
]


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_what_python_takes_for_equal_is_told_apart(a: Any, b: Any) -> None:
    """Types, signs, order and keys count, at the top and however deep, both ways."""
    for left, right in ((a, b), (b, a)):
        assert not same(left, right)
        assert not same([{"x": [left]}], [{"x": [right]}])


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (1, 1.0, True),
        (1e20, 10**20, True),
        (1e23, 10**23, True),
        (1.7976931348623157e308, 17976931348623157 * 10**292, True),
        (1.0, 10**400, False),
        (-0.0, 0, True),
        (1, True, False),
        (1, 2.0, False),
        ({"a": [1.0]}, {"a": [1]}, True),
        (0.1, 0.1000001, False),
        ("1", 1, False),
    ],
)
def test_by_value_numbers_are_what_jsonb_keeps(a: Any, b: Any, equal: bool) -> None:
    """By value, numbers are equal whatever their spelling, and nothing else is relaxed."""
    assert same(a, b, by_value=True) is equal
    assert same(b, a, by_value=True) is equal


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=10,
)


@given(VALUES)
def test_a_value_is_the_same_as_its_copy_through_msgpack(value: Any) -> None:
    """Equality holds for every value that a serializer brings back, NaN and -0.0 among them."""
    try:
        raw = ormsgpack.packb(value, option=ormsgpack.OPT_NON_STR_KEYS)
    except ormsgpack.MsgpackEncodeError:
        return  # integers beyond 64 bits, surrogates
    serde = RawSerializer()
    assert same(serde.loads_typed(("msgpack", raw)), serde.loads_typed(("msgpack", raw)))
    assert same(value, serde.loads_typed(("msgpack", raw)))


FEW = st.recursive(
    st.sampled_from([None, False, True, 0, 1, 0.0, -0.0, 1.0, NAN, "", "1", b"", b"1"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from([0, 1, True, 1.0, "1"]), inner, max_size=2)
    ),
    max_leaves=3,
)


@given(FEW, FEW)
def test_equality_is_as_strict_as_the_bytes(a: Any, b: Any) -> None:
    """Of values that are often alike, those are the same that Python spells the same."""
    assert same(a, b) is (spelled(a) == spelled(b))


def spelled(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(sorted(f"{k!r}:{spelled(v)}" for k, v in value.items())) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(spelled, value)) + "]"
    return repr(value)


def test_a_difference_names_its_place_and_no_value() -> None:
    """The place is a path of positions: no key and no value of a database shows in it."""
    a = {"name": ["x", {"mail": "ann@example.org", "n": [1, 2, 3]}]}
    b = {"name": ["x", {"mail": "ann@example.org", "n": [1, 2, 4]}]}
    assert first_difference(a, b) == "{0}[1]{1}[2] has another value"
    assert first_difference(1, "1") == "it is of another type"
    assert first_difference([NAN], [NAN]) is None


def test_nesting_deeper_than_pythons_stack_is_compared() -> None:
    """Depth costs memory, not stack."""
    a: Any = 1
    b: Any = 2
    for _ in range(20_000):
        a, b = [a], [b]
    where = first_difference(a, b)
    assert where is not None
    assert where.startswith("[0][0]")
    assert len(where) < 100


# --- the rules between the layouts ------------------------------------------------------------


def pair(before: dict[str, Any], after: dict[str, Any], **metadata: Any) -> list[Any]:
    def made(changes: dict[str, Any], meta: Any) -> CheckpointTuple:
        checkpoint = {
            "v": 4,
            "id": "1",
            "channel_values": {},
            "channel_versions": {},
            "versions_seen": {},
            **changes,
        }
        return CheckpointTuple({}, checkpoint, meta, None, [])  # type: ignore[arg-type]

    left = made(before, metadata.get("before", {}))
    return list(tuple_differences(left, made(after, metadata.get("after", {}))))


def versions(version: Any, seen: Any, channel: str = "c") -> dict[str, Any]:
    return {
        "channel_values": {channel: "x"},
        "channel_versions": {channel: version},
        "versions_seen": {"node": {channel: seen}},
    }


PLAIN = "00000000000000000000000000000003.0.4132930725790481"
PADDED = "00000000000000000000000000000003.00000000000000.0"


@pytest.mark.parametrize(
    ("before", "after", "equal"),
    [
        ((PLAIN, PLAIN), (PLAIN, PLAIN), True),
        ((PLAIN, PLAIN), (PLAIN + ".0123", PLAIN + ".0123"), True),
        ((PLAIN, PLAIN), (PLAIN + ".0123", PLAIN), False),
        ((PLAIN, PLAIN), (PLAIN, PLAIN + ".0123"), False),
        ((PLAIN, "older"), (PLAIN + ".0123", "older"), True),
        ((PLAIN, "older"), (PLAIN + ".0123", PLAIN + ".0123"), False),
        ((PLAIN, PLAIN), (PLAIN + "x", PLAIN + "x"), False),
        ((PLAIN, PLAIN), (PLAIN + ".12a", PLAIN + ".12a"), False),
        ((PLAIN, PLAIN), (PLAIN + ".", PLAIN + "."), False),
        ((3, 2), (3, 2), True),
        ((3, 3), (PADDED, PADDED), True),
        ((3, 3), (PADDED, 3), False),
        ((3, 3), ("3", "3"), False),
        ((3, 3), (PADDED + ".77", PADDED + ".77"), True),
        ((3, 2), (4, 2), False),
        ((1, 1), (True, True), False),
    ],
)
def test_versions_may_be_renamed_in_one_way_only(before: Any, after: Any, equal: bool) -> None:
    """A version stays, gains a point and digits, or is padded; versions_seen follows its equal."""
    assert (pair(versions(*before), versions(*after)) == []) is equal


def test_pending_sends_of_old_checkpoints_become_a_channels_value() -> None:
    """`v` below 4 with pending sends is the same as 4 with them as the channel's value."""
    before = {**versions(PLAIN, PLAIN), "v": 3, "pending_sends": ["send"]}
    after = versions(PLAIN, PLAIN)
    after["channel_values"]["__pregel_tasks"] = ["send"]
    after["channel_versions"]["__pregel_tasks"] = PLAIN
    assert pair(before, after) == []
    assert pair(before, versions(PLAIN, PLAIN))
    after["channel_values"]["__pregel_tasks"] = ["send", "send"]
    assert pair(before, after)
    assert pair({"v": 4}, {"v": 3})
    assert pair({"v": 4, "pending_sends": ["send"]}, {"v": 4})


def old(**changes: Any) -> dict[str, Any]:
    """A checkpoint of `v` 1 with channels of the names that StateGraph gave them then."""
    made = {
        "v": 1,
        "channel_values": {"log": ["in"], "start:a": "__start__", "b": "b", "branch:a:to:c": "a"},
        "channel_versions": {"log": "1", "start:a": "2", "b": "3", "branch:a:to:c": "4"},
        "versions_seen": {
            "a": {"start:a": "2"},
            "b": {"start:a": "1"},
            "c": {"b": "2", "branch:a:to:c": "1"},
            "__interrupt__": {"start:a": "2", "b": "2"},
        },
    }
    return {**made, **changes}


def upgraded_by_langgraph() -> dict[str, Any]:
    """The same as today's StateGraph stores it after loading it."""

    def node(state: Any) -> Any:
        return state

    builder: Any = StateGraph(dict)
    for name in "abc":
        builder.add_node(name, node)
    for edge in ((START, "a"), ("b", "c"), ("c", END), ("a", END)):
        builder.add_edge(*edge)
    checkpoint = json.loads(json.dumps(old()))
    builder.compile()._migrate_checkpoint(checkpoint)
    return {**checkpoint, "v": 4}


def old_pair(before: dict[str, Any], after: dict[str, Any]) -> list[Any]:
    left = CheckpointTuple({}, before, {}, None, [])  # type: ignore[arg-type]
    right = CheckpointTuple({}, after, {}, None, [])  # type: ignore[arg-type]
    edges = edges_of([before["versions_seen"]])
    return list(tuple_differences(left, right, edges=lambda: edges))


def test_channels_of_old_names_are_held_against_langgraphs_own_renaming() -> None:
    """Stored as `v` 4, an old checkpoint must be what StateGraph makes of it; below it is as it was."""
    new = upgraded_by_langgraph()
    assert set(new["channel_versions"]) == {"log", "branch:to:a", "branch:to:c"}
    assert old_pair(old(), new) == []
    assert old_pair(old(), old()) == []
    assert old_pair(old(), old(v=4)), "the old names would no longer be understood"
    for spoil in (
        lambda c: c["channel_versions"].update({"branch:to:a": "1"}),
        lambda c: c["channel_versions"].pop("branch:to:c"),
        lambda c: c["channel_values"].pop("branch:to:a"),
        lambda c: c["versions_seen"]["c"].pop("branch:to:c"),
        lambda c: c["versions_seen"]["__interrupt__"].update({"start:a": "2"}),
        lambda c: c["channel_values"].update({"log": ["out"]}),
    ):
        spoilt = json.loads(json.dumps(new))
        spoil(spoilt)
        assert old_pair(old(), spoilt)


def test_a_channel_of_a_node_that_leads_nowhere_must_go() -> None:
    """Where no later node is known of, a node's channel goes, as it does when StateGraph loads it."""
    before = old()
    before["versions_seen"]["c"].pop("b")
    after = {
        "v": 4,
        "channel_values": {"log": ["in"], "branch:to:a": "__start__", "branch:to:c": "a"},
        "channel_versions": {"branch:to:a": "2", "branch:to:c": "4", "log": "1"},
        "versions_seen": {
            "a": {"branch:to:a": "2"},
            "b": {"start:a": "1"},
            "c": {"branch:to:c": "1"},
            "__interrupt__": {"branch:to:a": "2"},
        },
    }
    assert old_pair(before, after) == []
    left = json.loads(json.dumps(after))
    left["channel_versions"]["b"], left["channel_values"]["b"] = "3", "b"
    assert old_pair(before, left)


def test_sanitized_metadata_is_held_against_its_sanitized_source() -> None:
    """What sanitising drops is no difference when it was asked for, and one when it was not."""
    before = {"a\0": ["\0x\ud800", float("inf"), NAN, 1.5], "n": None}
    assert sanitize(before) == {"a": ["x\ufffd", None, None, 1.5], "n": None}
    left = CheckpointTuple({}, _empty(), before, None, [])  # type: ignore[arg-type]
    right = CheckpointTuple({}, _empty(), sanitize(before), None, [])  # type: ignore[arg-type]
    assert list(tuple_differences(left, right, sanitized=True)) == []
    assert list(tuple_differences(left, right))


def _empty() -> dict[str, Any]:
    return {"v": 4, "channel_values": {}, "channel_versions": {}, "versions_seen": {}}
