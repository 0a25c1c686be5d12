"""A source's pending write into its target row. Pure."""

from __future__ import annotations

from ..model import TargetWrite, WriteRow
from .blockers import NUMBER, Problem, Unconvertible, is_number, text_problems


def convert_write(row: WriteRow) -> TargetWrite:
    """A pending write as `checkpoint_writes` has it: the same bytes under the same type."""
    if _is_plain(row):
        return TargetWrite(row.task_id, row.task_path, row.idx, row.channel, row.type, row.value)  # type: ignore[arg-type]
    problems: list[Problem] = []
    for column in ("task_id", "task_path", "channel", "type"):
        value = getattr(row, column)
        if value is None:
            problems.append(Problem(column, "it is NULL, and the reader needs it"))
        else:
            problems += text_problems(column, value, read_as_bytea=column != "task_path")
    if type(row.idx) is not int or not -(1 << 31) <= row.idx < 1 << 31:
        problems.append(Problem("idx", "it is no 32-bit integer"))
    if row.value is None:
        problems.append(Problem("value", "it is NULL, and PostgreSQL's column is NOT NULL"))
    elif is_number(row.value):
        problems.append(Problem("value", NUMBER))
    if problems:
        raise Unconvertible(*problems)
    return TargetWrite(
        str(row.task_id),
        str(row.task_path),
        row.idx,
        str(row.channel),
        str(row.type),
        row.value.encode() if isinstance(row.value, str) else row.value or b"",
    )


def _is_plain(row: WriteRow) -> bool:
    """Whether there can be no problem with a write: nearly all are so, and told at once."""
    _, _, _, task_id, task_path, idx, channel, kind, value = row
    if not type(task_id) is type(task_path) is type(channel) is type(kind) is str:
        return False
    texts = f"{task_id}{task_path}{channel}{kind!s}"
    return (
        "\0" not in texts
        and "\\" not in texts
        and type(idx) is int
        and -(1 << 31) <= idx < 1 << 31
        and type(value) is bytes
    )
