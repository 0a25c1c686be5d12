"""Rows of langgraph up to 0.1 brought to today's: ids for timestamps, what an envelope lacks. Pure.

In June 2024 a checkpoint had its time for an id, an ISO text, which would sort after every uuid6 and
stay the latest for ever. It gets an id in the form of a uuid6 of that very time; what is random in one
is here a digest of thread and timestamp, so that each run makes the same.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta

from ..model import CheckpointRow, SourceText, WriteRow
from .blockers import Problem
from .formats import Split

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:[0-5]\d)?", re.ASCII)
LIKE_A_TIME = re.compile(r"\d{4}-", re.ASCII)
EPOCH = datetime(1582, 10, 15, tzinfo=UTC)  # of the clock of a uuid6, which ticks every 100 ns
TICKS = 10  # a microsecond
MAX_TICKS = 1 << 60
NO_METADATA = b'{"step": -2}'
"""What those releases took a checkpoint for that had none; today's does not go on without a step."""


def id_of_time(thread_id: bytes, thread_ts: bytes) -> str | None:
    """The checkpoint id for a timestamp; None where the text is no time that a uuid6 can tell."""
    try:
        text = thread_ts.decode("ascii")
        if not TIME.fullmatch(text):
            return None
        time = datetime.fromisoformat(text)
        # LangGraph wrote UTC, with its offset
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time
        ticks = (time - EPOCH) // timedelta(microseconds=1) * TICKS
    except (ValueError, OverflowError):
        return None
    if not 0 <= ticks < MAX_TICKS:
        return None
    digest = hashlib.sha256(len(thread_id).to_bytes(8) + thread_id + thread_ts).digest()
    rest = int.from_bytes(digest[:8]) >> 2  # 14 bits of sequence, 48 of node
    number = (ticks >> 12) << 80 | 6 << 76 | (ticks & 0xFFF) << 64 | 0b10 << 62 | rest
    digits = f"{number:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def time_problems(row: CheckpointRow | WriteRow) -> list[Problem]:
    """Why a row's `thread_ts` or `parent_ts` cannot become an id: it is like a time, and is none."""
    found = {"thread_ts": row.checkpoint_id}
    if isinstance(row, CheckpointRow) and row.parent_checkpoint_id is not None:
        found["parent_ts"] = row.parent_checkpoint_id
    why = "it is no timestamp as LangGraph writes them, and would stay the latest for ever as it is"
    return [Problem(column, why) for column, value in found.items() if _is_like_a_time(value)]


def _is_like_a_time(value: SourceText) -> bool:
    return isinstance(value, str) and LIKE_A_TIME.match(value) is not None


def with_id(split: Split, checkpoint_id: str) -> Split:
    """The checkpoint with its id, which none had while their time was it."""
    if "id" in split.envelope:
        return split
    return split._replace(envelope={**split.envelope, "id": checkpoint_id})
