"""Rows of shapes that no release writes: each is kept and read back equal, or is a blocker."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import msgpack
import pytest
from hypothesis import settings

from include.checkpoint_migration.errors import Blocked
from tests.support import sqlite_sources as sources
from tests.support.engine import Migration
from tests.support.faults import live_rows
from tests.support.postgres import Database

NUMBER = 500
SEEDS = max(2, settings.default.max_examples // 100)
ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**63, 2**64 - 1, 10**30, 1.5, float("nan"), float("inf")),
    *("", "a\0", "\ud800", "\\", "é" * 10, "1", "x" * 3_000, b"", b"\xff"),
    *([], [1], ["a"], [[[]]], {}, {"a": 1}, {"a": {"b": "c"}}, {"": ""}, {"1": "2"}),
    *("__start__", "start:a", "branch:x:y:z", {"start:a": "1"}, {"branch:a:b:c": 3}),
    {"__interrupt__": {"a": "1"}},
]
METADATA: list[Any] = [
    *(None, 5, 1.5, "as text", b"", b"[1]", b'"x"', b"null", b"true", b'{"a":1,"a":2}', b"{}\n"),
    *(
        b'{"a":1e20,"b":-0.0,"c":1E5,"d":-0}',
        b'{"a":NaN}',
        b'{"a":"\\u0000"}',
        b'{"a":"\\\\u0000"}',
    ),
    *(
        b'{"a":"\\ud83d\\ude00"}',
        b'{"\\ud83d":1}',
        b'{"a":1e400}',
        b'{"a":1e-400}',
        b'{"a":5e-324}',
    ),
    *(b'{"a":1.7976931348623157e308}', b'{"a":1e23}', b'{"a":123456789012345678901.25}', b"\xff"),
    *(
        b'{"a":%s}' % (b"9" * 30),
        b'{"a":{"b":[null,false]}}',
        '{"é":"ü"}'.encode(),
        b'{"step":"x"}',
    ),
]
TEXTS: list[Any] = [
    *("", "é", "a\\b", "a\0", "x" * 3_000, b"blob", 7, None),
    *("__interrupt__", "__error__", "__pregel_tasks", "__resume__"),
]
TYPES = ["json", "null", "bytes", "bytearray", "pickle", "msgpack+aes", "x", "", None, b"\xff", 3]
VALUES = [b"", b"null", b"\x80", b"\x91\xc0", "text", 5, None, b"\xff\xfe", 1.5]
NUMBERS = [0, 1, -1, -5, 2**31 - 1, 2**31, "1", 1.5, None, b"1"]
INSERT = "INSERT INTO checkpoints VALUES (?, '', '1', NULL, ?, ?, '{}')"
WRITE = (
    "INSERT INTO writes (thread_id, checkpoint_ns, checkpoint_id, idx, value, task_id, channel, type,"
    " task_path) VALUES (?, '', '1', ?, ?, ?, ?, ?, ?)"
)
GOOD = msgpack.packb(
    {
        "v": 4,
        "ts": "2024",
        "id": "1",
        "channel_values": {"a": [1]},
        "channel_versions": {"a": "1.5"},
    }
    | {"versions_seen": {}}
)


def right(random: Random) -> dict[str, Any]:
    """A checkpoint of any `v`, with the versions of any release, and sends where there may be some."""
    version = random.choice([str, int])
    v = random.choice([1, 2, 3, 4])
    return {
        "v": v,
        "ts": "2024",
        "id": "1",
        "channel_values": {"a": [1], "b": "x", "start:n": 1},
        "channel_versions": {"a": version(1), "b": version(2), "start:n": version(3)},
        "versions_seen": {
            "n": {"a": version(1), "start:n": version(2)},
            "__interrupt__": {"a": version(1)},
            "m": {"n": version(1)},
        },
        "pending_sends": random.choice([[], [["x", 1]]]) if v < 4 else [],
        "updated_channels": None,
    }


def spoilt(random: Random, value: Any) -> Any:
    """The same with one thing in it lost, added or replaced."""
    if random.random() < 0.25 or not isinstance(value, dict | list) or not value:
        return random.choice(ODD)
    if isinstance(value, list):
        at = random.randrange(len(value))
        return [spoilt(random, item) if n == at else item for n, item in enumerate(value)]
    key = random.choice(list(value))
    kind = random.random()
    if kind < 0.15:
        return {k: v for k, v in value.items() if k != key}
    if kind < 0.35:
        other = random.choice([odd for odd in ODD if not isinstance(odd, dict | list)])
        return {**value, other: value[key]}
    return {**value, key: spoilt(random, value[key])}


def serialized(random: Random) -> tuple[str, bytes]:
    """The type and the bytes of an odd checkpoint; some are not even well-formed."""
    kind = random.choice(["msgpack", "json"])
    while True:
        whole: Any = right(random)
        for _ in range(random.choice([1, 1, 2, 3])):
            whole = spoilt(random, whole)
        try:
            data = msgpack.packb(whole) if kind == "msgpack" else json.dumps(whole).encode()
        except (OverflowError, TypeError, ValueError):
            continue  # beyond what the format can say
        if random.random() < 0.1:
            at = random.randrange(len(data))
            data = data[:at] + bytes([random.randrange(256)]) + data[at + 1 :]
        return kind, data


def odd_rows(random: Random, conn: sqlite3.Connection, thread: str) -> None:
    """A good checkpoint with odd metadata, and writes with something odd in each fourth column."""

    def odd(choices: list[Any], usual: Any) -> Any:
        return random.choice(choices) if random.random() < 0.25 else usual

    parent = odd([None, "0", "1", "", b"x", 5], None)
    row = (thread, parent, "msgpack", GOOD, random.choice(METADATA))
    conn.execute("INSERT INTO checkpoints VALUES (?, '', '1', ?, ?, ?, ?)", row)
    for n in range(random.choice([0, 0, 1, 2])):
        idx, value = odd(NUMBERS, n), odd(VALUES, b"\xc0")
        texts = (odd(TEXTS, "task"), odd(TEXTS, "a"), odd(TYPES, "msgpack"), odd(TEXTS, ""))
        with contextlib.suppress(sqlite3.IntegrityError):  # this table has no place for it
            conn.execute(WRITE, (thread, idx, value, *texts))


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("rows", ["checkpoints", "metadata and writes"])
def test_what_is_no_blocker_is_identical(
    seed: int, rows: str, database: Database, tmp_path: Path
) -> None:
    """One run names all that has no place; without these threads the next one ends `identical`."""
    random = Random(seed)
    path = tmp_path / "odd.sqlite"
    sources.empty(path).close()
    with closing(sqlite3.connect(path)) as conn, conn:
        for n in range(NUMBER):
            if rows == "checkpoints":
                conn.execute(INSERT, (f"t{n:03}", *serialized(random)))
            else:
                odd_rows(random, conn, f"t{n:03}")

    def run(run_id: str, **params: Any) -> Migration:
        return Migration(
            database.dsn, path, tmp_path / "exports", params, run_id=run_id, max_export_tasks=4
        )

    first = run("first")
    with pytest.raises(Blocked):
        first.all()
    assert live_rows(database.dsn)["checkpoints"] == []
    blocked = {blocker["thread_id"] for blocker in first.report["blockers"]}
    report = run("second", threads=[f"!{thread}" for thread in sorted(blocked)]).all()
    assert (report["verdict"], report["blockers"]) == ("identical", [])
    assert report["counts"]["checkpoints"]["live"] == NUMBER - len(blocked)
    assert NUMBER / 20 < len(blocked) < NUMBER * 0.95
