"""While a task works, Python looks for garbage seldom; before and after, as whoever runs it chose."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from include.checkpoint_migration.collector import NEW_OBJECTS, seldom_collecting


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Leave the collector as it was."""
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_the_collector_looks_seldom_within_and_as_before_afterwards() -> None:
    """Also where one block lies in another."""
    gc.set_threshold(700, 11, 12)
    with seldom_collecting():
        with seldom_collecting():
            assert gc.get_threshold() == (NEW_OBJECTS, 11, 12)
        assert gc.get_threshold() == (NEW_OBJECTS, 11, 12)
    assert gc.get_threshold() == (700, 11, 12)


def test_work_that_fails_leaves_it_as_before() -> None:
    """Nothing of a step outlives it in a process that goes on."""
    gc.set_threshold(700, 11, 12)
    with pytest.raises(KeyError), seldom_collecting():
        raise KeyError
    assert gc.get_threshold() == (700, 11, 12)


@pytest.mark.parametrize("chosen", [0, NEW_OBJECTS + 1])
def test_a_choice_that_is_calmer_already_stays(chosen: int) -> None:
    """Zero is none at all."""
    gc.set_threshold(chosen, 11, 12)
    with seldom_collecting():
        assert gc.get_threshold()[0] == chosen
    assert gc.get_threshold() == (chosen, 11, 12)
