"""freeze_source: make the one consistent copy that every later step reads."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from .. import source
from ..run import records
from ..run.run import Run


def freeze_source(run: Run) -> dict[str, Any]:
    """Make the frozen source: one consistent copy that every later step reads.

    Repeatable: a copy that is there is kept, because exports may have been made from it.
    """
    with run.step(records.FreezeSource) as step:
        if step.is_done:
            return {"already_done": True}
        settings = run.settings
        info = source.freeze(
            settings.source,
            run.folder.frozen,
            settings.threads,
            with_store=settings.store == "auto",
        )
        step.record.frozen = info
    run.log(f"frozen: {info.bytes:,} bytes")
    return {"path": str(run.folder.frozen), "counts": asdict(info.counts)}
