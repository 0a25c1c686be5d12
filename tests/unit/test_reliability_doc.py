"""docs/reliability.md and docs/threat-model.md name tests and files that are there."""

from __future__ import annotations

import ast
import re

import pytest

from include.checkpoint_migration import exportfile
from include.checkpoint_migration.convert import blockers, jsonb, nesting
from tests.support.imports import ROOT

RELIABILITY = (ROOT / "docs" / "reliability.md").read_text()
THREATS = (ROOT / "docs" / "threat-model.md").read_text()
FAULTS = [
    line
    for line in RELIABILITY.split("\n## Limits")[0].splitlines()
    if line.startswith("|") and not line.startswith(("| ---", "| fault |"))
]


def names_in(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", FAULTS, ids=lambda row: row.split("|")[1].strip())
def test_each_fault_has_a_test_that_exists(row: str) -> None:
    """Whoever doubts an outcome finds the test that shows it, under the name that the table has."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
    assert named
    for path, name in named:
        assert name in names_in(path), (path, name)


def test_the_table_covers_every_kind_of_fault() -> None:
    """Kills, restarts, network, disks, files, races, hostile rows, privileges: none is left out."""
    assert len(FAULTS) >= 45
    files = set(re.findall(r"`tests/faults/(test_\w+)\.py::", RELIABILITY))
    assert files == {path.stem for path in (ROOT / "tests" / "faults").glob("test_*.py")}


def test_the_limits_are_those_of_the_code() -> None:
    """A figure of the table is the constant that the code goes by."""
    assert nesting.LIMIT == 900
    assert blockers.MAX_FIELD == (1 << 30) - (64 << 10)
    assert jsonb.MAX_BYTES == (256 << 20) - 64
    assert (jsonb.MAX_ITEMS, jsonb.MAX_PAIRS) == (16_777_216, 8_388_608)
    assert (jsonb.MAX_DIGITS, jsonb.MAX_DEPTH) == (4_000, 200)
    assert (exportfile.MAX_WINDOW, exportfile.MAX_MANIFEST) == (128 << 20, 256 << 20)


def test_the_threat_model_names_files_that_are_there_and_every_writer() -> None:
    """Each who could write has a row, and each check its test."""
    for path in re.findall(r"`(tests/[\w/]+\.py)`", THREATS):
        assert (ROOT / path).is_file(), path
    for who in ("source", "export folder", "target", "connection", "report page"):
        assert f"| **the {who}**" in THREATS
    assert len(THREATS.splitlines()) < 60  # one page
