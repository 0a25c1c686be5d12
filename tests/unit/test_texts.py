"""Ids of a database in what people read: quoted, cut, and named in few words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.checkpoint_migration.texts import threads_named

ids = st.one_of(st.text(max_size=300), st.binary(max_size=300))


@pytest.mark.parametrize(
    ("first", "last", "threads", "named"),
    [
        ("user-7", "user-7", 1, "thread 'user-7'"),
        ("user-7", "user-93", 214, "'user-7' … 'user-93', 214 threads"),
        ("a" * 100, "b", 1_000, f"'{'a' * 23}…' … 'b', 1,000 threads"),
        (b"\xff", "z", 2, "'\\xff' … 'z', 2 threads"),
        ("a\nb", "a\nb", 1, "thread 'a\\nb'"),
    ],
)
def test_a_shard_is_named_by_its_threads(
    first: str | bytes, last: str | bytes, threads: int, named: str
) -> None:
    """One by its id, several by the first and the last and how many."""
    assert threads_named(first, last, threads) == named


@given(ids, ids, st.integers(1, 10**9))
def test_a_name_is_one_line_that_fits(first: str | bytes, last: str | bytes, threads: int) -> None:
    """Whatever an id holds, a label stays printable, and within what Airflow's database keeps."""
    named = threads_named(first, last, threads)
    assert named.isprintable()
    assert len(named) <= 130
