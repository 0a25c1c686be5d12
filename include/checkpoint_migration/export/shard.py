"""Export: the threads of one shard, from the frozen source into one export file and its manifest."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime

from .. import source
from ..convert.encryption import Sealer
from ..convert.thread_ts import id_of_time
from ..exportfile import write_manifest
from ..model import Export, Manifest, Shard
from ..postgres import Connect
from ..progress import no_progress
from ..settings import Settings
from ..storage import RunFolder
from .conversion import Conversion
from .live_lookups import Lookups
from .long_keys import keys_too_long
from .places import Places
from .with_writes import with_writes
from .writer import writing


def export_shard(
    connect: Connect,
    settings: Settings,
    folder: RunFolder,
    shard: Shard,
    advance: Callable[[int], None] = no_progress,
    aes_key: bytes | None = None,
) -> Export:
    """Write a shard's export file and manifest, each whole or not at all; repeatable to the byte.

    Rows that PostgreSQL has no lossless place for become blockers in the manifest, all of them, and
    the export itself succeeds. Nothing is written to the target; it is asked which versions are
    live. Memory is bounded by the largest checkpoint with its writes. Raises `KeyNeeded` for
    encrypted checkpoints without their key.
    """
    with (
        closing(source.open_frozen(folder.fetch_frozen())) as frozen,
        writing(folder.export(shard.index), settings.batch_size) as writer,
    ):
        source.show_as_today(frozen, id_of_time)
        conversion = Conversion(settings, is_old=source.has_old_layout(frozen))
        sealer = Sealer(aes_key) if aes_key else None
        places = Places(connect, settings, folder, shard, frozen, sealer)
        writes = source.iter_writes(frozen, shard, settings.threads, alone=True)
        for ready, of_it in with_writes(places.checkpoints(), writes):
            converted = conversion.convert(ready, of_it)
            if converted is not None:
                writer.add(converted)
            if ready is not None:
                advance(1)
        lookups = Lookups(connect, settings.target_schema)
        blockers = [*conversion.blockers, *keys_too_long(lookups, conversion.long_keys)]
        counts = writer.finish()
    manifest = Manifest(
        version=1,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        run=settings.key,
        shard=shard.index,
        threads=shard.threads,
        counts=counts,
        length=writer.length,
        batches=tuple(writer.batches),
        blockers=tuple(blockers),
        warnings=conversion.value_warnings.warnings(),
        classes=dict(sorted(conversion.value_warnings.classes.items())),
        curable=conversion.curable,
    )
    digest = write_manifest(folder.manifest(shard.index), manifest)
    folder.publish(folder.export(shard.index))
    folder.publish(folder.manifest(shard.index))  # last: where there is one, its file is whole
    path = folder.address(folder.export(shard.index))
    batches = len(manifest.batches)
    return Export(shard.index, path, digest, counts, batches, len(blockers), label=shard.named)
