"""What the rest of a thread says about one of its older checkpoints, read from the frozen source."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any

from ..convert.encryption import Sealer, sealed_type
from ..convert.formats import NotSplittable, Splitter
from ..convert.older import TASKS, Edges, edges_of, graph_of, with_text_versions
from ..model import CheckpointRow, SourceText

LOWER = re.compile(r"[0-9a-z]")
UNKNOWN_ORDER = (b"",)


class Lineage:
    """Answers for one thread at a time, and remembers while the thread is the same."""

    def __init__(
        self, frozen: sqlite3.Connection, splitters: Mapping[str, Splitter], sealer: Sealer | None
    ) -> None:
        self._frozen = frozen
        self._splitters = splitters
        self._sealer = sealer
        self._thread: SourceText | None = None
        self._namespaces: list[SourceText] = []
        self._edges: dict[str, Edges] = {}
        columns = [row[1] for row in frozen.execute("PRAGMA table_info(writes)")]
        task_path = "task_path" if "task_path" in columns else "''"
        self._sends_sql = (
            f"SELECT {task_path}, task_id, idx, type, value FROM writes WHERE thread_id = ?"  # noqa: S608
            " AND checkpoint_ns = ? AND checkpoint_id = ? AND channel = ?"
        )

    def _turn_to(self, thread_id: SourceText) -> None:
        if self._thread != thread_id:
            self._thread, self._edges = thread_id, {}
            self._namespaces = [
                row[0]
                for row in self._frozen.execute(
                    "SELECT DISTINCT checkpoint_ns FROM writes WHERE thread_id = ?", (thread_id,)
                )
            ]

    def sends_before(self, row: CheckpointRow, value_type: str) -> tuple[bytes, ...]:
        """The sends that PostgreSQL's reader would rebuild for a checkpoint: its parent's writes to
        `__pregel_tasks`, in every namespace, by task path, task id and index. Where that order
        depends on the database's collation, something that equals no sends.
        """
        if row.parent_checkpoint_id is None:
            return ()
        self._turn_to(row.thread_id)
        found: list[tuple[Any, ...]] = []
        for ns in self._namespaces:
            found += self._frozen.execute(
                self._sends_sql, (row.thread_id, ns, row.parent_checkpoint_id, TASKS)
            ).fetchall()
        if not _same_everywhere(found):
            return UNKNOWN_ORDER
        found.sort(key=lambda send: send[:3])
        return tuple(self._plain(kind, value, value_type) for *_, kind, value in found)

    def _plain(self, kind: Any, value: Any, value_type: str) -> bytes:
        raw = value.encode() if isinstance(value, str) else bytes(value or b"")
        if sealed_type(kind) and self._sealer is not None:
            kind, raw = sealed_type(kind), self._sealer.open(raw)
        # another type never equals what the checkpoint carries
        return raw if kind == value_type else repr(kind).encode() + b"\0" + raw

    def edges(self, row: CheckpointRow) -> Edges:
        """The edges between nodes that the thread's checkpoints of the same graph show."""
        self._turn_to(row.thread_id)
        graph = graph_of(str(row.checkpoint_ns))
        if graph not in self._edges:
            self._edges[graph] = edges_of(self._envelopes(row.thread_id, graph))
        return self._edges[graph]

    def _envelopes(self, thread_id: SourceText, graph: str) -> Iterator[dict[str, Any]]:
        for checkpoint_ns, kind, blob in self._frozen.execute(
            "SELECT checkpoint_ns, type, checkpoint FROM checkpoints WHERE thread_id = ?",
            (thread_id,),
        ):
            splitter = self._splitters.get(kind)
            if splitter is None or blob is None or graph_of(str(checkpoint_ns)) != graph:
                continue
            try:
                envelope = splitter(blob.encode() if isinstance(blob, str) else blob).envelope
                yield with_text_versions(envelope)
            except (NotSplittable, KeyError, AttributeError):
                continue  # the row itself becomes a blocker


def _same_everywhere(sends: list[tuple[Any, ...]]) -> bool:
    """Whether collations put these sends in byte order: of one task, or by ids of one shape."""
    tasks = {send[:2] for send in sends}
    paths = {path for path, _ in tasks}
    shapes = {LOWER.sub("x", task) if isinstance(task, str) else "?" for _, task in tasks}
    return len(tasks) < 2 or (len(paths) == len(shapes) == 1 and shapes.pop().strip("x-") == "")
