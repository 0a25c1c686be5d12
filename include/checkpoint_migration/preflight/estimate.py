"""How much room and time a migration will take: a guess from a look at the source, no bound."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from ..errors import StorageRefused
from ..figures import format_about, format_bytes
from ..model import SourceInfo
from ..settings import Settings
from ..storage import storage_errors

# Measured on two cores with 20,000 checkpoints of 8.8 KB and 40,000 writes (218 MB), whole
# pipeline: about 4,000 checkpoints a second. Half of that is per row, half per byte.
SECONDS_PER_CHECKPOINT = 1 / 8_000
SECONDS_PER_WRITE = 1 / 80_000
SECONDS_PER_BYTE = 1 / (8_000 * 8_800)
SECONDS_AT_LEAST = 2.0

# What Airflow itself takes for each task, whatever it does: measured in one process (`dags test`) and
# under a scheduler with two workers.
SECONDS_PER_TASK = (0.15, 2.0)
OTHER_TASKS = 7  # those that are not mapped

# Exports hold each version of a channel once, compressed: 0.07 of the source where the state is
# text, up to 0.8 where it does not compress.
EXPORT_SHARE = 0.35

# Live rows with their indexes: a table of small checkpoints (12.7 MB became 14.3 MB) and the one
# above (68 MB of blobs) agree with this. Promoting wrote 117 MB of WAL for 218 MB: as much again.
TARGET_PER_CHECKPOINT = 1_300
TARGET_PER_WRITE = 450
TARGET_SHARE = 0.35

# Python, psycopg and a batch; a row is in memory as bytes, slices, base64, line and frame at once.
MEMORY_BASE = 150 << 20
MEMORY_COPIES = 6

MARGIN = 64 << 20  # left over for logs, reports and temporary files


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes and seconds. `target_bytes` counts the live rows; staging needs as much until promote.

    `folder_bytes` is what the run's folder needs at its fullest: the frozen source and the exports.
    """

    frozen_bytes: int
    export_bytes: int
    target_bytes: int
    wal_bytes: int
    memory_bytes: int
    seconds: float
    tasks: int = OTHER_TASKS

    @property
    def folder_bytes(self) -> int:
        return self.frozen_bytes + self.export_bytes

    @property
    def server_bytes(self) -> int:
        return 2 * self.target_bytes + self.wal_bytes

    def sentence(self) -> str:
        """One line for a log."""
        least, most = (format_about(self.tasks * each) for each in SECONDS_PER_TASK)
        return (
            f"about {format_about(self.seconds)} of work; Airflow's own cost of {self.tasks:,} tasks adds"
            f" {least} (dags test) to {most} (a scheduler); {format_bytes(self.folder_bytes)} in the export"
            f" folder; {format_bytes(self.server_bytes)} on the server at the fullest,"
            f" {format_bytes(self.target_bytes)} of it to stay;"
            f" {format_bytes(self.memory_bytes)} of memory for a task"
        )


def estimate(info: SourceInfo, settings: Settings | None = None) -> Estimate:
    """Guess what migrating this source takes. A run's own thread filter is not looked at."""
    items = info.store.items + info.store.vectors if info.store is not None else 0
    target = (
        info.counts.checkpoints * TARGET_PER_CHECKPOINT
        + (info.counts.writes + items) * TARGET_PER_WRITE
        + int(info.bytes * TARGET_SHARE)
    )
    seconds = (
        info.counts.checkpoints * SECONDS_PER_CHECKPOINT
        + (info.counts.writes + items) * SECONDS_PER_WRITE
        + info.bytes * SECONDS_PER_BYTE
    )
    return Estimate(
        frozen_bytes=info.bytes,
        export_bytes=int(info.bytes * EXPORT_SHARE),
        target_bytes=target,
        wal_bytes=target,
        memory_bytes=MEMORY_BASE + MEMORY_COPIES * info.max_row_bytes,
        seconds=max(SECONDS_AT_LEAST, seconds),
        tasks=OTHER_TASKS if settings is None else tasks_of(info, settings),
    )


def tasks_of(info: SourceInfo, settings: Settings) -> int:
    """How many tasks Airflow will run: each shard is exported and verified, each batch loaded."""
    shards = settings.sizes.shards(info.threads, info.bytes)
    batches = shards + info.counts.checkpoints // settings.batch_size
    return OTHER_TASKS + 2 * shards + settings.sizes.loads(batches)


def free_bytes(folder: Path) -> int:
    """Bytes free on the volume that holds `folder`, or will once it is made."""
    there = next(p for p in (folder, *folder.parents) if p.exists())
    with storage_errors("asking for free room", there):
        return shutil.disk_usage(there).free


def check_disk(folder: Path, needed: int) -> int:
    """Return the bytes free at `folder`, or raise `StorageRefused` when `needed` do not fit."""
    free = free_bytes(folder)
    if free < needed + MARGIN:
        raise StorageRefused(
            f"the volume of {folder} has {format_bytes(free)} free; the frozen source and the"
            f" export files need about {format_bytes(needed + MARGIN)}.",
            next="make room there, or give an export_uri on a larger volume; `threads` makes the"
            " exports smaller, though never the frozen source.",
            path=str(folder),
            free=free,
            needed=needed + MARGIN,
        )
    return free
