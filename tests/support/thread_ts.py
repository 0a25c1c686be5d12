"""The databases of langgraph up to 0.1, the records of their own releases, and odd ones made by hand."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

FOLDER = Path(__file__).resolve().parents[1] / "fixtures" / "thread_ts"
RELEASES = ("0.0.38", "0.0.44", "0.0.49", "0.0.55", "0.0.69", "0.1.19")
PICKLED = "0.0.38"
TIME = "2024-06-10T12:00:00+00:00"
SEND = ("langgraph", "constants", "Send")
SCHEMA = """
CREATE TABLE checkpoints (thread_id TEXT NOT NULL, thread_ts TEXT NOT NULL, parent_ts TEXT,
    checkpoint BLOB, metadata BLOB, PRIMARY KEY (thread_id, thread_ts));
CREATE TABLE writes (thread_id TEXT NOT NULL, thread_ts TEXT NOT NULL, task_id TEXT NOT NULL,
    idx INTEGER NOT NULL, channel TEXT NOT NULL, value BLOB,
    PRIMARY KEY (thread_id, thread_ts, task_id, idx));
"""


def _write() -> Any:
    spec = importlib.util.spec_from_file_location("thread_ts_write", FOLDER / "write.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


write = _write()
"""The script that wrote the databases: its graphs run with today's release too."""


def copied(release: str, folder: Path) -> Path:
    return Path(shutil.copyfile(FOLDER / f"{release}.sqlite", folder / "source.sqlite"))


def recorded(release: str) -> dict[str, Any]:
    """What the release's own saver read in its database."""
    return json.loads((FOLDER / f"{release}.json").read_text(encoding="utf-8"))


def params_of(release: str) -> dict[str, Any]:
    """What it takes to migrate a release's database."""
    return {"allow_pickle": True} if release == PICKLED else {}


@contextmanager
def saver(dsn: str) -> Iterator[Any]:
    """Today's saver, as an application has it that goes on with what such a release wrote."""
    with PostgresSaver.from_conn_string(dsn) as found:
        found.serde = JsonPlusSerializer(allowed_json_modules=[SEND])
        yield found


def checkpoint(moment: str, version: Any = 1, **more: Any) -> bytes:
    """A checkpoint as langgraph 0.0.49 wrote it: its time is its id."""
    whole = {
        "v": 1,
        "ts": moment,
        "channel_values": {"log": ["x"], "empty": []},
        "channel_versions": {"log": version},
        "versions_seen": {"a": {"log": version}},
        **more,
    }
    return json.dumps(whole, sort_keys=True).encode()


def by_hand(path: Path, *rows: tuple[str, str, str | None]) -> Path:
    """A database with a checkpoint for each (thread_id, thread_ts, parent_ts)."""
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.executescript(SCHEMA)
        for step, (thread, moment, parent) in enumerate(rows):
            row = (thread, moment, parent, checkpoint(TIME, step + 1), b'{"step": %d}' % step)
            conn.execute("INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?)", row)
    return path
