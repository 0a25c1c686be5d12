"""Lines of a log are short enough to be read whole, and hold every word."""

from __future__ import annotations

import pickle

from hypothesis import given
from hypothesis import strategies as st

from include.checkpoint_migration.errors import StorageRefused
from include.checkpoint_migration.folding import COLUMNS, folded

WORDS = st.lists(st.text("abc/:-_é", min_size=1, max_size=30), max_size=60)


@given(WORDS, st.sampled_from(["", "  What to do:    ", "12. "]))
def test_every_word_is_there_in_lines_of_ninety_columns(words: list[str], label: str) -> None:
    """Nothing is lost or broken, and what goes on is set in, so that no value begins a line."""
    lines = folded(" ".join(words), label)
    assert " ".join(lines).split() == [*label.split(), *words]
    assert all(len(line) <= COLUMNS for line in lines)
    assert all(line.startswith("  ") for line in lines[1:])


def test_a_path_stays_whole() -> None:
    """A path that is longer than a line can be copied all the same."""
    path = "/srv/" + "folder-of-a-long-name/" * 10
    assert path in " ".join(folded(f"look into {path} for more"))
    assert path in [line.strip() for line in folded(f"look into {path} for more")]


def long_failure() -> StorageRefused:
    return StorageRefused(
        "what happened " * 20, safe="what is safe " * 20, next="and do this " * 20
    )


def test_a_failure_is_told_in_short_lines_below_their_labels() -> None:
    """What to do is not cut at the right, and stands below its own label."""
    for line in str(long_failure().for_log()).splitlines():
        assert len(line) <= COLUMNS
    lines = str(long_failure()).splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("  What to do:    "))
    assert len(lines) > at + 1
    assert all(line[:17].isspace() for line in lines[at + 1 :])


def test_a_failure_for_the_log_has_no_other_error_behind_it() -> None:
    """The error of a file or a server, which led to it, is of no use to whoever reads the log."""
    try:
        try:
            raise FileNotFoundError("/nope")
        except FileNotFoundError as error:
            raise long_failure() from error
    except StorageRefused as failure:
        shown = failure.for_log()
    assert shown.__cause__ is shown.__context__ is shown.__traceback__ is None
    assert pickle.loads(pickle.dumps(shown)).as_dict() == shown.as_dict()
