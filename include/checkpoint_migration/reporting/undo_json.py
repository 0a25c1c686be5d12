"""`undo.json`: what undoing a run did and what it left, and the same as lines of a task's log. Pure."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from ..figures import format_count
from ..findings import Undone
from ..folding import folded
from ..settings import Settings
from ..texts import quoted
from .log import FIRST, Line
from .report_json import ErrorFacts

VERSION = 1
UNDO_JSON = "undo.json"
BEFORE_OR_AFTER = (
    "the live tables are as before or as after the undo, nothing between; the next try says which."
)


@dataclass(frozen=True, slots=True)
class UndoReport:
    """All keys are always there; `undone` is None where the run failed."""

    run_id: str
    dag_id: str
    started: str
    finished: str
    succeeded: bool
    outcome: str
    sentence: str
    target: dict[str, str | None]
    undone: dict[str, Any] | None
    rows: dict[str, dict[str, int]]
    threads_left: dict[str, Any]
    items_left: dict[str, Any]
    blobs_left: dict[str, Any]
    error: ErrorFacts | None = None
    version: int = field(default=VERSION)

    def to_json(self) -> bytes:
        """The file's bytes; version first."""
        plain = asdict(self)
        ordered = {"version": plain.pop("version"), **plain}
        return msgspec.json.format(msgspec.json.encode(ordered), indent=2) + b"\n"


def undo_report(
    settings: Settings,
    asked: str,
    undone: Undone | None,
    error: ErrorFacts | None,
    started: datetime,
    finished: datetime,
) -> UndoReport:
    """The report of a run that undid another, or failed to."""
    rows = {}
    if undone is not None:
        rows = {
            name: {
                "removed": undone.removed[name],
                "restored": undone.restored[name],
                "left": undone.left[name],
                "gone": undone.gone[name],
            }
            for name in undone.removed
        }
    return UndoReport(
        run_id=settings.run_id,
        dag_id=settings.dag_id,
        started=started.isoformat(timespec="seconds"),
        finished=finished.isoformat(timespec="seconds"),
        succeeded=error is None,
        outcome=outcome_of(undone),
        sentence=_sentence(asked, undone) if undone else _failed(asked, error),
        target={"conn_id": settings.conn_id, "schema": undone.schema if undone else None},
        undone=(
            {"run_id": undone.run_id, "dag_id": undone.dag_id, "already": undone.already_done}
            if undone
            else None
        ),
        rows=rows,
        threads_left=_listed(undone.left_threads, undone.threads) if undone else _listed(0, ()),
        items_left=_listed(undone.left_items, undone.items) if undone else _listed(0, ()),
        blobs_left=_listed(undone.left_blobs, undone.blobs) if undone else _listed(0, ()),
        error=error,
    )


def outcome_of(undone: Undone | None) -> str:
    """`undone`: all of it is out; `partly`: something was left; `nothing`: done before, or none live."""
    if undone is None:
        return "failed"
    if undone.already_done or undone.nothing_live:
        return "nothing"
    return "partly" if _left_anything(undone) else "undone"


def _left_anything(undone: Undone) -> bool:
    return bool(undone.left_threads or undone.left_items or sum(undone.left.values()))


def _failed(asked: str, error: ErrorFacts | None) -> str:
    run = f"the run {quoted(asked, 120)}"
    if error and error.safe == BEFORE_OR_AFTER:
        return f"Whether {run} is undone is not known: {error.safe}"
    return f"Nothing was undone of {run}: the live tables are as they were."


def _sentence(asked: str, undone: Undone) -> str:
    run = f"the run {quoted(asked, 120)}"
    removed = sum(undone.removed.values())
    restored, gone = sum(undone.restored.values()), sum(undone.gone.values())
    if undone.already_done:
        return f"Nothing was done: {run} is undone already ({format_count(removed)} rows, then)."
    if undone.nothing_live:
        return f"Nothing was done: {run} made no row live."
    told = f"{format_count(removed)} rows that {run} had inserted are out of the live tables again"
    if restored:
        told += f", {format_count(restored)} that it had replaced have their originals back"
    if gone:
        told += f", {format_count(gone)} were gone or rewritten before"
    told += "."
    return f"{told} {_left(undone)}" if _left_anything(undone) else told


def _left(undone: Undone) -> str:
    kinds = [
        f"{format_count(undone.left_threads)} threads that somebody changed or went on with",
        f"{format_count(undone.left_blobs)} blobs that checkpoints outside the run refer to",
    ]
    if undone.left_items:
        kinds.insert(1, f"{format_count(undone.left_items)} items of the store that somebody wrote")
    rows = format_count(sum(undone.left.values()))
    return f"{rows} were left: {', '.join(kinds[:-1])}, and {kinds[-1]}."


def undo_lines(report: UndoReport) -> Iterator[Line]:
    """The report as lines of a log; no line holds a value or a raw id."""
    level = logging.INFO if report.error is None else logging.ERROR
    yield from ((level, line) for line in folded(report.sentence))
    for name, rows in report.rows.items():
        figures = ", ".join(f"{format_count(count)} {word}" for word, count in rows.items())
        yield from ((logging.INFO, line) for line in folded(f"{name}: {figures}", "  "))
    yield from _lines_of_left(report.threads_left, "threads", _thread)
    yield from _lines_of_left(report.items_left, "items", _item)


def _lines_of_left(
    left: dict[str, Any], kind: str, named: Callable[[dict[str, Any]], str]
) -> Iterator[Line]:
    for listed in left["listed"][:FIRST]:
        told = f"left whole: {named(listed)}, {listed['why']}"
        yield from ((logging.WARNING, line) for line in folded(told, "  ", inside=4))
    if left["total"] > FIRST:
        yield logging.WARNING, f"  and {format_count(left['total'] - FIRST)} more {kind}"


def _thread(listed: dict[str, Any]) -> str:
    return f"thread {quoted(listed['thread_id'])}"


def _item(listed: dict[str, Any]) -> str:
    return f"item {quoted(listed['key'])} of the store's namespace {quoted(listed['namespace'])}"


def undo_final_lines(outcome: str, path: Path | str) -> list[str]:
    """The two plain lines that close the log of an undo; programs look for them."""
    return [f"undo: {outcome}", f"report: {path}"]


def _listed(total: int, first: tuple[Any, ...]) -> dict[str, Any]:
    return {
        "total": total,
        "listed": [structs.asdict(each) for each in first],
        "omitted": total - len(first),
    }
