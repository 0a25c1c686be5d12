"""Writes a SQLite database as `SqliteSaver` would, of any size, quickly; for benchmarks and load tests."""

from __future__ import annotations

import hashlib
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver

MESSAGE = "The quick brown fox jumps over the lazy dog. "
WORDS = (
    "the agent looks up an order and answers that its parcel left the warehouse on monday while the "
    "customer asks again whether the refund for the broken lamp was paid to the card or the account"
).split()
TRIMMED_TO = 24  # messages that a chat agent keeps
CHANGES_EVERY = 20  # steps after which the documents that were found are others


def write_history(path: Path, *, threads: int, checkpoints: int, messages: int = 40) -> None:
    """Write `checkpoints` over `threads`, of about `messages` × 0.2 KB each, with two writes each.

    Rows are what the real serializer gives and the real `setup()` makes the tables; only the
    INSERTs are in bulk.
    """
    _write(path, threads, checkpoints, lambda thread, step: _plain_state(thread, step, messages))


def write_chats(path: Path, *, threads: int, checkpoints: int) -> None:
    """Write what chat agents write: messages that grow and are trimmed, several channels of which most
    do not change from step to step, two pending writes a step. About 10 KB a checkpoint.
    """
    _write(path, threads, checkpoints, _chat_state)


State = dict[str, tuple[Any, int]]
"""The value of each channel, and the step that wrote it last."""


def _plain_state(thread: str, step: int, messages: int) -> State:
    return {
        "messages": (
            [
                {"role": "user", "content": f"{thread} {step} {n} " + MESSAGE * 4}
                for n in range(step % messages, step % messages + messages)
            ],
            step,
        ),
        "step": (step, step),
        "profile": ({"name": thread, "score": step / 7}, step),
    }


def _chat_state(thread: str, step: int) -> State:
    turn = step - step % 2  # a question and its answer are two steps
    first = max(0, step + 1 - TRIMMED_TO)
    found = step - step % CHANGES_EVERY
    return {
        "messages": ([_message(thread, n) for n in range(first, step + 1)], step),
        "documents": ([_words(thread, found, 60 + n) for n in range(5)], found),
        "profile": ({"name": thread, "language": "en", "notes": _words(thread, -1, 40)}, 0),
        "summary": (_words(thread, found + 7, 50), found),
        "turn": (turn, turn),
        "branch:to:agent": (None, step),
    }


def _message(thread: str, number: int) -> Any:
    kind = HumanMessage if number % 2 == 0 else AIMessage
    return kind(content=_words(thread, number, 35), id=f"{hash_of(thread, number):012x}")


def _words(thread: str, seed: int, count: int) -> str:
    return " ".join(random.Random(hash_of(thread, seed)).choices(WORDS, k=count))


def _write(path: Path, threads: int, checkpoints: int, state_of: Any) -> None:
    serde = JsonPlusSerializer()
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA synchronous = OFF")
        SqliteSaver(conn).setup()
        each, more = divmod(checkpoints, threads)
        for thread in range(threads):
            name = f"user-{thread:06}"
            for row, writes in _rows(serde, name, each + (thread < more), state_of):
                conn.execute("INSERT INTO checkpoints VALUES (?, '', ?, ?, ?, ?, ?)", row)
                conn.executemany(
                    "INSERT INTO writes VALUES (?, '', ?, ?, '~__pregel_pull, agent', ?, ?, ?, ?)",
                    writes,
                )
        conn.commit()


def _rows(
    serde: JsonPlusSerializer, thread: str, steps: int, state_of: Any
) -> Iterator[tuple[tuple[Any, ...], list[tuple[Any, ...]]]]:
    parent = None
    for step in range(steps):
        checkpoint_id = f"1f000000-{step:04x}-6000-8000-{hash_of(thread, step):012x}"
        state: State = state_of(thread, step)
        checkpoint = {
            "v": 4,
            "ts": "2026-01-01T00:00:00+00:00",
            "id": checkpoint_id,
            "channel_values": {channel: value for channel, (value, _) in state.items()},
            "channel_versions": {
                channel: _version(thread, at) for channel, (_, at) in state.items()
            },
            "versions_seen": {
                "__input__": {},
                "agent": {"messages": _version(thread, step - 1)},
            },
            "updated_channels": [channel for channel, (_, at) in state.items() if at == step],
        }
        kind, blob = serde.dumps_typed(checkpoint)
        metadata = b'{"source": "loop", "step": %d, "parents": {}}' % step
        last = state["messages"][0][-1:]
        writes = [
            (thread, checkpoint_id, f"task-{step}", n, channel, *serde.dumps_typed(value))
            for n, (channel, value) in enumerate((("messages", last), ("step", step)))
        ]
        yield (thread, checkpoint_id, parent, kind, blob, metadata), writes
        parent = checkpoint_id


def _version(thread: str, step: int) -> str:
    return f"{step + 1:032}.0.{hash_of(thread, step) % 10**16:016}"


def hash_of(thread: str, step: int) -> int:
    """A number of 48 bits that the same thread and step always have."""
    return int.from_bytes(hashlib.sha256(f"{thread}/{step}".encode()).digest()[:6])
