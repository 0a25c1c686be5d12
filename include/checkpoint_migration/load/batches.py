"""Import: which batches each task takes, and batch after batch into staging."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..exportfile import check_length, read_batch, read_manifest
from ..findings import Counts
from ..model import BatchEntry, BatchRange, Export, Load, Manifest, Receipt
from ..postgres import Connect, transaction
from ..settings import Settings
from ..storage import RunFolder
from ..task_sizes import TaskSizes
from .copy_batch import copy_batch
from .kinds import Kind, kind_of
from .staging import prepare_store


def manifest_of(folder: RunFolder, export: Export) -> Manifest:
    """The manifest of an export, which must be the very one that the export task handed on."""
    manifest = _manifest(folder, export.path, export.manifest_sha256)
    check_length(Path(export.path), manifest, folder.length(export.path))
    return manifest


def manifest_path(export_path: str) -> str:
    return export_path.removesuffix(".jsonl.zst") + ".manifest.json"


def _manifest(folder: RunFolder, export_path: str, sha256: str) -> Manifest:
    with folder.fetched(manifest_path(export_path)) as path:
        return read_manifest(path, sha256)


def _rows(
    folder: RunFolder, export_path: str, kind: Kind, number: int, entry: BatchEntry
) -> Iterator[Any]:
    """The rows of a batch; nothing is fetched before the first is asked for."""
    with folder.batch(export_path, entry) as (path, placed):
        yield from read_batch(path, number, placed, kind.decode)


def plan_loads(exports: Sequence[Export], sizes: TaskSizes) -> list[Load]:
    """A task for each batch while batches are few; else tasks of as many each, as `sizes` says."""
    total = sum(export.batches for export in exports)
    tasks = sizes.loads(total)
    loads: list[Load] = []
    queue = [(export, number) for export in exports for number in range(export.batches)]
    for index in range(tasks):
        start, end = index * total // tasks, (index + 1) * total // tasks
        numbers = f"batch {start + 1}" if end == start + 1 else f"batches {start + 1} to {end}"
        taken = queue[start:end]
        label = f"{numbers} of {total} · {_named(taken[0][0], taken[-1][0])}"
        loads.append(Load(index, label, tuple(_ranges(taken))))
    return loads


def _named(first: Export, last: Export) -> str:
    """Whose batches they are: an export says which threads it took."""
    if first.shard == last.shard:
        return first.label
    return f"shards {first.shard} to {last.shard}, from {first.label}"


def _ranges(batches: Sequence[tuple[Export, int]]) -> list[BatchRange]:
    ranges: list[BatchRange] = []
    for export, number in batches:
        last = ranges[-1] if ranges else None
        if last is not None and last.shard == export.shard:
            ranges[-1] = BatchRange(
                last.shard, last.path, last.manifest_sha256, last.first, last.count + 1
            )
        else:
            ranges.append(BatchRange(export.shard, export.path, export.manifest_sha256, number, 1))
    return ranges


def load_range(
    connect: Connect,
    settings: Settings,
    folder: RunFolder,
    batches: BatchRange,
    told: Callable[[Receipt], None] | None = None,
) -> list[Receipt]:
    """Load consecutive batches, each once: one whose receipt is there is not read again."""
    manifest = _manifest(folder, batches.path, batches.manifest_sha256)
    kind = kind_of(is_store=manifest.is_store)
    numbers = range(batches.first, batches.first + batches.count)
    if manifest.is_store:
        vectors = any(manifest.batches[number].vectors for number in numbers)
        prepare_store(connect, settings, vectors=vectors)
    receipts: list[Receipt] = []
    for number in numbers:
        entry = manifest.batches[number]
        rows = _rows(folder, batches.path, kind, number, entry)
        receipt = copy_batch(connect, settings, kind, batches.shard, number, entry, rows)
        receipts.append(receipt)
        if told is not None:
            told(receipt)
    return receipts


def load_missing(connect: Connect, settings: Settings, folder: RunFolder, export: Export) -> int:
    """Load the batches of an export that have no receipt: those a crash of the server lost.

    Returns how many there were.
    """
    manifest = manifest_of(folder, export)
    receipts = kind_of(is_store=manifest.is_store).receipts
    with transaction(connect, "reading receipts", read_only=True) as conn:
        missing = [
            number
            for number, entry in enumerate(manifest.batches)
            if receipts.find(conn, settings.key, export.shard, number, entry.sha256) is None
        ]
    for number in missing:
        load_range(
            connect,
            settings,
            folder,
            BatchRange(export.shard, export.path, export.manifest_sha256, number, 1),
        )
    return len(missing)


def total_of(receipts: Sequence[Receipt]) -> Counts:
    return sum((receipt.counts for receipt in receipts), Counts(0, 0, 0))
