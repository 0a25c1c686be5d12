"""Writes a SQLite database as `SqliteSaver` would, of any size, quickly; for benchmarks and load tests."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver

MESSAGE = "The quick brown fox jumps over the lazy dog. "


def write_history(path: Path, *, threads: int, checkpoints: int, messages: int = 40) -> None:
    """Write `checkpoints` over `threads`, of about `messages` × 0.2 KB each, with two writes each.

    Rows are what the real serializer gives and the real `setup()` makes the tables; only the
    INSERTs are in bulk.
    """
    serde = JsonPlusSerializer()
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA synchronous = OFF")
        SqliteSaver(conn).setup()
        each, more = divmod(checkpoints, threads)
        for thread in range(threads):
            _write_thread(conn, serde, f"user-{thread:06}", each + (thread < more), messages)
        conn.commit()


def _write_thread(
    conn: sqlite3.Connection, serde: JsonPlusSerializer, thread: str, steps: int, messages: int
) -> None:
    parent = None
    for step in range(steps):
        checkpoint_id = f"1f000000-{step:04x}-6000-8000-{hash_of(thread, step):012x}"
        version = f"{step + 1:032}.0.{hash_of(thread, step) % 10**16:016}"
        before = f"{step:032}.0.{hash_of(thread, step - 1) % 10**16:016}"
        values = {
            "messages": [
                {"role": "user", "content": f"{thread} {step} {n} " + MESSAGE * 4}
                for n in range(step % messages, step % messages + messages)
            ],
            "step": step,
            "profile": {"name": thread, "score": step / 7},
        }
        checkpoint = {
            "v": 4,
            "ts": "2026-01-01T00:00:00+00:00",
            "id": checkpoint_id,
            "channel_values": values,
            "channel_versions": {
                "messages": version,
                "step": version,
                "profile": version,
            },
            "versions_seen": {"__input__": {}, "agent": {"messages": before}},
            "updated_channels": ["messages", "step"],
        }
        kind, blob = serde.dumps_typed(checkpoint)
        metadata = b'{"source": "loop", "step": %d, "parents": {}}' % step
        conn.execute(
            "INSERT INTO checkpoints VALUES (?, '', ?, ?, ?, ?, ?)",
            (thread, checkpoint_id, parent, kind, blob, metadata),
        )
        conn.executemany(
            "INSERT INTO writes VALUES (?, '', ?, ?, '~__pregel_pull, agent', ?, ?, ?, ?)",
            [
                (thread, checkpoint_id, f"task-{step}", n, channel, *serde.dumps_typed(value))
                for n, (channel, value) in enumerate(
                    (("messages", values["messages"][-1:]), ("step", step))
                )
            ],
        )
        parent = checkpoint_id


def hash_of(thread: str, step: int) -> int:
    """A number of 48 bits that the same thread and step always have."""
    return int.from_bytes(hashlib.sha256(f"{thread}/{step}".encode()).digest()[:6])
