"""What a migration is guessed to take, and when a volume is too small for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from include.checkpoint_migration.errors import StorageRefused
from include.checkpoint_migration.findings import Counts
from include.checkpoint_migration.model import SourceInfo
from include.checkpoint_migration.preflight import estimate as e
from include.checkpoint_migration.settings import Settings


def source(checkpoints: int, writes: int, size: int, largest: int = 9_000) -> SourceInfo:
    return SourceInfo(
        uri="/x.sqlite",
        format="python",
        bytes=size,
        has_task_path=True,
        counts=Counts(checkpoints, writes),
        threads=10,
        max_row_bytes=largest,
    )


def test_the_measured_database_is_guessed_as_it_was_measured() -> None:
    """The guess agrees within a half with the figures that its constants come from."""
    guess = e.estimate(source(20_000, 40_000, 218_000_000))
    assert 20_000 / guess.seconds == pytest.approx(4_000, rel=0.5)
    assert guess.wal_bytes == pytest.approx(117_000_000, rel=0.5)
    assert guess.frozen_bytes == 218_000_000


def test_a_guess_grows_with_rows_bytes_and_the_largest_row() -> None:
    """No figure falls when the source grows, and each grows with what it depends on."""
    small = e.estimate(source(50_000, 1_000, 10**8))
    for larger in (source(90_000, 1_000, 10**8), source(50_000, 90_000, 10**8)):
        guess = e.estimate(larger)
        assert guess.seconds > small.seconds
        assert guess.target_bytes > small.target_bytes
    more_bytes = e.estimate(source(50_000, 1_000, 2 * 10**8))
    assert more_bytes.folder_bytes > small.folder_bytes
    assert more_bytes.server_bytes > small.server_bytes
    larger_row = e.estimate(source(50_000, 1_000, 10**8, largest=10**7))
    assert larger_row.memory_bytes > small.memory_bytes
    assert larger_row.seconds == small.seconds


def test_an_empty_source_takes_some_seconds_and_no_room() -> None:
    """An empty source is guessed at a positive time and nothing on the server."""
    guess = e.estimate(source(0, 0, 0))
    assert guess.seconds > 0
    assert guess.server_bytes == guess.folder_bytes == 0


def test_a_volume_with_room_gives_its_free_bytes(tmp_path: Path) -> None:
    """Where the room suffices, what is free is returned, for a folder not yet made as well."""
    free = shutil.disk_usage(tmp_path).free
    found = e.check_disk(tmp_path / "not" / "yet" / "there", 1)
    assert found == pytest.approx(free, rel=0.05)
    assert not (tmp_path / "not").exists()


def test_a_volume_too_small_is_refused_before_any_work(tmp_path: Path) -> None:
    """A short volume is a terminal error that says what is free and needed, and makes nothing."""
    needed = shutil.disk_usage(tmp_path).free + 10**9
    with pytest.raises(StorageRefused) as refused:
        e.check_disk(tmp_path / "run", needed)
    error = refused.value
    assert not error.transient
    assert error.facts["needed"] > error.facts["free"] > 0
    assert e.format_bytes(error.facts["free"]) in error.what
    assert "export_uri" in error.next
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("count", "spelled"),
    [
        (0, "0 bytes"),
        (812, "812 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (3_250_586, "3.1 MiB"),
        (10 * 1024 - 1, "10 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (45_097_156_608, "42 GiB"),
        (5 * 1024**4, "5.0 TiB"),
    ],
)
def test_sizes_are_spelled_for_people(count: int, spelled: str) -> None:
    """A size has two figures and the unit that keeps it below 1024."""
    assert e.format_bytes(count) == spelled


def test_the_sentence_of_a_guess_says_time_and_room() -> None:
    """The line for a log names the time, the export folder, the server and the memory."""
    line = e.estimate(source(20_000, 40_000, 218_000_000)).sentence()
    assert " s of work; " in line
    assert all(word in line for word in ("export folder", "server", "memory", "MiB"))


def test_a_guess_counts_what_airflow_takes_for_each_task() -> None:
    """A small migration takes longer for its tasks than for its rows, and the line says so."""
    settings = Settings(dag_id="d", run_id="r", source="/s", export_uri="/e")
    small = e.estimate(replace(source(3_000, 17_697, 30_000_000), threads=20), settings)
    assert small.tasks == 7 + 2 * 8 + 11
    assert "34 tasks" in small.sentence()
    assert "68 s (a scheduler)" in small.sentence()
    many = e.estimate(replace(source(1_000_000, 0, 1 << 40), threads=50_000), settings)
    assert many.tasks == 7 + 2 * 64 + 32
