"""Writes an export file: rows as lines, lines in zstd frames, a frame for each batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

import zstandard

from ..exportfile import encode_line
from ..findings import Counts
from ..itemlines import encode_item
from ..model import BatchEntry, TargetCheckpoint
from ..storage import atomic_file
from ..store_model import TargetItem

LEVEL = 1
PORTION = 1 << 18  # bytes of lines that are compressed together
SLICE = 1 << 23


class ExportWriter:
    """Writes rows into frames; a frame ends where the checkpoint after a full batch comes.

    Lines are compressed and written a portion at a time, in a thread that lets Python go on meanwhile.
    """

    def __init__(self, file: BinaryIO, batch_size: int) -> None:
        self._file = file
        self._batch_size = batch_size
        self._beside = ThreadPoolExecutor(1, "compressing")
        self._under_way: Future[None] | None = None
        self._portion: list[bytes] = []
        self._held = 0
        self._compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
        self._offset = 0
        self._open()
        self.batches: list[BatchEntry] = []

    def _open(self) -> None:
        self._frame = self._compressor.compressobj()
        self._digest = hashlib.sha256()
        self._start = self._offset
        self._raw = self._checkpoints = self._writes = self._blobs = 0
        self._items = self._vectors = 0

    def add(self, row: TargetCheckpoint) -> None:
        if row.checkpoint is not None:
            if self._checkpoints == self._batch_size:
                self._end()
            self._checkpoints += 1
        self._writes += len(row.writes)
        self._blobs += len(row.blobs)
        self._write(encode_line(row))

    def add_item(self, row: TargetItem) -> None:
        if self._items == self._batch_size:
            self._end()
        self._items += 1
        self._vectors += len(row.vectors)
        self._write(encode_item(row))

    def _write(self, line: bytes) -> None:
        self._raw += len(line)
        self._held += len(line)
        self._portion.append(line)
        if self._held >= PORTION:
            self._hand_on()

    def _hand_on(self) -> None:
        """Compress what is held, once the portion before it is."""
        self._catch_up()
        data = b"".join(self._portion)
        self._portion.clear()
        self._held = 0
        if len(data) < 2 * PORTION:
            self._under_way = self._beside.submit(self._compress, data)
        else:  # a large value is not to be in memory beside the next one
            self._compress(data)

    def _catch_up(self) -> None:
        if self._under_way is not None:
            self._under_way.result()
            self._under_way = None

    def _compress(self, data: bytes) -> None:
        whole = memoryview(data)
        for start in range(0, len(data), SLICE):  # what comes of a long line is not held whole
            self._put(self._frame.compress(whole[start : start + SLICE]))

    def _put(self, data: bytes) -> None:
        if data:
            self._file.write(data)
            self._digest.update(data)
            self._offset += len(data)

    def _end(self) -> None:
        self._hand_on()
        self._catch_up()
        self._put(self._frame.flush())
        self.batches.append(
            BatchEntry(
                offset=self._start,
                length=self._offset - self._start,
                raw_length=self._raw,
                checkpoints=self._checkpoints,
                writes=self._writes,
                blobs=self._blobs,
                sha256=self._digest.hexdigest(),
                items=self._items,
                vectors=self._vectors,
            )
        )
        self._open()

    def finish(self) -> Counts:
        """End the last frame; the counts of all batches."""
        if self._raw:
            self._end()
        return total(self.batches)

    def close(self) -> None:
        """End the thread; what it has begun is done then, well or not."""
        self._beside.shutdown()

    @property
    def length(self) -> int:
        return self._offset


def total(batches: list[BatchEntry] | tuple[BatchEntry, ...]) -> Counts:
    """The counts of batches together."""
    return Counts(
        sum(b.checkpoints for b in batches),
        sum(b.writes for b in batches),
        sum(b.blobs for b in batches),
        sum(b.items for b in batches),
        sum(b.vectors for b in batches),
    )


@contextmanager
def writing(path: Path, batch_size: int) -> Iterator[ExportWriter]:
    """An export file that takes its name, synced, when the block ends."""
    with atomic_file(path) as file, closing(ExportWriter(file, batch_size)) as writer:
        yield writer
