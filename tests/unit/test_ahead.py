"""Items made ahead are the same items; whatever ends the loop ends the thread too."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from include.checkpoint_migration.ahead import ahead


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "ahead"]


@pytest.mark.parametrize("most", [1, 3])
def test_items_come_in_their_order(most: int) -> None:
    """Nothing is lost, doubled or moved."""
    assert list(ahead(range(1_000), most)) == list(range(1_000))
    assert list(ahead([])) == []
    assert threads() == []


def test_one_is_made_while_another_is_used() -> None:
    """The next item is there before it is asked for, and no more than was allowed."""
    made: list[int] = []

    def making() -> Iterator[int]:
        for number in range(10):
            made.append(number)
            yield number

    items = ahead(making(), 2)
    assert next(items) == 0
    deadline = time.monotonic() + 5
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert made == [0, 1, 2, 3]
    assert list(items) == list(range(1, 10))


def test_what_making_raises_is_raised_in_its_place() -> None:
    """The items before a failure are used first, and the failure is the very one."""
    failure = ValueError("made so")

    def failing() -> Iterator[int]:
        yield 1
        raise failure

    items = ahead(failing())
    assert next(items) == 1
    with pytest.raises(ValueError, match="made so") as caught:
        next(items)
    assert caught.value is failure
    assert threads() == []


def test_a_loop_that_is_left_ends_the_thread() -> None:
    """Items that nobody asks for any more are not made, and nothing goes on in the background."""

    def making() -> Iterator[int]:
        number = 0
        while True:
            yield number
            number += 1

    items = ahead(making())
    assert next(items) == 0
    items.close()  # type: ignore[attr-defined]
    assert threads() == []
