"""Export: the threads of one shard, from the frozen source into one export file and its manifest."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime

from .. import source
from ..convert.encryption import Sealer
from ..exportfile import write_manifest, writing
from ..model import Export, Manifest, Shard
from ..postgres import Connect, transaction
from ..progress import no_progress
from ..settings import Settings
from ..storage import RunFolder
from .live_lookups import Lookups
from .long_keys import keys_too_long
from .two_passes import Passes
from .version_book import VersionBook


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
        closing(source.open_frozen(folder.frozen)) as frozen,
        VersionBook(folder.path) as book,
        writing(folder.export(shard.index), settings.batch_size) as writer,
    ):
        passes = Passes(settings, shard, frozen, book, Sealer(aes_key) if aes_key else None)
        # a rehearsal, too, asks the real tables, so that versions become what they would be
        lookups = Lookups(connect, settings.target_schema)
        _settle(connect, lookups, book, passes.note_versions())
        book.rewind()
        passes.write_rows(writer, advance)
        blockers = [*passes.blockers, *keys_too_long(lookups, passes.long_keys)]
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
        warnings=passes.value_warnings.warnings(),
        classes=dict(passes.value_warnings.classes),
        curable=passes.curable,
    )
    digest = write_manifest(folder.manifest(shard.index), manifest)
    path = str(folder.export(shard.index))
    return Export(shard.index, path, digest, counts, len(manifest.batches), len(blockers))


def _settle(connect: Connect, lookups: Lookups, book: VersionBook, threads: list[str]) -> None:
    live = lookups.live_threads(threads)
    if not live:
        book.settle(lambda _: None, iter(()))
        return
    known = frozenset(live)
    with transaction(connect, "reading live versions", read_only=True) as conn:
        book.settle(
            lambda key: lookups.owner(conn, key) if key.thread_id in known else None,
            lookups.occupied(live),
        )
