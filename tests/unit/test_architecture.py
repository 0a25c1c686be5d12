"""docs/architecture.md leads to the right rooms: every file that it names is there."""

from __future__ import annotations

import re

import pytest

from tests.support.imports import ROOT

TEXT = (ROOT / "docs" / "architecture.md").read_text()
ENGINE = ROOT / "include" / "checkpoint_migration"


def rows(heading: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    section = TEXT.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def named(cell: str) -> list[str]:
    """The files that a cell names."""
    return re.findall(r"`([\w/.-]+\.(?:py|md|html))`", cell)


CHANGES = rows("To change X, go to Y")


@pytest.mark.parametrize("row", CHANGES, ids=lambda row: row[0])
def test_each_row_leads_to_files_that_are_there(row: list[str]) -> None:
    """Whoever follows the table finds the file that it names."""
    files = named(row[1])
    assert files
    for name in (*files, *named(row[2])):
        assert (ENGINE / name).exists() or (ROOT / name).exists(), name


def test_the_table_is_worth_a_look() -> None:
    """It answers for every stage, and for more than a handful of changes."""
    assert len(CHANGES) >= 15
    stages = {path.name for path in ENGINE.iterdir() if (path / "__init__.py").exists()}
    led_to = {name.partition("/")[0] for row in CHANGES for name in named(row[1])}
    assert stages - led_to == {"steps", "verify"}  # a step combines; the oracle follows the rules


@pytest.mark.parametrize("row", rows("The words"), ids=lambda row: row[0])
def test_each_word_lives_where_it_is_said_to(row: list[str]) -> None:
    """A word's home exists, and speaks of it."""
    (home,) = named(row[2])
    text = (ENGINE / home).read_text().lower()
    assert row[0].split()[-1] in text


def test_the_picture_shows_every_stage() -> None:
    """No folder of the engine is missing in the drawing."""
    picture = TEXT.split("```text\n")[1].split("```")[0]
    for path in ENGINE.iterdir():
        if (path / "__init__.py").exists():
            assert f"{path.name}/" in picture
