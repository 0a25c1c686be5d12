"""Export of the store: every item of the frozen source, with its vectors, into one export file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime

from .. import source
from ..convert.blockers import Unconvertible
from ..convert.store import changes_numbers, convert_item, is_curable
from ..exportfile import write_manifest
from ..findings import Blocker, Caution
from ..model import Export, Manifest, Shard
from ..postgres import Connect
from ..progress import no_progress
from ..settings import Settings
from ..storage import RunFolder
from ..store_model import ItemRow, TargetItem, VectorRow
from ..texts import printable
from .live_lookups import LONG_KEY, Lookups
from .writer import writing

NUMBERS = (
    "items of the store hold numbers that PostgresStore gives back written otherwise, as if it had put "
    "them itself (1e20 as an integer, -0.0 as 0.0)"
)

MINUTES = (
    "items of the store had a part of a minute in ttl_minutes: rounded up, as on_blocker: sanitize asks; the "
    "originals are in checkpoint_migration.originals"
)


def export_store(
    connect: Connect,
    settings: Settings,
    folder: RunFolder,
    shard: Shard,
    tables: tuple[str, ...],
    dimensions: int,
    advance: Callable[[int], None] = no_progress,
) -> Export:
    """Write the store's export file and manifest, each whole or not at all; repeatable to the byte.

    `tables` are those of the store's that the run takes; vectors must have `dimensions`. Items that
    PostgreSQL has no lossless place for become blockers in the manifest, all of them. Memory is bounded
    by the largest item with its vectors.
    """
    found = _Found(dimensions, sanitize=settings.on_blocker == "sanitize")
    with (
        closing(source.open_frozen(folder.fetch_frozen())) as frozen,
        writing(folder.export(shard.index), settings.batch_size) as writer,
    ):
        for item, vectors in source.items_with_vectors(frozen, tables):
            advance(1)
            converted = found.convert(item, vectors)
            if converted is not None:
                writer.add_item(converted)
        counts = writer.finish()
    blockers = [*found.blockers, *found.too_long(Lookups(connect, settings.target_schema))]
    manifest = Manifest(
        version=1,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        run=settings.key,
        shard=shard.index,
        threads=0,
        counts=counts,
        length=writer.length,
        batches=tuple(writer.batches),
        blockers=tuple(blockers),
        warnings=tuple(found.warnings()),
        curable=found.curable,
        is_store=True,
    )
    digest = write_manifest(folder.manifest(shard.index), manifest)
    folder.publish(folder.export(shard.index))
    folder.publish(folder.manifest(shard.index))  # last: where there is one, its file is whole
    path = folder.address(folder.export(shard.index))
    return Export(shard.index, path, digest, counts, len(manifest.batches), len(blockers))


class _Found:
    """What an export finds beside the rows: blockers, long keys, numbers that JSONB writes otherwise."""

    def __init__(self, dimensions: int, *, sanitize: bool) -> None:
        self._dimensions = dimensions
        self._sanitize = sanitize
        self._rounded = 0
        self.curable = 0
        self._long: list[tuple[str, str, str]] = []
        self._numbers = 0
        self.blockers: list[Blocker] = []

    def convert(self, item: ItemRow, vectors: list[VectorRow]) -> TargetItem | None:
        try:
            converted = convert_item(item, vectors, self._dimensions, sanitize=self._sanitize)
        except Unconvertible as error:
            place = ("", _named(item.prefix), _named(item.key))
            self.blockers += (Blocker(*place, column, why) for column, why in error.problems)
            self.curable += not self._sanitize and is_curable(error.problems)
            return None
        self._rounded += converted.original_minutes is not None
        self._numbers += changes_numbers(converted.value)
        longest = max((v.field_name for v in converted.vectors), key=len, default="")
        key = (converted.prefix, converted.key, longest)
        if sum(len(part.encode()) for part in key) > LONG_KEY:
            self._long.append(key)
        return converted

    def too_long(self, lookups: Lookups) -> Iterator[Blocker]:
        if not self._long:
            return
        for key, refused in zip(self._long, lookups.too_long(self._long), strict=True):
            if refused:
                why = "its key is longer than a row of PostgreSQL's index takes"
                yield Blocker("", key[0], key[1], "store.key", why)

    def warnings(self) -> Iterator[Caution]:
        if self._numbers:
            yield Caution("store_numbers", NUMBERS, self._numbers)
        if self._rounded:
            yield Caution("store_minutes", MINUTES, self._rounded)


def _named(part: object) -> str:
    return printable(part) if isinstance(part, str | bytes) else str(part)
