"""Bombs and values without bounds: a named limit or none, and memory within bounds, measured."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import resource
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import zstandard
from msgspec.structs import replace

from include import checkpoint_migration as engine
from include.checkpoint_migration.errors import ExportCorrupted
from include.checkpoint_migration.exportfile import MAX_WINDOW, read_batch
from include.checkpoint_migration.model import BatchEntry
from tests.support.engine import Migration
from tests.support.faults import write_source
from tests.support.postgres import Database

MEGABYTE = 1 << 20
SLACK = 48 * MEGABYTE  # what a process may grow by over an honest one
BOMB = 512 << 20  # what a bomb would unpack to

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])


def _measured(answers: Any, work: Any, args: tuple[Any, ...]) -> None:
    try:
        result = work(*args)
    except engine.MigrationError as error:
        result = error
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    answers.send((result, peak))


def measured(work: Any, *args: Any) -> tuple[Any, int]:
    """What work in a process of its own came to, and the most memory that it held."""
    mine, theirs = _processes.Pipe(duplex=False)
    process = _processes.Process(target=_measured, args=(theirs, work, args))
    process.start()
    theirs.close()
    assert mine.poll(120), "it hangs"
    answer = mine.recv()
    process.join(20)
    return answer


# --- zstd ---------------------------------------------------------------------------------------


def frame_of_zeros(length: int, window_log: int = 20) -> bytes:
    """A zstd frame of some kilobytes that unpacks to `length` bytes without a line's end."""
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=window_log)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    chunk = b"0" * (8 * MEGABYTE)
    packed = [compressor.compress(chunk) for _ in range(length // len(chunk))]
    return b"".join([*packed, compressor.flush()])


def read_all(path: str, entry: BatchEntry) -> int:
    return sum(1 for _ in read_batch(Path(path), 0, entry))


def entry_of(data: bytes, raw_length: int) -> BatchEntry:
    digest = hashlib.sha256(data).hexdigest()
    return BatchEntry(0, len(data), raw_length, 1, 0, 0, digest)


def test_a_zstd_bomb_is_refused_within_what_its_manifest_claims(tmp_path: Path) -> None:
    """Half a gigabyte of zeros in a frame are never unpacked beyond the length that was claimed."""
    honest = tmp_path / "0000.jsonl.zst"
    line = json.dumps(
        {"orphan_writes": dict.fromkeys(("thread_id", "checkpoint_ns", "checkpoint_id"), "x")}
    )
    packed = zstandard.ZstdCompressor().compress(line.encode() + b"\n")
    honest.write_bytes(packed)
    rows, usual = measured(read_all, str(honest), entry_of(packed, len(line) + 1))
    assert rows == 1
    bomb = tmp_path / "0001.jsonl.zst"
    data = frame_of_zeros(BOMB)
    assert len(data) < MEGABYTE
    bomb.write_bytes(data)
    error, peak = measured(read_all, str(bomb), entry_of(data, len(line) + 1))
    assert isinstance(error, ExportCorrupted)
    assert peak - usual < SLACK
    other = replace(entry_of(data, len(line) + 1), sha256="0" * 64)
    assert isinstance(measured(read_all, str(bomb), other)[0], ExportCorrupted)


def test_a_frame_that_wants_a_huge_window_is_refused(tmp_path: Path) -> None:
    """A frame may not ask for more memory than the limit on its window."""
    path = tmp_path / "0000.jsonl.zst"
    data = frame_of_zeros(64 * MEGABYTE, window_log=29)
    path.write_bytes(data)
    error, peak = measured(read_all, str(path), entry_of(data, 1000))
    assert isinstance(error, ExportCorrupted)
    assert peak < MAX_WINDOW + 256 * MEGABYTE


# --- msgpack and JSON ---------------------------------------------------------------------------

BOMBS = {
    "an array of four billion": b"\xdd\xff\xff\xff\xff",
    "a map of four billion": b"\xdf\xff\xff\xff\xff",
    "a text of four gigabytes": b"\xdb\xff\xff\xff\xff",
    "bytes of four gigabytes": b"\xc6\xff\xff\xff\xff",
    "an ext of four gigabytes": b"\xc9\xff\xff\xff\xff\x05",
    "arrays within arrays": b"\x91" * 100_000 + b"\xc0",
    "maps within maps": b"\x81\xa1a" * 100_000 + b"\xc0",
    "big arrays within big arrays": b"\xdd\x00\xff\xff\xff" * 50_000,
    "exts within exts": b"\xc7\x05\x05\xc7\x05\x05\xc0",
}
METADATA = {
    "deep arrays": b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"a": ' * 100_000 + b"1" + b"}" * 100_000,
    "a number without end": b'{"a": 1' + b"0" * 1_000_000 + b"}",
    "a monstrous exponent": b'{"a": 1e999999999}',
}


def bombed(path: Path, **columns: bytes) -> Path:
    write_source(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        for column, value in columns.items():
            conn.execute(
                f"UPDATE checkpoints SET {column} = ? WHERE thread_id = 'anna'",
                (value,),
            )
    return path


def run_all(dsn: str, source: str, exports: str, run_id: str) -> str:
    return str(Migration(dsn, Path(source), Path(exports), run_id=run_id).all()["verdict"])


@pytest.mark.parametrize("kind", ["msgpack", "json"])
def test_bombs_of_msgpack_and_json_are_blockers_within_bounds(
    database: Database, tmp_path: Path, kind: str
) -> None:
    """Each is named as a blocker, none is built in memory, and nothing goes live."""
    column = {"msgpack": "checkpoint", "json": "metadata"}[kind]
    plain = write_source(tmp_path / "plain.sqlite")
    verdict, usual = measured(run_all, database.dsn, str(plain), str(tmp_path / "e"), "plain")
    assert verdict == "identical"
    database.execute("TRUNCATE checkpoints, checkpoint_blobs, checkpoint_writes")
    database.execute("DROP SCHEMA checkpoint_migration CASCADE")
    for number, (name, value) in enumerate({"msgpack": BOMBS, "json": METADATA}[kind].items()):
        source = bombed(tmp_path / f"{number}.sqlite", **{column: value})
        error, peak = measured(
            run_all, database.dsn, str(source), str(tmp_path / "e"), f"bomb {number}"
        )
        assert isinstance(error, engine.MigrationError), name
        assert type(error).__name__ == "Blocked", (name, error)
        assert peak - usual < SLACK, (name, (peak - usual) >> 20)
    assert database.rows("SELECT count(*) FROM checkpoints") == [(0,)]
