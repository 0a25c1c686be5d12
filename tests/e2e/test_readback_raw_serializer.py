"""The read-back's serializer: nothing that a database names is revived, and what stays opaque is not passed."""

from __future__ import annotations

import json
import os
import pickle
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import ormsgpack
import pytest

from include.checkpoint_migration.readback.raw_serializer import Opaque, RawSerializer
from include.checkpoint_migration.settings import ThreadFilter
from tests.support.postgres import Database
from tests.support.readbacks import FIXTURES, NOT_SPLIT, TODAY, load, look, set_up, written


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
