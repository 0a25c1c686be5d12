"""How many tasks a run is dealt out to: as many as its data is worth. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TaskSizes:
    """The numbers behind it. A task costs a part of a second to two seconds of Airflow, whatever it does.

    A thread is exported by itself while there are at most `threads_alone`; beyond, shards are as few as
    keep each below `shard_bytes` of state, at least `fewest_shards` (fewer where there is less than
    `shard_bytes_at_least` for each) and at most `max_export_tasks`. A batch is loaded by itself while
    there are at most `batches_alone`; beyond, there are at least `fewest_loads` tasks, more where one
    would take more than `batches_at_most`, and at most `max_load_tasks`.
    """

    threads_alone: int = 16
    shard_bytes: int = 64 << 20
    shard_bytes_at_least: int = 1 << 20
    fewest_shards: int = 8
    max_export_tasks: int = 64
    batches_alone: int = 32
    fewest_loads: int = 32
    batches_at_most: int = 200
    max_load_tasks: int = 256

    def shards(self, threads: int, state_bytes: int) -> int:
        """How many shards so many threads with so much state are worth."""
        if threads <= self.threads_alone:
            return min(threads, self.max_export_tasks)
        needed = math.ceil(state_bytes / self.shard_bytes)
        worth = min(self.fewest_shards, math.ceil(state_bytes / self.shard_bytes_at_least))
        return max(1, min(max(needed, worth), threads, self.max_export_tasks))

    def loads(self, batches: int) -> int:
        """How many tasks so many batches are dealt out to."""
        if batches <= self.batches_alone:
            return min(batches, self.max_load_tasks)
        needed = math.ceil(batches / self.batches_at_most)
        return min(max(needed, self.fewest_loads), batches, self.max_load_tasks)


USUAL = TaskSizes()
