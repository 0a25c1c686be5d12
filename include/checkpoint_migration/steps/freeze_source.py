"""freeze_source: make the one consistent copy that every later step reads."""

from __future__ import annotations

from typing import Any

from msgspec.structs import asdict, replace

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
        settings, folder = run.settings, run.folder
        is_published = folder.has_frozen()
        if is_published:
            folder.fetch_frozen()
        elif folder.frozen.is_file():
            folder.frozen.unlink()  # of an earlier life of the run, or never published
        objects = None if folder.frozen.exists() else run.objects  # then nothing is fetched
        with source.at_hand(settings.source, objects, folder.path) as (path, seen):
            info = source.freeze(
                path, folder.frozen, settings.threads, with_store=settings.store == "auto"
            )
        if not is_published:
            folder.publish(folder.frozen)
        source.forget_fetched(folder.path)
        info = step.record.frozen = replace(info, uri=settings.source)
        step.record.seen = seen
    run.log(f"frozen: {info.bytes:,} bytes")
    return {"path": run.folder.address(run.folder.frozen), "counts": asdict(info.counts)}
