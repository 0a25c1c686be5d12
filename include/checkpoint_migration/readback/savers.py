"""The two real savers, opened so that reading changes neither side and revives nothing."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import psycopg
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from psycopg import errors as pg
from psycopg import sql
from psycopg.pq import TransactionStatus

from ..interrupting import was_within_sqlite
from ..postgres import Connect, opened, settle, started
from .older import graph_of
from .raw_serializer import Decrypt, RawSerializer
from .thread_ts import show_as_today, with_id

Key = tuple[str, str, str]
T = TypeVar("T")

DOING = "reading back through the savers"
OLDEST_TRANSACTION = 1.0  # seconds: a long one would keep the server from vacuuming
PAGE_BYTES = 32 << 20  # PostgresSaver.list holds a whole page in memory
NEWEST = """
SELECT checkpoint_id FROM checkpoints WHERE thread_id = %s AND checkpoint_ns = %s
 ORDER BY checkpoint_id DESC LIMIT 1
"""
# What a server says of a row that it cannot bring, as opposed to a connection or a lock.
OF_A_ROW = (pg.DataError, pg.ProgramLimitExceeded, pg.InternalError_, pg.FeatureNotSupported)


class Unreadable(Exception):
    """A saver cannot read what was asked for; `str()` is the name of what it raised."""


class SourceUnreadable(Unreadable): ...


class SourceSide:
    """The frozen source through `SqliteSaver`, which finds it immutable and changes nothing."""

    def __init__(self, frozen: Path, decrypt: Decrypt | None) -> None:
        uri = f"file:{quote(str(frozen))}?mode=ro&immutable=1"
        self._rows = sqlite3.connect(uri, uri=True)
        self._keys = sqlite3.connect(uri, uri=True)
        self._keys.text_factory = bytes
        self._saver_rows = sqlite3.connect(uri, uri=True)
        self._serde = RawSerializer(decrypt)
        self.saver = SqliteSaver(self._saver_rows, serde=self._serde)
        for conn in (self._rows, self._keys, self._saver_rows):
            self._is_old = show_as_today(conn)
        if self._is_old:
            self.saver.is_setup = True  # it would make tables where views stand

    def close(self) -> None:
        for conn in (self._rows, self._keys, self._saver_rows):
            conn.close()

    def all_keys(self) -> Iterator[tuple[Any, Any, Any]]:
        """Every checkpoint's key in byte order; a part that is no UTF-8 text stays bytes."""
        has_any = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'checkpoints'"
        if self._keys.execute(has_any).fetchone() is None:  # a store may have a file of its own
            return
        rows = self._keys.execute(
            "SELECT thread_id, checkpoint_ns, checkpoint_id FROM checkpoints"
            " ORDER BY thread_id, checkpoint_ns, checkpoint_id"
        )
        for thread_id, checkpoint_ns, checkpoint_id in rows:
            yield _text(thread_id), _text(checkpoint_ns), _text(checkpoint_id)

    def has(self, key: Key) -> bool:
        found = self._rows.execute(
            "SELECT 1 FROM checkpoints"
            " WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?",
            key,
        )
        return found.fetchone() is not None

    def newest(self, thread_id: str, checkpoint_ns: str, limit: int) -> tuple[list[str], int]:
        """The ids of a namespace's newest checkpoints, and the bytes of the largest of them."""
        rows = self._rows.execute(
            "SELECT checkpoint_id, coalesce(length(checkpoint), 0) FROM checkpoints"
            " WHERE thread_id = ? AND checkpoint_ns = ? ORDER BY checkpoint_id DESC LIMIT ?",
            (thread_id, checkpoint_ns, limit),
        ).fetchall()
        return [row[0] for row in rows], max((row[1] for row in rows), default=0)

    def get(self, key: Key) -> CheckpointTuple | None:
        found = self.look(lambda: self.saver.get_tuple(config_of(*key)))
        return with_id(found) if found is not None and self._is_old else found

    def history(
        self, thread_id: str, checkpoint_ns: str, limit: int
    ) -> Generator[CheckpointTuple, None, None]:
        """Newest first. No other look through the saver while this one is open: it holds a lock."""
        config = config_of(thread_id, checkpoint_ns)
        with closing(self.saver.list(config, limit=limit)) as found:  # type: ignore[type-var]
            while (item := self.look(lambda: next(found, None))) is not None:
                yield with_id(item) if self._is_old else item

    def versions_seen(self, thread_id: str, graph: str) -> Iterator[dict[str, Any]]:
        """What the nodes of one graph of a thread have seen; leaves out what does not decode."""
        rows = self._rows.execute(
            "SELECT checkpoint_ns, type, checkpoint FROM checkpoints WHERE thread_id = ?",
            (thread_id,),
        )
        for checkpoint_ns, kind, blob in rows:
            if graph_of(checkpoint_ns) != graph:
                continue
            try:
                found = self.look(partial(self._serde.loads_typed, (kind, blob)))
            except SourceUnreadable:
                continue
            if isinstance(found, dict) and isinstance(found.get("versions_seen"), dict):
                yield found["versions_seen"]

    def look(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except MemoryError:
            raise
        except Exception as error:
            if was_within_sqlite(error):
                raise
            raise SourceUnreadable(type(error).__name__) from None


class TargetSide:
    """The live tables through `PostgresSaver`, in short read-only transactions.

    A transaction holds search_path and encoding in place even behind a pooler. In between the
    connection rests; where the server ends it meanwhile, the next transaction is on a new one.
    """

    def __init__(self, connect: Connect, schema: str, decrypt: Decrypt | None) -> None:
        self._connect = connect
        self._path = sql.SQL("SET LOCAL search_path = {}").format(sql.Identifier(schema))
        self._began = 0.0
        self._conn = opened(connect, DOING)
        self.saver = PostgresSaver(self._conn, serde=RawSerializer(decrypt))

    def close(self) -> None:
        self._conn.close()

    def _begin(self) -> None:
        self._conn = self.saver.conn = started(self._connect, DOING, self._start, self._conn)
        self._began = time.monotonic()

    def _start(self, conn: psycopg.Connection[Any]) -> None:
        conn.autocommit = False  # so that the next statement begins one
        settle(conn, read_only=True)
        conn.execute(self._path)

    def rest(self) -> None:
        """End the transaction, if there is one."""
        if self._conn.info.transaction_status != TransactionStatus.IDLE:
            self._conn.rollback()

    def get(self, key: Key) -> CheckpointTuple | None:
        return self.look(lambda: self.saver.get_tuple(config_of(*key)))

    def latest(self, thread_id: str, checkpoint_ns: str) -> CheckpointTuple | None:
        return self.look(lambda: self.saver.get_tuple(config_of(thread_id, checkpoint_ns)))

    def newest_id(self, thread_id: str, checkpoint_ns: str) -> str | None:
        """The id of the checkpoint that the saver takes for the latest one."""
        row = self.look(lambda: self._conn.execute(NEWEST, (thread_id, checkpoint_ns)).fetchone())
        return None if row is None else str(row[0])

    def history(
        self, thread_id: str, checkpoint_ns: str, largest: int, *, before: str | None, most: int
    ) -> Iterator[CheckpointTuple]:
        """Newest first, below `before`, at most `most`; rows are about as large as `largest`."""
        page = max(1, min(20, PAGE_BYTES // max(1, largest)))
        config = config_of(thread_id, checkpoint_ns)
        for _ in range(0, most, page):
            below = None if before is None else config_of(thread_id, checkpoint_ns, before)
            found = self.look(partial(self._page, config, below, page))
            yield from found
            if len(found) < page:
                return
            before = id_of(found[-1])

    def _page(self, config: Any, below: Any, limit: int) -> list[CheckpointTuple]:
        return list(self.saver.list(config, before=below, limit=limit))

    def look(self, read: Callable[[], T]) -> T:
        if time.monotonic() - self._began > OLDEST_TRANSACTION:
            self.rest()
        if self._conn.info.transaction_status == TransactionStatus.IDLE:
            self._begin()
        try:
            return read()
        except OF_A_ROW as error:
            self.rest()
            raise Unreadable(type(error).__name__) from None
        except (psycopg.Error, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the saver cannot read this row
            self.rest()
            raise Unreadable(type(error).__name__) from None


def delta_history(
    side: SourceSide | TargetSide, key: Key, channels: list[str]
) -> dict[str, Any] | None:
    """The writes and seeds that a DeltaChannel is rebuilt from; None from savers without them."""
    saver: BaseCheckpointSaver[Any] = side.saver
    read = getattr(saver, "get_delta_channel_history", None)
    if read is None:
        return None
    return side.look(lambda: dict(read(config=config_of(*key), channels=channels)))


def config_of(thread_id: str, checkpoint_ns: str, checkpoint_id: str | None = None) -> Any:
    """What names a checkpoint to a saver; the latest one without an id."""
    configurable = {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns}
    if checkpoint_id is not None:
        configurable["checkpoint_id"] = checkpoint_id
    return {"configurable": configurable}


def id_of(found: CheckpointTuple) -> str:
    return str(found.config["configurable"]["checkpoint_id"])


def _text(value: Any) -> Any:
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value
