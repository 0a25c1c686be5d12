"""What makes a row a blocker: why it has no lossless place in PostgreSQL, and in which column. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..model import CheckpointRow, SourceText, WriteRow

MAX_FIELD = (1 << 30) - (1 << 16)  # PostgreSQL ends a field at 1 GiB, its own headers included
NUMBER = "it is a number, where text or bytes belong"


class Problem(NamedTuple):
    """Why a row cannot be kept, and in which column. Names no value."""

    column: str
    why: str


class Unconvertible(Exception):
    """The row has no lossless place; `problems` says why."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__(problems)
        self.problems = problems


def key_problems(row: CheckpointRow | WriteRow) -> list[Problem]:
    """Why a row's key has no place in PostgreSQL's text columns."""
    parent = row.parent_checkpoint_id if isinstance(row, CheckpointRow) else None
    for text in (*row[:3], parent or ""):
        if type(text) is not str or "\0" in text:
            break
    else:  # nearly always: told at once
        return []
    problems: list[Problem] = []
    for column in ("thread_id", "checkpoint_ns", "checkpoint_id"):
        problems += text_problems(column, getattr(row, column))
    if parent is not None:
        problems += text_problems("parent_checkpoint_id", parent)
    return problems


def text_problems(
    column: str, value: SourceText, *, read_as_bytea: bool = False
) -> tuple[Problem, ...]:
    """What keeps a text out of a text column, or out of the reader that casts it to `bytea`."""
    if isinstance(value, bytes):
        return (Problem(column, "it is no UTF-8 text"),)
    if is_number(value):
        return (Problem(column, NUMBER),)
    if "\0" in value:
        return (Problem(column, "it holds NUL"),)
    if read_as_bytea and "\\" in value:
        why = "it holds a backslash, which PostgresSaver's reader takes for an escape"
        return (Problem(column, why),)
    return ()


def is_number(value: Any) -> bool:
    """Whether SQLite, which takes any type in any column, holds a number here."""
    return isinstance(value, int | float)
