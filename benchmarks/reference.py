"""What a migration is held against: the loop that people share, a bare SELECT, a binary copy."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from itertools import islice
from pathlib import Path

import psycopg
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver

TABLES = ("checkpoint_blobs", "checkpoints", "checkpoint_writes")


def careful_loop(dsn: str, source: Path, checkpoints: int) -> float:
    """Seconds of the script that people share, its known losses mended as far as the API allows, for
    the first so many checkpoints. It verifies nothing.
    """
    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro&immutable=1", uri=True)) as conn,
        PostgresSaver.from_conn_string(dsn) as target,
    ):
        target.setup()
        saver = SqliteSaver(conn)
        saver.is_setup = True  # setup() would write the source
        began = time.perf_counter()
        for saved in islice(saver.list(None), checkpoints):
            config = {"configurable": {**saved.config["configurable"]}}
            parent = saved.parent_config
            config["configurable"]["checkpoint_id"] = (
                parent["configurable"]["checkpoint_id"] if parent else None
            )
            versions = saved.checkpoint["channel_versions"]
            target.put(config, saved.checkpoint, saved.metadata, versions)
            for task_id, channel, value in saved.pending_writes or ():
                target.put_writes(saved.config, [(channel, value)], task_id)
        return time.perf_counter() - began


def bare_select(source: Path) -> float:
    """Seconds of reading every row of SQLite, and doing nothing with it."""
    began = time.perf_counter()
    with closing(sqlite3.connect(f"file:{source}?mode=ro&immutable=1", uri=True)) as conn:
        for table in ("checkpoints", "writes"):
            for _ in conn.execute(f"SELECT * FROM {table}"):
                pass
    return time.perf_counter() - began


def binary_copy(migrated: str, fresh: str, folder: Path) -> float:
    """Seconds of copying the very rows of a migrated database into fresh live tables, in binary."""
    with psycopg.connect(migrated) as conn:
        for table in TABLES:
            with (
                (folder / f"{table}.bin").open("wb") as file,
                conn.cursor().copy(f"COPY {table} TO STDOUT (FORMAT BINARY)".encode()) as copy,
            ):
                for data in copy:
                    file.write(data)
    with PostgresSaver.from_conn_string(fresh) as saver:
        saver.setup()
    began = time.perf_counter()
    with psycopg.connect(fresh) as conn:
        for table in TABLES:
            with (
                (folder / f"{table}.bin").open("rb") as file,
                conn.cursor().copy(f"COPY {table} FROM STDIN (FORMAT BINARY)".encode()) as copy,
            ):
                while data := file.read(1 << 20):
                    copy.write(data)
    return time.perf_counter() - began
