"""The comparison of both sides: each planted difference is found, and what the application did is none."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt
from psycopg import sql
from psycopg.rows import dict_row

from include.checkpoint_migration.readback.read_back import ReadBack
from include.checkpoint_migration.settings import ThreadFilter
from tests.support.postgres import Database
from tests.support.readbacks import (
    FIXTURES,
    TABLES,
    TODAY,
    State,
    graph,
    load,
    look,
    set_up,
    written,
)

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
