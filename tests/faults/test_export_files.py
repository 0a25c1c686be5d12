"""Whatever happens to an export file or its manifest is found before a row of it is copied."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from msgspec.structs import replace

from include.checkpoint_migration.errors import ExportCorrupted, MigrationError, StorageError
from include.checkpoint_migration.exportfile import check_batch, read_batch, read_manifest
from include.checkpoint_migration.load.batches import manifest_of, manifest_path
from include.checkpoint_migration.model import BatchEntry, Export, Load, Manifest
from tests.support.faults import CANARY, Trial, load_one, plan, receipts, staged_rows

BITS = 10_000


class Planned:
    """A run up to the point where its batches are to be loaded, and its one export file."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        exports, self.loads = plan(trial.migration)
        [self.export] = exports
        self.folder = trial.migration.run.folder
        self.path = Path(self.export.path)
        self.manifest_path = Path(manifest_path(self.export.path))
        self.manifest: Manifest = manifest_of(self.folder, self.export)
        self.data = self.path.read_bytes()

    @property
    def boundaries(self) -> list[int]:
        return [*(batch.offset for batch in self.manifest.batches), self.manifest.length]

    def refused(self, kind: type[MigrationError] = ExportCorrupted) -> None:
        """Loading all batches ends in an error, and nothing of a bad batch is in staging."""
        good = 0
        try:
            for load in self.loads:
                load_one(self.trial.migration, load)
                good += 1
        except kind as error:
            self.trial.holds(error)
        else:
            raise AssertionError("every batch was taken")
        assert len(receipts(self.trial.database)) == good
        assert staged_rows(self.trial.database, self.trial.migration) == sum(
            b.checkpoints + b.writes + b.blobs for b in self.manifest.batches[:good]
        )

    def mended(self) -> None:
        self.path.write_bytes(self.data)
        for load in self.loads:
            load_one(self.trial.migration, load)
        self.trial.go_on([self.export])


@pytest.fixture
def planned(trial: Trial) -> Planned:
    return Planned(trial)


def finds(path: Path, number: int, batch: BatchEntry) -> bool:
    """Whether a batch is refused before its first row, its bytes checked before they are unpacked."""
    try:
        check_batch(path, number, batch)
    except ExportCorrupted:
        with pytest.raises(ExportCorrupted):
            next(read_batch(path, number, batch))
        return True
    return False


def test_every_flipped_bit_is_found_before_a_row_is_read(planned: Planned) -> None:
    """Of 10,000 bits flipped one after the other in a small export, each is found."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - a failure shows it
    chance = random.Random(seed)
    found = 0
    with planned.path.open("r+b", buffering=0) as file:
        for _ in range(BITS):
            place, bit = chance.randrange(len(planned.data)), 1 << chance.randrange(8)
            file.seek(place)
            file.write(bytes([planned.data[place] ^ bit]))
            number = sum(place >= batch.offset for batch in planned.manifest.batches) - 1
            found += finds(planned.path, number, planned.manifest.batches[number])
            file.seek(place)
            file.write(planned.data[place : place + 1])
    assert found == BITS
    for number, batch in enumerate(planned.manifest.batches):
        check_batch(planned.path, number, batch)


def test_flipped_bits_of_a_manifest_are_found(planned: Planned) -> None:
    """A manifest's digest travels apart from it: each of its bits counts."""
    data = planned.manifest_path.read_bytes()
    for place in range(len(data)):
        for bit in (place % 8, (place + 5) % 8):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            planned.manifest_path.write_bytes(changed)
            with pytest.raises(ExportCorrupted):
                read_manifest(planned.manifest_path, planned.export.manifest_sha256)


def test_a_file_cut_at_any_boundary_of_a_frame_is_found(planned: Planned) -> None:
    """One byte before, at and after every boundary: the planner and each batch that misses bytes see it."""
    for boundary in planned.boundaries:
        for length in (boundary - 1, boundary, boundary + 1):
            if not 0 <= length < len(planned.data):
                continue
            planned.path.write_bytes(planned.data[:length])
            with pytest.raises(ExportCorrupted):
                manifest_of(planned.folder, planned.export)
            for number, batch in enumerate(planned.manifest.batches):
                cut = batch.offset + batch.length > length
                assert finds(planned.path, number, batch) is cut
    planned.path.write_bytes(planned.data[: planned.boundaries[1] + 1])
    planned.refused()
    planned.mended()


def test_a_byte_more_or_less_at_any_boundary_is_found(planned: Planned) -> None:
    """Bytes that were put in or taken out shift what follows: whoever is hit by it is refused."""
    for boundary in planned.boundaries:
        for at in (boundary - 1, boundary, boundary + 1):
            if not 0 <= at <= len(planned.data):
                continue
            for changed in (
                planned.data[:at] + b"\0" + planned.data[at:],
                planned.data[:at] + planned.data[at + 1 :],
            ):
                if changed == planned.data:
                    continue
                planned.path.write_bytes(changed)
                with pytest.raises(ExportCorrupted):
                    manifest_of(planned.folder, planned.export)
                for number, batch in enumerate(planned.manifest.batches):
                    same = (
                        changed[batch.offset :][: batch.length]
                        == (planned.data[batch.offset :][: batch.length])
                    )
                    assert finds(planned.path, number, batch) is not same


def _lines(planned: Planned, number: int) -> list[bytes]:
    batch = planned.manifest.batches[number]
    frame = planned.data[batch.offset : batch.offset + batch.length]
    return zstandard.ZstdDecompressor().decompressobj().decompress(frame).splitlines(keepends=True)


def _with_frame(planned: Planned, number: int, lines: list[bytes]) -> bytes:
    batch = planned.manifest.batches[number]
    frame = zstandard.ZstdCompressor(level=1, write_checksum=True).compress(b"".join(lines))
    return planned.data[: batch.offset] + frame + planned.data[batch.offset + batch.length :]


CHANGES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "swapped": lambda lines: [lines[1], lines[0], *lines[2:]],
    "dropped": lambda lines: lines[1:],
    "doubled": lambda lines: [lines[0], *lines],
    "edited": lambda lines: [lines[0].replace(b'"anna"', b'"anne"'), *lines[1:]],
    "repacked": lambda lines: lines,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_lines_that_were_tampered_with_are_found(
    planned: Planned, change: Callable[[list[bytes]], list[bytes]]
) -> None:
    """A frame that is valid in itself and holds other lines is not the frame that was exported."""
    number = len(planned.manifest.batches) - 1 if change is CHANGES["repacked"] else 0
    changed = _with_frame(planned, number, change(_lines(planned, number)))
    if changed == planned.data:
        pytest.fail("nothing was changed")
    planned.path.write_bytes(changed)
    planned.refused()
    planned.mended()


def test_frames_that_were_exchanged_are_found(planned: Planned) -> None:
    """Each frame is valid and at another's place."""
    first, second, *_ = planned.manifest.batches
    a = planned.data[first.offset : first.offset + first.length]
    b = planned.data[second.offset : second.offset + second.length]
    planned.path.write_bytes(b + a + planned.data[second.offset + second.length :])
    planned.refused()
    planned.mended()


def _edit(claims: dict[str, object]) -> None:
    claims["counts"]["checkpoints"] -= 1  # type: ignore[index]


EDITS: dict[str, Callable[[dict[str, object]], None]] = {
    "a count": _edit,
    "no blockers": lambda claims: claims.update(blockers=[], created="2000-01-01T00:00:00+00:00"),
    "no batches": lambda claims: claims.update(batches=[]),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_manifest_that_was_edited_is_refused(
    planned: Planned, edit: Callable[[dict[str, object]], None]
) -> None:
    """An edited manifest is refused by who plans and by who loads, however well it is formed."""
    honest = planned.manifest_path.read_bytes()
    claims = json.loads(honest)
    edit(claims)
    planned.manifest_path.write_text(json.dumps(claims))
    with pytest.raises(ExportCorrupted):
        manifest_of(planned.folder, planned.export)
    planned.refused()
    planned.manifest_path.write_bytes(honest)
    planned.mended()


def test_a_manifest_and_a_file_that_were_forged_together_are_refused(planned: Planned) -> None:
    """A manifest that fits its tampered file is not the one whose digest the export handed on."""
    import hashlib

    changed = _with_frame(planned, 0, _lines(planned, 0)[1:])
    batch = planned.manifest.batches[0]
    length = batch.length + len(changed) - len(planned.data)
    claims = json.loads(planned.manifest_path.read_bytes())
    claims["length"] = len(changed)
    claims["batches"][0] |= {
        "length": length,
        "sha256": hashlib.sha256(changed[:length]).hexdigest(),
    }
    planned.path.write_bytes(changed)
    planned.manifest_path.write_text(json.dumps(claims))
    planned.refused()


@pytest.mark.parametrize("which", ["path", "manifest_path"])
def test_an_export_that_is_gone_is_named(planned: Planned, which: str) -> None:
    """A file that is not there is an error with its three parts, and nothing is loaded."""
    getattr(planned, which).unlink()
    planned.refused(StorageError)


def test_loads_and_exports_hold_no_value(planned: Planned) -> None:
    """What travels from task to task are paths, numbers and digests; a label names threads, no more."""
    assert {type(value) for load in planned.loads for value in (load.index, load.label)} <= {
        int,
        str,
    }
    for handed_on in (*planned.loads, planned.export):
        assert isinstance(handed_on, (Load, Export))
        assert CANARY not in repr(handed_on)
        assert "anna" not in repr(replace(handed_on, label=""))
