"""Items made ahead are the same items; whatever ends the loop ends the thread too."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from include.checkpoint_migration.ahead import ahead, beside


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


def pairs_of(number: int) -> Iterator[tuple[int, str]]:
    """Two results of an item, but none of every fifth."""
    for part in "ab" if number % 5 else "":
        yield number, part


def test_work_beside_gives_all_of_its_results_in_order() -> None:
    """Items are made in the thread that asks, worked at in another; an item may have any number of results."""
    makers, workers = set(), set()

    def making() -> Iterator[int]:
        for number in range(200):
            makers.add(threading.current_thread().name)
            yield number

    def working(number: int) -> Iterator[tuple[int, str]]:
        workers.add(threading.current_thread().name)
        return pairs_of(number)

    wanted = [pair for number in range(200) for pair in pairs_of(number)]
    assert list(beside(making(), working)) == wanted
    assert (makers, workers) == ({threading.current_thread().name}, {"ahead"})
    assert list(beside([], pairs_of)) == []
    assert threads() == []


def test_the_next_is_worked_at_while_a_result_is_used() -> None:
    """One item ahead, no more: what is made in vain is bounded."""
    made: list[int] = []
    done: list[int] = []

    def making() -> Iterator[int]:
        for number in range(10):
            made.append(number)
            yield number

    def working(number: int) -> Iterator[int]:
        yield number
        done.append(number)

    results = beside(making(), working)
    assert next(results) == 0
    deadline = time.monotonic() + 5
    while not done and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert (made, done) == ([0, 1], [0])
    assert list(results) == list(range(1, 10))


@pytest.mark.parametrize("where", ["making", "working"])
def test_a_failure_beside_is_the_very_one(where: str) -> None:
    """One of the work comes in its place, one of making an item at once; the thread ends."""
    failure = ValueError("made so")
    got: list[int] = []

    def making() -> Iterator[int]:
        yield from (0, 1, 2)
        if where == "making":
            raise failure
        yield 3

    def working(number: int) -> Iterator[int]:
        if number == 3:
            raise failure
        yield number

    with pytest.raises(ValueError, match="made so") as caught:
        got.extend(beside(making(), working))
    assert caught.value is failure
    assert got == [0, 1, 2][: len(got)]
    assert len(got) >= (3 if where == "working" else 1)
    assert threads() == []


def test_a_loop_beside_that_is_left_ends_the_thread() -> None:
    """Also one that waits for its next item."""
    results = beside(iter([1]), pairs_of)
    assert next(results) == (1, "a")
    results.close()  # type: ignore[attr-defined]
    assert threads() == []
