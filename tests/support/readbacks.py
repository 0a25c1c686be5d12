"""A loader and an application of its own for the read-back: it is tested without the code that it is to watch."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, TypedDict

import msgspec
import psycopg
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph

from include.checkpoint_migration.readback.read_back import ReadBack, read_back
from include.checkpoint_migration.settings import ThreadFilter

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
TODAY = "checkpoint-sqlite-3.1.2.sqlite"
NOT_SPLIT = ("encrypted", "pickle")
TABLES = ("checkpoint_blobs", "checkpoints", "checkpoint_writes")


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
