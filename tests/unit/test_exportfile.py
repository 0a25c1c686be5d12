"""The export file: what goes in comes out, anybody can read it, and any change is noticed."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import shutil
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from include.checkpoint_migration.errors import ExportCorrupted
from include.checkpoint_migration.export import writer
from include.checkpoint_migration.export.writer import PORTION, ExportWriter, total, writing
from include.checkpoint_migration.exportfile import (
    READ,
    SHORT,
    check_length,
    decode_line,
    encode_line,
    read_batch,
    read_manifest,
    write_manifest,
)
from include.checkpoint_migration.findings import Blocker, Counts
from include.checkpoint_migration.model import (
    BatchEntry,
    Manifest,
    TargetBlob,
    TargetCheckpoint,
    TargetWrite,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
documents = st.dictionaries(texts, st.integers() | texts | st.none(), max_size=3).map(
    lambda value: json.dumps(value).encode()
)
blobs = st.builds(TargetBlob, texts, texts, texts, st.binary(max_size=20))
writes = st.builds(
    TargetWrite,
    texts,
    texts,
    st.integers(-(2**31), 2**31 - 1),
    texts,
    texts,
    st.binary(max_size=20),
)
checkpoints = st.builds(
    TargetCheckpoint,
    texts,
    texts,
    texts,
    texts | st.none(),
    documents,
    documents,
    st.lists(blobs, max_size=3),
    st.lists(writes, max_size=3),
    st.binary(max_size=9) | st.none(),
)
orphans = st.builds(
    TargetCheckpoint,
    texts,
    texts,
    texts,
    st.none(),
    st.none(),
    st.none(),
    st.just([]),
    st.lists(writes, min_size=1, max_size=3),
    st.none(),
)
rows = checkpoints | orphans


def row(n: int, size: int = 30) -> TargetCheckpoint:
    text = json.dumps({"v": 4, "id": str(n), "é": [1.5, None]}).encode()
    blob = TargetBlob("messages", f"{n}.0", "msgpack", bytes([n % 256]) * size)
    write = TargetWrite("task", "~pull", n, "c", "msgpack", b"\x00\xff")
    return TargetCheckpoint(f"thread {n // 4}", "", f"{n:04}", None, text, b"{}", [blob], [write])


def orphan(n: int) -> TargetCheckpoint:
    return row(n)._replace(checkpoint=None, metadata=None, blobs=[])


def written(
    path: Path, drawn: list[TargetCheckpoint], batch_size: int = 3
) -> tuple[list[BatchEntry], Counts]:
    with writing(path, batch_size) as file:
        for item in drawn:
            file.add(item)
        counts = file.finish()
    assert file.length == path.stat().st_size
    return file.batches, counts


def read(path: Path, batches: list[BatchEntry]) -> list[TargetCheckpoint]:
    return [item for n, batch in enumerate(batches) for item in read_batch(path, n, batch)]


@given(rows)
def test_line_holds_the_row(drawn: TargetCheckpoint) -> None:
    """A row is one line of JSON, and comes back from it equal in every part."""
    line = encode_line(drawn)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode_line(line) == drawn
    json.loads(line)


def noisy(n: int, size: int) -> TargetCheckpoint:
    blob = TargetBlob("messages", f"{n}.0", "msgpack", random.Random(n).randbytes(size))
    return row(n)._replace(blobs=[blob])


def test_blobs_of_every_size_come_back(tmp_path: Path) -> None:
    """Their base64 is that of the standard library, however it is made."""
    sizes = [0, 1, SHORT, SHORT + 1, 4_000, PORTION, READ, READ + 1, 2 * READ]
    drawn = [noisy(n, size) for n, size in enumerate(sizes)]
    for item in drawn:
        (found,) = json.loads(encode_line(item))["blobs"]
        assert found["blob"] == base64.b64encode(item.blobs[0].blob).decode()
    path = tmp_path / "0000.jsonl.zst"
    batches, _ = written(path, drawn)
    assert read(path, batches) == drawn


def test_file_is_the_same_however_large_a_portion_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is compressed beside is what would be compressed at once, to the byte."""
    drawn = [noisy(n, 3_000 * (n % 5)) for n in range(400)]
    found: list[bytes] = []
    for portion in (1, 10_000, PORTION, 1 << 30):
        monkeypatch.setattr(writer, "PORTION", portion)
        path = tmp_path / f"{portion}.jsonl.zst"
        written(path, drawn, 150)
        found.append(path.read_bytes())
    assert len(set(found)) == 1


def test_what_goes_wrong_beside_is_raised_here_and_ends_the_thread() -> None:
    """A full disk stops the export before much more is converted, and before a manifest claims anything."""
    added: list[int] = []

    def export() -> None:
        with (
            Path("/dev/full").open("wb", buffering=0) as full,
            closing(ExportWriter(full, 1_000)) as file,
        ):
            for n in range(500):
                file.add(noisy(n, 60_000))
                added.append(n)

    with pytest.raises(OSError, match="No space left"):
        export()
    assert len(added) < 20
    assert not [thread for thread in threading.enumerate() if "compressing" in thread.name]


@given(st.lists(rows, max_size=12), st.integers(1, 4))
def test_batches_hold_all_rows_in_order(
    tmp_path: Path, drawn: list[TargetCheckpoint], batch_size: int
) -> None:
    """Batches follow one another without a gap, hold `batch_size` checkpoints, and count right."""
    path = tmp_path / "0000.jsonl.zst"
    batches, counts = written(path, drawn, batch_size)
    assert read(path, batches) == drawn
    in_all = sum(item.checkpoint is not None for item in drawn)
    assert (
        counts
        == total(batches)
        == Counts(
            in_all, sum(len(item.writes) for item in drawn), sum(len(item.blobs) for item in drawn)
        )
    )
    offset = 0
    for batch in batches:
        assert batch.offset == offset
        offset += batch.length
    assert offset == path.stat().st_size
    full = [batch.checkpoints for batch in batches[:-1]]
    assert full == [batch_size] * len(full)
    assert len(batches) == max(-(-in_all // batch_size), bool(drawn))


def test_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    """An export that is made again is the same file: its manifest's digests stay true."""
    drawn = [row(n) for n in range(10)]
    first, again = (written(tmp_path / name, drawn) for name in ("first", "again"))
    assert first == again
    assert (tmp_path / "first").read_bytes() == (tmp_path / "again").read_bytes()


def test_nothing_has_the_final_name_before_the_end(tmp_path: Path) -> None:
    """Until it is whole the file has another name, and a failure leaves none."""
    path = tmp_path / "0000.jsonl.zst"

    def fail() -> None:
        with writing(path, 2) as writer:
            writer.add(row(1))
            assert not path.exists()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []
    written(path, [row(1)])
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o777 == 0o600


def test_zstdcat_and_json_tool_read_it(tmp_path: Path) -> None:
    """`zstdcat` reads the frames as one, and `python -m json.tool --json-lines` every line."""
    zstdcat = shutil.which("zstdcat")
    if zstdcat is None:
        pytest.skip("there is no zstdcat")
    path = tmp_path / "0000.jsonl.zst"
    drawn = [*(row(n) for n in range(7)), orphan(7)]
    batches, _ = written(path, drawn)
    assert len(batches) == 3
    unpacked = subprocess.run([zstdcat, path], check=True, capture_output=True).stdout
    assert sum(batch.raw_length for batch in batches) == len(unpacked)
    tool = [sys.executable, "-m", "json.tool", "--json-lines", "--compact"]
    shown = subprocess.run(tool, input=unpacked, check=True, capture_output=True).stdout
    lines = [json.loads(line) for line in shown.splitlines()]
    assert [line["checkpoint"]["checkpoint_id"] for line in lines[:7]] == [r[2] for r in drawn[:7]]
    assert lines[0]["checkpoint"]["checkpoint"]["é"] == [1.5, None]
    assert base64.b64decode(lines[3]["blobs"][0]["blob"]) == drawn[3].blobs[0].blob
    assert lines[7]["orphan_writes"]["checkpoint_id"] == "0007"


def test_a_batch_is_a_byte_range_that_stands_alone(tmp_path: Path) -> None:
    """The bytes of one batch, cut out of the file, are a zstd file of their own."""
    zstdcat = shutil.which("zstdcat")
    if zstdcat is None:
        pytest.skip("there is no zstdcat")
    path = tmp_path / "0000.jsonl.zst"
    batches, _ = written(path, [row(n) for n in range(9)])
    second = batches[1]
    part = path.read_bytes()[second.offset : second.offset + second.length]
    unpacked = subprocess.run([zstdcat], input=part, check=True, capture_output=True).stdout
    assert [decode_line(line + b"\n") for line in unpacked.splitlines()] == [
        row(n) for n in (3, 4, 5)
    ]


@pytest.mark.parametrize("size", [30, 3_000_000])
def test_any_flipped_bit_is_found_before_a_row_comes_out(tmp_path: Path, size: int) -> None:
    """A batch whose bytes changed raises `ExportCorrupted` and yields nothing; others still read."""
    path = tmp_path / "0003.jsonl.zst"
    batches, _ = written(path, [row(n, size) for n in range(4)], batch_size=2)
    whole = path.read_bytes()
    first = batches[0]
    for at in {0, 1, 5, first.length // 2, first.length - 1}:
        changed = bytearray(whole)
        changed[at] ^= 1 << (at % 8)
        path.write_bytes(changed)
        came_out: list[TargetCheckpoint] = []
        with pytest.raises(ExportCorrupted, match="batch 0 of export 0003") as caught:
            came_out.extend(read_batch(path, 0, first))
        assert came_out == []
        assert "export_threads[3]" in caught.value.next
        assert list(read_batch(path, 1, batches[1])) == [row(2, size), row(3, size)]


def test_cut_file_is_found(tmp_path: Path) -> None:
    """A file that ends early is refused by its length, and its last batch by its bytes."""
    path = tmp_path / "0000.jsonl.zst"
    batches, counts = written(path, [row(n) for n in range(4)])
    manifest = manifest_of(batches, counts, path.stat().st_size)
    check_length(path, manifest, path.stat().st_size)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ExportCorrupted, match="expected"):
        check_length(path, manifest, path.stat().st_size)
    with pytest.raises(ExportCorrupted, match="1 bytes too early"):
        list(read_batch(path, 1, batches[1]))
    with pytest.raises(ExportCorrupted, match="found -1"):
        check_length(path, manifest, -1)


@pytest.mark.parametrize("claimed", [-5, 5])
def test_batch_that_claims_another_length_is_found(tmp_path: Path, claimed: int) -> None:
    """What is unpacked must be as long as the manifest says: no bomb, no missing end."""
    path = tmp_path / "0000.jsonl.zst"
    (batch,), _ = written(path, [row(n) for n in range(3)])
    wrong = BatchEntry(
        batch.offset,
        batch.length,
        batch.raw_length + claimed,
        batch.checkpoints,
        batch.writes,
        batch.blobs,
        batch.sha256,
    )
    with pytest.raises(ExportCorrupted):
        list(read_batch(path, 0, wrong))


@pytest.mark.parametrize(
    "blob", [b"7", b"null", b'["AAAA"]', b'"AAA"', b'"A A="', b'"AAAA\\u0041AAA"', b'"A\xc3\xa9="']
)
def test_bytes_that_are_no_base64_are_found(tmp_path: Path, blob: bytes) -> None:
    """A batch with a digest of its own making, as a defect of ours would write it, ends in its error."""
    path = tmp_path / "0000.jsonl.zst"
    line = encode_line(row(1))
    line = line.replace(base64.b64encode(bytes([1]) * 30).join((b'"', b'"')), blob)
    assert blob in line
    frame = zstandard.ZstdCompressor(write_checksum=True).compress(line)
    path.write_bytes(frame)
    sha256 = hashlib.sha256(frame).hexdigest()
    with pytest.raises(ExportCorrupted, match="a line is not what it should be"):
        list(read_batch(path, 0, BatchEntry(0, len(frame), len(line), 1, 1, 1, sha256)))


def manifest_of(batches: list[BatchEntry], counts: Counts, length: int) -> Manifest:
    blocker = Blocker("t\0", "", "1", "metadata", "it holds NUL")
    return Manifest(1, "now", "run", 0, 2, counts, length, tuple(batches), (blocker,))


def test_manifest_comes_back_equal_or_not_at_all(tmp_path: Path) -> None:
    """A manifest is read whole with its digest; edited, even by a space, it is refused."""
    path = tmp_path / "0000.manifest.json"
    batches, counts = written(tmp_path / "0000.jsonl.zst", [row(n) for n in range(5)])
    manifest = manifest_of(batches, counts, 99)
    digest = write_manifest(path, manifest)
    assert read_manifest(path, digest) == manifest
    assert json.loads(path.read_bytes())["counts"]["checkpoints"] == 5
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ExportCorrupted, match="the manifest of export 0000"):
        read_manifest(path, digest)
