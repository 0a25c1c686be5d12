"""Builds rows of both sides for the oracle, put together from the same packed values.

Nothing here converts, so tests share no code with the conversion nor with the oracle.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack
import psycopg
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.sqlite import SqliteSaver
from psycopg.types.json import Json

from include.checkpoint_migration.model import Shard
from include.checkpoint_migration.source import open_frozen
from tests.support.postgres import Database, TestServer

TRUE = b"\xc3"
SNAPSHOT = b"\xd5\x07\x91\x2a"  # fixext 2, code 7: a DeltaChannel's snapshot of [42]
RENAMED = ".00000000001234567890"
KEY = b"0123456789abcdef"
AES = EncryptedSerializer.from_pycryptodome_aes(key=KEY).cipher
TABLES = {
    "checkpoints": "thread_id checkpoint_ns checkpoint_id",
    "checkpoint_blobs": "thread_id checkpoint_ns channel version",
    "checkpoint_writes": "thread_id checkpoint_ns checkpoint_id task_id idx",
}


def pack(value: Any) -> bytes:
    packed = msgpack.packb(value)
    assert isinstance(packed, bytes)
    return packed


def version(step: int) -> str:
    return f"{step:032}.{step / 7:016}"


def padded(step: int) -> str:
    return f"{step:032}.{0.0:016}"


@dataclass
class Sample:
    """Rows of both sides, put together from the same values."""

    source: list[tuple[Any, ...]] = field(default_factory=list)
    source_writes: list[tuple[Any, ...]] = field(default_factory=list)
    target: list[tuple[Any, ...]] = field(default_factory=list)
    blobs: dict[tuple[str, str, str, str], tuple[str, bytes]] = field(default_factory=dict)
    writes: list[tuple[Any, ...]] = field(default_factory=list)

    def checkpoint(
        self,
        thread: str,
        id: str,
        values: dict[str, bytes],
        versions: dict[str, Any],
        *,
        ns: str = "",
        parent: str | None = None,
        seen: dict[str, dict[str, Any]] | None = None,
        kind: str = "msgpack",
        v: int = 4,
        v_to: int = 4,
        to: dict[str, Any] | None = None,
        lost: tuple[str, ...] = (),
        values_to: dict[str, bytes] | None = None,
        seen_to: dict[str, dict[str, Any]] | None = None,
        sends: bytes | None = None,
        inline: dict[str, Any] | None = None,
        metadata: str = '{"source": "loop", "step": 1, "parents": {}}',
        **more: Any,
    ) -> None:
        """Add a checkpoint; what ends in `_to`, `to` and `lost` say where the target differs."""
        seen = {"__input__": {}} if seen is None else seen
        fields = {"v": v, "ts": "2025-03-04T05:06:07.000008+00:00", "id": id, **more}
        maps = {"channel_versions": versions, "versions_seen": seen}
        write = _as_json if kind == "json" else _as_msgpack
        data = write(fields, values, maps, sends)
        if kind.endswith("+aes"):
            data = AES.encrypt(data)[1]
        self.source.append((thread, ns, id, parent, kind, data, metadata.encode()))
        target_versions = {**versions, **(to or {})}
        for channel in lost:
            del target_versions[channel]
        kept = dict(inline or {})
        values = values if values_to is None else values_to
        if sends is not None:
            values = {**values, "__pregel_tasks": sends}
        for channel, value in values.items():
            if channel in target_versions and value not in (TRUE, b"true"):
                blob = AES.encrypt(value)[1] if kind.endswith("+aes") else value
                place = (thread, ns, channel, str(target_versions[channel]))
                self.blobs.setdefault(place, (kind, blob))
            if value in (TRUE, b"true", SNAPSHOT):
                kept[channel] = True
        envelope = {
            **fields,
            "v": v_to,
            "channel_values": kept,
            "channel_versions": target_versions,
            "versions_seen": seen if seen_to is None else seen_to,
        }
        self.target.append((thread, ns, id, parent, Json(envelope), metadata))

    def write(self, thread: str, id: str, task: str, idx: int, channel: str, value: bytes) -> None:
        row = (thread, "", id, task, "~__pregel_pull", idx, channel, "msgpack", value)
        self.source_writes.append(row)
        self.writes.append(row)

    def save(self, path: Path) -> sqlite3.Connection:
        """Write the source with the real saver's tables, and open it as the oracle gets it."""
        conn = sqlite3.connect(path)
        SqliteSaver(conn).setup()
        conn.execute("PRAGMA journal_mode=DELETE")
        conn.executemany("INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?, ?, ?)", self.source)
        names = (
            "thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, value"
        )
        conn.executemany(
            f"INSERT INTO writes ({names}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", self.source_writes
        )
        conn.commit()
        conn.close()
        return open_frozen(path)

    def load(self, conn: psycopg.Connection[Any], schema: str = "public") -> None:
        """Replace the target's rows by the sample's."""
        blobs = [(*place, *content) for place, content in self.blobs.items()]
        for name, columns, rows in (
            ("checkpoints", "{key}, parent_checkpoint_id, checkpoint, metadata", self.target),
            ("checkpoint_blobs", "{key}, type, blob", blobs),
            (
                "checkpoint_writes",
                "{key}, task_path, channel, type, blob",
                [(*row[:4], row[5], row[4], *row[6:]) for row in self.writes],
            ),
        ):
            columns = columns.format(key=", ".join(TABLES[name].split()))
            marks = ", ".join(["%s"] * (columns.count(",") + 1))
            conn.execute(f"TRUNCATE {schema}.{name}".encode())
            conn.cursor().executemany(
                f"INSERT INTO {schema}.{name} ({columns}) VALUES ({marks})".encode(), rows
            )
            conn.execute(f"ANALYZE {schema}.{name}".encode())


def _as_msgpack(
    fields: dict[str, Any], values: dict[str, bytes], maps: dict[str, Any], sends: bytes | None
) -> bytes:
    count = len(fields) + len(maps) + 1 + (sends is not None)
    parts = [b"\xde" + count.to_bytes(2, "big")]
    parts += (pack(name) + pack(value) for name, value in fields.items())
    parts += [pack("channel_values"), b"\xde" + len(values).to_bytes(2, "big")]
    parts += (pack(channel) + value for channel, value in values.items())
    parts += (pack(name) + pack(value) for name, value in maps.items())
    if sends is not None:
        parts += [pack("pending_sends"), sends]
    return b"".join(parts)


def _as_json(
    fields: dict[str, Any], values: dict[str, bytes], maps: dict[str, Any], sends: bytes | None
) -> bytes:
    members = [(json.dumps(name), json.dumps(value).encode()) for name, value in fields.items()]
    pairs = b",  ".join(json.dumps(c).encode() + b" :" + v for c, v in values.items())
    members.append(('"channel_values"', b"{ " + pairs + b"\n}"))
    members += ((json.dumps(name), json.dumps(value).encode()) for name, value in maps.items())
    if sends is not None:
        members.append(('"pending_sends"', sends))
    return b"{" + b", ".join(name.encode() + b": " + value for name, value in members) + b"}"


def the_shard(first: bytes = b"", last: bytes = "\U0010ffff".encode()) -> Shard:
    return Shard(0, first.hex(), last.hex(), 0, 0, 0, 0, "all")


def decrypt(kind: str, data: bytes) -> bytes:
    return AES.decrypt(kind.partition("+")[2], data)


@contextmanager
def saver_tables(server: TestServer) -> Iterator[Database]:
    """A database with the real saver's tables."""
    with server.database() as database:
        with PostgresSaver.from_conn_string(database.dsn) as saver:
            saver.setup()
        yield database
