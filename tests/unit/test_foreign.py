"""An error that is not ours is told by its type and its place, and never by its message."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from include.checkpoint_migration.errors import MigrationError, SourceBusy, described
from include.checkpoint_migration.foreign import place_of, told_of

HERE = "tests/unit/test_foreign.py"
SECRET = "s3cret-Pa55word"


def caught(what: str) -> BaseException:
    try:
        if what == "ours":
            raise KeyError(SECRET)
        if what == "library":
            json.loads(f"{{{SECRET}")
        if what == "system":
            Path(f"/proc/{SECRET}").mkdir()
    except Exception as error:  # noqa: BLE001 - that is what is looked at
        return error
    raise AssertionError(what)


def test_an_error_of_the_project_has_its_file_and_line() -> None:
    """The place is a path within the project, with no folder of the machine in it."""
    place = place_of(caught("ours"))
    path, line = place.rsplit(":", 1)
    assert path == HERE
    assert "raise KeyError(SECRET)" in Path(__file__).read_text().splitlines()[int(line) - 1]


def test_an_error_of_a_library_has_its_module_and_who_called_it() -> None:
    """Where a hook or a driver fails, both its module and our own line are named."""
    place = place_of(caught("library"))
    assert place.startswith("json.decoder:")
    assert f", called from {HERE}:" in place


def test_an_error_of_the_system_has_its_name() -> None:
    """`EACCES` says more than the type, and holds no path."""
    assert "ENOENT" in told_of(caught("system"))


@pytest.mark.parametrize("what", ["ours", "library", "system"])
def test_no_message_is_told(what: str) -> None:
    """A message may quote a value, a password or a path."""
    error = caught(what)
    facts = described(error)
    assert SECRET not in json.dumps(facts)
    assert facts["type"] == type(error).__name__
    assert place_of(error) in facts["what"]
    assert all(facts[part].strip() for part in ("what", "safe", "next"))


def test_an_error_that_was_never_raised_has_no_place() -> None:
    """Nothing is made up."""
    assert place_of(ValueError("x")) == ""
    assert described(ValueError("x"))["what"].count("(ValueError)") == 1


def test_ours_is_told_in_its_own_words() -> None:
    """A failure of the tree says its three parts itself."""
    error: MigrationError = SourceBusy("somebody writes.", next="wait.")
    assert described(error) == error.as_dict()
