"""Asks the frozen source what the rest of a thread says about one of its older checkpoints."""

from __future__ import annotations

import re
import sqlite3
from typing import Any

from ..model import CheckpointRow, SourceText
from .older import TASKS, Edges, Past, Send, edges_between
from .opener import Opener
from .rules import versions_seen
from .source_checkpoint import Unreadable, as_bytes

UUID_LIKE = re.compile(r"[-x]+")


class Threads:
    """Answers for the thread that was asked about last without reading it again."""

    def __init__(self, frozen: sqlite3.Connection, opener: Opener) -> None:
        self._frozen, self._opener = frozen, opener
        self._thread: SourceText | None = None
        self._namespaces: list[SourceText] = []
        self._edges: dict[str, Edges] = {}
        columns = {row[0] for row in frozen.execute("SELECT name FROM pragma_table_info('writes')")}
        self._path = "task_path" if "task_path" in columns else "''"

    def past(self, row: CheckpointRow) -> Past:
        return Past(lambda: self._sends(row), lambda: self._edges_of(row))

    def _turn_to(self, thread_id: SourceText) -> None:
        if thread_id == self._thread:
            return
        self._thread, self._edges = thread_id, {}
        found = self._frozen.execute(
            "SELECT DISTINCT checkpoint_ns FROM writes WHERE thread_id = ?", (thread_id,)
        )
        self._namespaces = [namespace for (namespace,) in found]

    def _sends(self, row: CheckpointRow) -> list[Send]:
        """Return the sends of a checkpoint's parent in every namespace, in the reader's order."""
        if row.parent_checkpoint_id is None:
            return []
        self._turn_to(row.thread_id)
        found = []
        for namespace in self._namespaces:
            found += self._frozen.execute(
                f"SELECT {self._path}, task_id, idx, type, value FROM writes WHERE channel = ?"  # noqa: S608
                " AND thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?",
                (TASKS, row.thread_id, namespace, row.parent_checkpoint_id),
            ).fetchall()
        if not _sorts_alike({(path, task) for path, task, *_ in found}):
            return [("", b"")]  # the order is the database's collation's: equal to no list of sends
        found.sort(key=lambda send: send[:3])
        return [self._opened(kind, value) for _, _, _, kind, value in found]

    def _opened(self, kind: SourceText | None, value: SourceText | None) -> Send:
        if not isinstance(kind, str) or value is None:
            return "", b""  # equals no send
        plain, _, cipher = kind.partition("+")
        data = as_bytes(value)
        return plain, self._opener.plain(kind, data) if cipher else data

    def _edges_of(self, row: CheckpointRow) -> Edges:
        """Return what the thread's checkpoints of the row's own graph show: not a subgraph's."""
        self._turn_to(row.thread_id)
        graph = _graph(row.checkpoint_ns)
        if graph not in self._edges:
            seen: dict[str, set[str]] = {}
            for namespace, kind, data in self._frozen.execute(
                "SELECT checkpoint_ns, type, checkpoint FROM checkpoints WHERE thread_id = ?",
                (row.thread_id,),
            ):
                if _graph(namespace) != graph:
                    continue
                other = CheckpointRow(row.thread_id, "", "", None, kind, data, None)
                try:
                    entries = versions_seen(self._opener.open(other))
                except Unreadable:
                    continue  # a difference of that row
                for node, versions in entries.items():
                    seen.setdefault(node, set()).update(versions)
            self._edges[graph] = edges_between(seen)
        return self._edges[graph]


def _sorts_alike(tasks: set[tuple[Any, Any]]) -> bool:
    """Return whether all collations agree: one task, or ids that differ in small letters alone."""
    if len(tasks) < 2:
        return True
    forms = {(path, re.sub(r"[a-z0-9]", "x", str(task))) for path, task in tasks}
    return len(forms) == 1 and UUID_LIKE.fullmatch(forms.pop()[1]) is not None


def _graph(namespace: SourceText) -> str:
    """Return a namespace's nodes alone: `node:task|node:task` without the tasks and counters."""
    names = str(namespace).split("|")
    return "|".join(name.partition(":")[0] for name in names if not name.isdigit())
