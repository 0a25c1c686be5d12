"""Import: which batches each task takes, and batch after batch into staging."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..exportfile import check_length, read_batch, read_manifest
from ..findings import Counts
from ..itemlines import decode_item
from ..model import BatchRange, Export, Load, Manifest, Receipt
from ..postgres import Connect, transaction
from ..run import ledger, store_ledger
from ..settings import Settings
from ..task_sizes import TaskSizes
from .copy_batch import copy_batch
from .copy_items import copy_items


def manifest_of(export: Export) -> Manifest:
    """The manifest of an export, which must be the very one that the export task handed on."""
    manifest = read_manifest(manifest_path(export.path), export.manifest_sha256)
    check_length(Path(export.path), manifest)
    return manifest


def manifest_path(export_path: str) -> Path:
    path = Path(export_path)
    return path.with_name(path.name.removesuffix(".jsonl.zst") + ".manifest.json")


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
    batches: BatchRange,
    told: Callable[[Receipt], None] | None = None,
) -> list[Receipt]:
    """Load consecutive batches, each once: one whose receipt is there is not read again."""
    path = Path(batches.path)
    manifest = read_manifest(manifest_path(batches.path), batches.manifest_sha256)
    receipts: list[Receipt] = []
    for number in range(batches.first, batches.first + batches.count):
        entry = manifest.batches[number]
        if manifest.is_store:
            items = read_batch(path, number, entry, decode_item)
            receipt = copy_items(connect, settings, batches.shard, number, entry, items)
        else:
            rows = read_batch(path, number, entry)
            receipt = copy_batch(connect, settings, batches.shard, number, entry, rows)
        receipts.append(receipt)
        if told is not None:
            told(receipt)
    return receipts


def load_missing(connect: Connect, settings: Settings, export: Export) -> int:
    """Load the batches of an export that have no receipt: those a crash of the server lost.

    Returns how many there were.
    """
    manifest = manifest_of(export)
    receipts = store_ledger if manifest.is_store else ledger
    with transaction(connect, "reading receipts", read_only=True) as conn:
        missing = [
            number
            for number, entry in enumerate(manifest.batches)
            if receipts.find_receipt(conn, settings.key, export.shard, number, entry.sha256) is None
        ]
    for number in missing:
        load_range(
            connect,
            settings,
            BatchRange(export.shard, export.path, export.manifest_sha256, number, 1),
        )
    return len(missing)


def total_of(receipts: Sequence[Receipt]) -> Counts:
    return sum((receipt.counts for receipt in receipts), Counts(0, 0, 0))
