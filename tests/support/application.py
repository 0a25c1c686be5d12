"""An application that owns a SQLite database of checkpoints: a process with a uid of its own.

Run as a script it obeys lines of JSON on stdin and answers each with one on stdout.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self

TABLES = """
CREATE TABLE IF NOT EXISTS checkpoints (
    thread_id TEXT NOT NULL, checkpoint_ns TEXT NOT NULL DEFAULT '', checkpoint_id TEXT NOT NULL,
    parent_checkpoint_id TEXT, type TEXT, checkpoint BLOB, metadata BLOB,
    PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id));
CREATE TABLE IF NOT EXISTS writes (
    thread_id TEXT NOT NULL, checkpoint_ns TEXT NOT NULL DEFAULT '', checkpoint_id TEXT NOT NULL,
    task_id TEXT NOT NULL, task_path TEXT NOT NULL DEFAULT '', idx INTEGER NOT NULL,
    channel TEXT NOT NULL, type TEXT, value BLOB,
    PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id, task_id, idx));
"""


class Application:
    """The parent's handle on the process."""

    def __init__(self, path: Path, journal_mode: str = "wal", uid: int | None = None) -> None:
        command = [sys.executable, __file__, str(path), journal_mode, str(uid or os.getuid())]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def ask(self, order: str, **details: Any) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"order": order, **details}) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the application died"
        answer = json.loads(line)
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer

    def insert(self, rows: int = 1, thread: str = "app") -> None:
        """Commit `rows` checkpoints with a pending write each, each in a transaction of its own."""
        self.ask("insert", rows=rows, thread=thread)

    def execute(self, sql: str) -> None:
        self.ask("execute", sql=sql)

    def write(self, rate: int = 500) -> None:
        """Begin to write `rate` rows a second, a commit for every two."""
        self.ask("write", rate=rate)

    def churn(self) -> None:
        """Begin to open, insert and close, over and over."""
        self.ask("churn")

    def stop(self) -> Any:
        """End either; return the rows written, the worst wait in seconds, and the errors seen."""
        return self.ask("stop")

    def close(self) -> None:
        """End as a well-behaved process does: SQLite checkpoints and removes its sidecars."""
        self.ask("close")
        self.process.wait(10)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass


class _Served:
    def __init__(self, path: str, journal_mode: str) -> None:
        self.path = path
        self.conn = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.conn.execute(f"PRAGMA journal_mode={journal_mode}")
        self.conn.executescript(TABLES)
        (self.count,) = self.conn.execute("SELECT count(*) FROM checkpoints").fetchone()
        self.writing: threading.Thread | None = None
        self.stopping = threading.Event()
        self.report: dict[str, Any] = {}

    def insert(self, rows: int, thread: str) -> None:
        for _ in range(rows):
            self.count += 1
            key = (thread, "", f"1f000000-0000-6000-8000-{self.count:012d}")
            self.conn.execute("BEGIN IMMEDIATE")
            self.conn.execute(
                "INSERT INTO checkpoints VALUES (?, ?, ?, NULL, 'msgpack', ?, ?)",
                (*key, b"\x80" + os.urandom(2000), b"{}"),
            )
            self.conn.execute(
                "INSERT INTO writes VALUES (?, ?, ?, 'task', '', 0, 'c', 'msgpack', ?)",
                (*key, b"\xa1x"),
            )
            self.conn.execute("COMMIT")

    def execute(self, sql: str) -> None:
        self.conn.execute(sql).fetchall()

    def write(self, rate: int) -> None:
        """Insert `rate` rows a second (half of them checkpoints) until told to stop."""

        def work() -> None:
            done, worst, errors, began = 0, 0.0, [], time.monotonic()
            while not self.stopping.is_set():
                before = time.monotonic()
                try:
                    self.insert(1, f"busy-{done % 7}")
                except sqlite3.Error as error:
                    errors.append(repr(error))
                now = time.monotonic()
                worst = max(worst, now - before)
                done += 1
                time.sleep(max(0.0, began + 2 * done / rate - now))
            self.report = {"rows": 2 * done, "worst": worst, "errors": errors}

        self.writing = threading.Thread(target=work, daemon=True)
        self.writing.start()

    def churn(self) -> None:
        """Open, insert, close, over and over, as one with a connection for each request does."""

        def work() -> None:
            done, worst, errors = 0, 0.0, []
            while not self.stopping.is_set():
                before = time.monotonic()
                try:
                    self.conn = sqlite3.connect(self.path, isolation_level=None)
                    self.insert(1, "churn")
                    self.conn.close()
                except sqlite3.Error as error:
                    errors.append(repr(error))
                worst = max(worst, time.monotonic() - before)
                done += 1
            self.report = {"rows": 2 * done, "worst": worst, "errors": errors}

        self.conn.close()
        self.writing = threading.Thread(target=work, daemon=True)
        self.writing.start()

    def stop(self) -> dict[str, Any]:
        assert self.writing is not None
        self.stopping.set()
        self.writing.join()
        self.stopping.clear()
        return self.report

    def close(self) -> None:
        self.conn.close()


def _say(answer: Any) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main(path: str, journal_mode: str, uid: str) -> None:
    if int(uid) != os.getuid():
        os.setgroups([])
        os.setgid(int(uid))
        os.setuid(int(uid))
    served = _Served(path, journal_mode)
    _say("ready")
    for line in sys.stdin:
        details = json.loads(line)
        order = details.pop("order")
        try:
            answer = getattr(served, order)(**details)
        except sqlite3.Error as error:
            answer = {"error": repr(error)}
        _say(answer)
        if order == "close":
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
