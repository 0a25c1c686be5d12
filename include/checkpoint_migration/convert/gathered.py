"""What PostgresSaver gathers of one checkpoint has to fit: its blobs, its writes, and both in one row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..model import TargetWrite
from ..texts import quoted
from .blockers import Problem
from .formats import Split

# The saver reads a checkpoint's blobs, and its writes, as one array each. PostgreSQL builds it in memory
# that it doubles, and allots nobody 1 GiB: what does not fit into half of it cannot be read back.
MOST_GATHERED = (1 << 29) - (1 << 16)
EXCEED = "exceed 512 MiB, the most that PostgresSaver reads"
MOST_OF_A_ROW = (1 << 30) - (1 << 20)  # a message of the server's ends at 1 GiB
OF_AN_ELEMENT = 8  # its header, and what aligns the next one
FEW = 10_000  # writes: so many add little to their values
UTF8 = 4  # bytes that a character takes at most


def gathered_problems(
    split: Split | None, writes: Sequence[TargetWrite], checkpoint: bytes, metadata: bytes
) -> Iterator[Problem]:
    """Why the reader could not bring a checkpoint of these parts, though each row of it is live."""
    values = [] if split is None else split.values.values()
    of_blobs, of_writes = sum(map(len, values)), sum(len(write.blob) for write in writes)
    if of_blobs + of_writes < MOST_GATHERED >> 1 and len(writes) < FEW:
        return  # nearly all are so, and told at once
    if split is not None:
        of_blobs = _bytes((raw, channel, split.value_type) for channel, raw in split.values.items())
    of_writes = _bytes((w.blob, w.task_id, w.channel, w.type, w.task_path, "idx") for w in writes)
    if of_blobs > MOST_GATHERED:
        largest = max(split.values, key=lambda name: len(split.values[name])) if split else ""
        why = f"its channels together {EXCEED} (the largest: channel {quoted(largest)})"
        yield Problem("checkpoint", why)
    if of_writes > MOST_GATHERED:
        yield Problem("writes.value", f"the writes of this checkpoint together {EXCEED}")
    if of_blobs + of_writes + len(checkpoint) + len(metadata) > MOST_OF_A_ROW:
        why = "it and its writes together exceed 1 GiB, the most that PostgreSQL sends as one row"
        yield Problem("checkpoint", why)


def _bytes(entries: Iterable[tuple[bytes | str, ...]]) -> int:
    """The bytes of an array of such entries, or a little more."""
    return sum(
        OF_AN_ELEMENT + len(part) * (UTF8 if isinstance(part, str) else 1)
        for entry in entries
        for part in entry
    )
