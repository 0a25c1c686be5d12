"""The two files of a report: private, whole, and never through a planted link."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from include.checkpoint_migration.errors import StorageRefused
from include.checkpoint_migration.findings import Verdict
from include.checkpoint_migration.reporting.report_json import read_report
from include.checkpoint_migration.reporting.write import write_report
from tests.support.reports import earliest, report_of


def test_files_are_private_and_whole(tmp_path: Path) -> None:
    """Both files appear with mode 0600, nothing else stays, and the path returned is absolute."""
    path = write_report(report_of(), tmp_path / "run")
    assert path == tmp_path / "run" / "report.json"
    assert {p.name: stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()} == {
        "report.json": 0o600,
        "report.html": 0o600,
    }
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert read_report(path.read_bytes()) == report_of()


def test_path_is_absolute_from_a_relative_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative folder still gives the absolute path of `report.json`."""
    monkeypatch.chdir(tmp_path)
    assert write_report(report_of(), Path("run")) == tmp_path / "run" / "report.json"


@pytest.mark.parametrize("name", ["report.json", "report.html"])
def test_planted_link_is_refused(tmp_path: Path, name: str) -> None:
    """A link in the place of a report is refused, and what it points to is not written."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / name).symlink_to(victim)
    with pytest.raises(StorageRefused):
        write_report(report_of(), folder)
    assert victim.read_text() == "mine"
    assert not [p for p in folder.iterdir() if "tmp" in p.name]


def test_page_that_cannot_be_written_leaves_the_old_report(tmp_path: Path) -> None:
    """A new `report.json` never stands beside an old page: the page is written first."""
    path = write_report(report_of(), tmp_path)
    before = path.read_bytes()
    page = tmp_path / "report.html"
    page.unlink()
    page.mkdir()
    with pytest.raises(StorageRefused):
        write_report(earliest(), tmp_path)
    assert path.read_bytes() == before


def test_second_report_replaces_the_first(tmp_path: Path) -> None:
    """A report task that is tried again leaves one report, the later one."""
    write_report(earliest(), tmp_path)
    path = write_report(report_of(), tmp_path)
    assert read_report(path.read_bytes()).verdict is Verdict.IDENTICAL
    assert "identical" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(list(tmp_path.iterdir())) == 2
