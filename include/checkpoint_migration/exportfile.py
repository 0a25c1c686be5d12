"""The export file: JSON Lines in zstd frames, a frame for each batch, and the manifest beside it.

Who writes one is `export/writer.py`.
"""

from __future__ import annotations

import hashlib
import io
from binascii import Error as BinasciiError
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import zstandard
from pybase64 import b64decode, b64encode

from .errors import ExportCorrupted
from .model import BatchEntry, Manifest, TargetBlob, TargetCheckpoint, TargetWrite
from .storage import atomic_file, open_regular

MAX_MANIFEST = 256 << 20
MAX_WINDOW = 1 << 27
READ = 1 << 20
QUOTE = ord('"')
SHORT = 250  # bytes that are encoded at once with all the rest


class _Blob(msgspec.Struct):
    """Its bytes are mostly long: their base64 is left to a library for that alone."""

    channel: str
    version: str
    type: str
    blob: msgspec.Raw


class _Write(msgspec.Struct):
    task_id: str
    task_path: str
    idx: int
    channel: str
    type: str
    blob: bytes


class _Row(msgspec.Struct):
    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    parent_checkpoint_id: str | None
    checkpoint: msgspec.Raw
    metadata: msgspec.Raw


class _Key(msgspec.Struct):
    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str


class _Line(msgspec.Struct, omit_defaults=True):
    """One line: a checkpoint, or (`orphan_writes`) the key of writes that have none."""

    checkpoint: _Row | None = None
    orphan_writes: _Key | None = None
    blobs: list[_Blob] = []
    writes: list[_Write] = []
    original_metadata: bytes | None = None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Line)


def encode_line(row: TargetCheckpoint) -> bytes:
    """A target row with its blobs and writes as one line of JSON, bytes in base64."""
    writes = [_Write(*w[:5], _text(w.blob)) for w in row.writes]
    if row.checkpoint is None or row.metadata is None:
        key = _Key(row.thread_id, row.checkpoint_ns, row.checkpoint_id)
        return _encoder.encode_lines((_Line(orphan_writes=key, writes=writes),))
    checkpoint = _Row(
        row.thread_id,
        row.checkpoint_ns,
        row.checkpoint_id,
        row.parent_checkpoint_id,
        msgspec.Raw(row.checkpoint),
        msgspec.Raw(row.metadata),
    )
    blobs = [_Blob(*b[:3], _text(b.blob)) for b in row.blobs]
    line = _Line(
        checkpoint=checkpoint,
        blobs=blobs,
        writes=writes,
        original_metadata=row.original_metadata,
    )
    return _encoder.encode_lines((line,))  # its end with it: a long line is not copied for it


def _text(blob: bytes) -> Any:
    """Bytes as they are encoded soonest: by a library for that alone, unless the call or a copy costs more."""
    return msgspec.Raw(b'"%b"' % b64encode(blob)) if SHORT < len(blob) <= READ else blob


def _bytes_of(text: msgspec.Raw) -> bytes:
    """The bytes of a JSON string of base64."""
    quoted = memoryview(text)
    if quoted[0] != QUOTE:
        raise msgspec.ValidationError("bytes are no text")
    return b64decode(quoted[1:-1], validate=True)


def decode_line(line: bytes) -> TargetCheckpoint:
    """The row that a line holds."""
    parsed = _decoder.decode(line)
    row, key = parsed.checkpoint, parsed.orphan_writes
    writes = [
        TargetWrite(w.task_id, w.task_path, w.idx, w.channel, w.type, w.blob) for w in parsed.writes
    ]
    if row is not None:
        return TargetCheckpoint(
            row.thread_id,
            row.checkpoint_ns,
            row.checkpoint_id,
            row.parent_checkpoint_id,
            bytes(row.checkpoint),
            bytes(row.metadata),
            [TargetBlob(b.channel, b.version, b.type, _bytes_of(b.blob)) for b in parsed.blobs],
            writes,
            parsed.original_metadata,
        )
    if key is None:
        raise msgspec.ValidationError("neither a checkpoint nor orphan writes")
    return TargetCheckpoint(
        key.thread_id, key.checkpoint_ns, key.checkpoint_id, None, None, None, [], writes
    )


def write_manifest(path: Path, manifest: Manifest) -> str:
    """Write a manifest; returns its SHA-256, which travels apart from it."""
    data = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
    with atomic_file(path) as file:
        file.write(data)
    return hashlib.sha256(data).hexdigest()


def read_manifest(path: Path, sha256: str) -> Manifest:
    """Read a manifest, or raise `ExportCorrupted` where it is not the one with this SHA-256."""
    with open_regular(path) as file:
        data = file.read(MAX_MANIFEST + 1)
    found = hashlib.sha256(data).hexdigest()
    if found != sha256 or len(data) > MAX_MANIFEST:
        raise _corrupted(
            path, "the manifest", f"expected sha256 {sha256[:12]}…, read {found[:12]}…"
        )
    return msgspec.json.decode(data, type=Manifest)


def check_batch(path: Path, number: int, batch: BatchEntry) -> None:
    """Compare a batch's bytes with its manifest, before a byte of it is decompressed."""
    digest = hashlib.sha256()
    left = batch.length
    with open_regular(path) as file:
        file.seek(batch.offset)
        while left:
            data = file.read(min(left, READ))
            if not data:
                raise _corrupted(path, f"batch {number}", f"the file ends {left:,} bytes too early")
            digest.update(data)
            left -= len(data)
    if digest.hexdigest() != batch.sha256:
        raise _corrupted(
            path,
            f"batch {number}",
            f"expected sha256 {batch.sha256[:12]}…, read {digest.hexdigest()[:12]}… "
            f"({batch.checkpoints:,} checkpoints, {batch.length:,} bytes)",
        )


def check_length(path: Path, manifest: Manifest, size: int) -> None:
    """Compare the length of an export file (-1: it is not there) with its manifest."""
    if size != manifest.length:
        raise _corrupted(path, "the file", f"expected {manifest.length:,} bytes, found {size:,}")


def read_batch(
    path: Path, number: int, batch: BatchEntry, decode: Callable[[bytes], Any] = decode_line
) -> Iterator[Any]:
    """The rows of a batch, one line in memory at a time; checked first, and bounded by its manifest."""
    check_batch(path, number, batch)
    with open_regular(path) as file:
        file.seek(batch.offset)
        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
        source = io.BytesIO(file.read(batch.length)) if batch.length <= READ else file
        with decompressor.stream_reader(source, read_across_frames=False, closefd=False) as frame:
            lines = io.BufferedReader(frame, buffer_size=READ)
            left = batch.raw_length
            try:
                while left > 0:
                    line = lines.readline(left)
                    left -= len(line)
                    if not line.endswith(b"\n"):
                        raise _corrupted(path, f"batch {number}", "a line is cut")
                    yield decode(line)
                if lines.read(1):
                    raise _corrupted(path, f"batch {number}", "it is longer than it claims")
            except (msgspec.MsgspecError, zstandard.ZstdError, UnicodeDecodeError, BinasciiError):
                raise _corrupted(
                    path, f"batch {number}", "a line is not what it should be"
                ) from None


def _corrupted(path: Path, part: str, fact: str) -> ExportCorrupted:
    shard = path.name.split(".")[0]
    return ExportCorrupted(
        f"{part} of export {shard} does not match its manifest: {fact}.",
        safe="the source is untouched; nothing of this batch reached PostgreSQL.",
        next=f"clear export_threads[{int(shard) if shard.isdigit() else shard}] to export it again; "
        "if it repeats, check the volume behind export_uri.",
        path=str(path),
    )
