"""load_batch: copy a task's batches into staging, each in a transaction of its own, each once."""

from __future__ import annotations

from ..load.batches import load_range, total_of
from ..load.staging import prepare
from ..model import Load, Receipt
from ..run import records
from ..run.run import Run


def load_batch(run: Run, load: Load) -> list[Receipt]:
    """Load a task's batches into staging, each in a transaction of its own, each once."""
    with run.step(records.LoadBatch, load.index) as step:
        if step.is_done:
            return []
        prepare(run.connect, run.settings)
        total = sum(batches.count for batches in load.batches) * run.settings.batch_size
        progress = run.progress(total, "loaded")

        def told(receipt: Receipt) -> None:
            count = progress.skip if receipt.already_done else progress.advance
            count(receipt.counts.checkpoints + receipt.counts.items)

        receipts = [
            receipt
            for batches in load.batches
            for receipt in load_range(run.connect, run.settings, run.folder, batches, told)
        ]
        loaded = total_of(receipts)
        progress.total = loaded.checkpoints + loaded.items
        if loaded.items:
            progress.unit = "items" if not loaded.checkpoints else "checkpoints and items"
        progress.done()
        step.record.moved = progress.count or None  # what was found is no work of this try
    before = sum(receipt.already_done for receipt in receipts)
    if before:
        run.log(f"{before:,} of {len(receipts):,} batches had their receipt: not loaded again")
    return receipts
