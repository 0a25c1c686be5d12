"""The two passes over a shard: every state of every version first, then row after row converted."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from .. import source
from ..convert.blockers import Problem, Unconvertible, key_problems
from ..convert.encryption import Sealer, key_missing, sealed_type
from ..convert.formats import SPLITTERS, Split, Splitter
from ..convert.metadata import convert_metadata
from ..convert.pickles import split_pickle
from ..convert.rows import (
    Seal,
    channel_states,
    convert_checkpoint,
    convert_write,
    take_apart,
    unknown_keys,
)
from ..convert.value_warnings import ValueWarnings
from ..convert.versions import Key, Stored
from ..exportfile import ExportWriter
from ..findings import Blocker
from ..model import (
    CheckpointRow,
    Shard,
    TargetBlob,
    TargetCheckpoint,
    TargetWrite,
    WriteRow,
)
from ..settings import Settings
from ..texts import printable
from .long_keys import LongKey, long_keys
from .past import Lineage
from .version_book import VersionBook
from .with_writes import row_key, with_writes

MAX_WRITES_OF_ONE = (1 << 30) - (1 << 20)  # the reader gathers a checkpoint's writes in one array

KEPT_BYTES = 16 << 20  # of checkpoints that the first pass took apart and the second need not
KEPT_EACH = 3_000  # bytes that one taken apart needs beside its own

TakenApart = tuple[Split, str, Stored | None]


class Passes:
    """Both passes, and what they find beside the rows: blockers, long keys, what to warn of."""

    def __init__(
        self,
        settings: Settings,
        shard: Shard,
        frozen: sqlite3.Connection,
        book: VersionBook,
        sealer: Sealer | None,
    ) -> None:
        self._settings, self._shard, self._frozen = settings, shard, frozen
        self._book, self._sealer = book, sealer
        self._splitters = _splitters(settings, sealer)
        self._kept: dict[int, TakenApart] = {}
        self._lineage = Lineage(frozen, self._splitters, sealer)
        self.blockers: list[Blocker] = []
        self.long_keys: list[LongKey] = []
        self.value_warnings = ValueWarnings()
        self.curable = 0

    def _take_apart(self, ordinal: int, row: CheckpointRow) -> TakenApart:
        """A row's split, the type its values are stored under, and how they are sealed if at all."""
        kept = self._kept.pop(ordinal, None)
        if kept is not None:
            return kept
        split = take_apart(
            row,
            self._splitters,
            lambda value_type: self._lineage.sends_before(row, value_type),
            lambda: self._lineage.edges(row),
        )
        if sealed_type(row.type) and self._sealer is not None:
            return split, str(row.type), self._sealer.seal
        return split, split.value_type, None

    def note_versions(self) -> list[str]:
        """First pass: every state of every version; returns the shard's threads."""
        threads: list[str] = []
        room = KEPT_BYTES
        rows = source.iter_checkpoints(self._frozen, self._shard, self._settings.threads)
        for ordinal, row in enumerate(rows):
            if key_problems(row):
                continue
            thread_id, ns = str(row.thread_id), str(row.checkpoint_ns)
            if not threads or threads[-1] != thread_id:
                threads.append(thread_id)
            try:
                apart = self._take_apart(ordinal, row)
            except Unconvertible:
                continue  # the second pass says why
            split, kind, stored = apart
            room -= len(row.checkpoint or b"") + KEPT_EACH
            if room > 0:
                self._kept[ordinal] = apart
            self._book.turn_to(thread_id, ns)
            for channel, version, raw in channel_states(split):
                self._book.note(ordinal, channel, version, kind, raw, stored)
        return threads

    def write_rows(self, writer: ExportWriter, advance: Callable[[int], None]) -> None:
        """Second pass: convert and write row after row."""
        for ordinal, row, writes in with_writes(self._frozen, self._shard, self._settings.threads):
            converted = self._convert(ordinal, row, writes)
            if row is not None:
                advance(1)
            if converted is None:
                continue
            self.value_warnings.note_thread(converted.thread_id, converted.metadata)
            writer.add(converted)
            self.long_keys += ((converted[:3], key) for key in long_keys(converted))

    def _convert(
        self, ordinal: int, row: CheckpointRow | None, writes: list[WriteRow]
    ) -> TargetCheckpoint | None:
        first = row if row is not None else writes[0]
        bad_key = key_problems(first)
        problems = list(bad_key)
        converted_writes = _convert_writes(writes, problems)
        checkpoint = metadata = original = None
        blobs: list[TargetBlob] = []
        if row is not None:
            metadata, original = self._metadata(row, problems)
            if not bad_key:
                checkpoint, blobs = self._checkpoint(ordinal, row, problems)
            else:
                self._look_into(ordinal, row, problems)
        if problems:
            thread_id, ns, checkpoint_id = map(printable, row_key(first))
            self.blockers += (
                Blocker(thread_id, ns, checkpoint_id, column, why)
                for column, why in dict.fromkeys(problems)
            )
            return None
        parent = (
            None
            if row is None or row.parent_checkpoint_id is None
            else str(row.parent_checkpoint_id)
        )
        return TargetCheckpoint(
            str(first.thread_id),
            str(first.checkpoint_ns),
            str(first.checkpoint_id),
            parent,
            checkpoint,
            metadata,
            blobs,
            converted_writes,
            original,
        )

    def _metadata(
        self, row: CheckpointRow, problems: list[Problem]
    ) -> tuple[bytes | None, bytes | None]:
        """The metadata to store, and the source's bytes where it had to be sanitised."""
        sanitize = self._settings.on_blocker == "sanitize"
        try:
            metadata, refused = convert_metadata(row.metadata, sanitize=sanitize)
        except Unconvertible as error:
            problems += error.problems
            if not sanitize:
                self.curable += _is_curable(row)
            return None, None
        if refused is None or row.metadata is None:
            return metadata, None
        self.value_warnings.note("sanitized", printable(row.thread_id))
        return metadata, row.metadata.encode() if isinstance(row.metadata, str) else row.metadata

    def _look_into(self, ordinal: int, row: CheckpointRow, problems: list[Problem]) -> None:
        """See what else is wrong with a row whose key has no place, so that one run tells all."""
        try:
            self._take_apart(ordinal, row)
        except Unconvertible as error:
            problems += error.problems

    def _checkpoint(
        self, ordinal: int, row: CheckpointRow, problems: list[Problem]
    ) -> tuple[bytes | None, list[TargetBlob]]:
        thread_id, ns = str(row.thread_id), str(row.checkpoint_ns)
        self._book.turn_to(thread_id, ns)
        try:
            split, kind, stored = self._take_apart(ordinal, row)
            seal: Seal | None = None
            if stored is not None:
                self.value_warnings.note("encrypted", thread_id)

                def seal(channel: str, version: str, raw: bytes) -> bytes:
                    return stored(Key(thread_id, ns, channel, version), raw)

            checkpoint, blobs = convert_checkpoint(
                split,
                lambda channel, version, raw: self._book.resolve(
                    ordinal, channel, version, kind, raw, stored
                ),
                seal,
            )
        except Unconvertible as error:
            problems += error.problems
            return None, []
        if split.guessed:
            self.value_warnings.note("unproven_edges", thread_id)
        for key in unknown_keys(split):
            self.value_warnings.note_key(thread_id, key)
        for blob in blobs:
            raw = split.values.get(blob.channel, b"")
            self.value_warnings.note_value(thread_id, split.value_type, raw)
        return checkpoint, blobs


def _splitters(settings: Settings, sealer: Sealer | None) -> dict[str, Splitter]:
    """How each type of checkpoint is taken apart, as far as this run is allowed to."""
    splitters = dict(SPLITTERS)
    for plain, split in SPLITTERS.items():
        splitters[f"{plain}+aes"] = _opening(split, sealer)
    if settings.allow_pickle:
        splitters["pickle"] = split_pickle
    return splitters


def _opening(split: Splitter, sealer: Sealer | None) -> Splitter:
    def opened(blob: bytes) -> Split:
        if sealer is None:
            raise key_missing()
        return split(sealer.open(blob))

    return opened


def _is_curable(row: CheckpointRow) -> bool:
    """Whether `on_blocker: sanitize` would find a place for a row's metadata."""
    try:
        convert_metadata(row.metadata, sanitize=True)
    except Unconvertible:
        return False
    return True


def _convert_writes(writes: list[WriteRow], problems: list[Problem]) -> list[TargetWrite]:
    converted: list[TargetWrite] = []
    for write in writes:
        try:
            converted.append(convert_write(write))
        except Unconvertible as error:
            problems += (Problem(f"writes.{column}", why) for column, why in error.problems)
    if sum(len(write.blob) for write in converted) > MAX_WRITES_OF_ONE:
        problems.append(
            Problem(
                "writes.value",
                "the writes of this checkpoint exceed 1 GB, which the reader gathers",
            )
        )
    return converted
