"""Which checkpoints are read back: each namespace's latest, and others drawn by a seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import groupby
from operator import itemgetter
from random import Random
from typing import Any

from .savers import Key


def keys_of(
    rows: Iterator[tuple[Any, Any, Any]],
    begins: Callable[[Any], bool],
    unreadable: Callable[[], None],
) -> Iterator[tuple[Key, bool, int]]:
    """Each key in order, whether it is its namespace's latest, and which namespace of the thread's.

    `begins` is told each thread's id and says whether it is taken; `unreadable` is called for each
    key that is no text.
    """
    for thread_id, of_thread in groupby(rows, itemgetter(0)):
        if not begins(thread_id):
            continue
        for place, (_, of_namespace) in enumerate(groupby(of_thread, itemgetter(1))):
            last: Key | None = None
            for key in of_namespace:
                if not all(isinstance(part, str) for part in key):
                    unreadable()
                    continue
                if last is not None:
                    yield last, False, place
                last = key
            if last is not None:
                yield last, True, place


class Draw:
    """A sample without a preference, drawn as items come: the same for the same seed and the same items.

    How many items are passed over until the next one is taken is drawn at once (Li's algorithm L), so
    that an item that is not taken costs nearly nothing.
    """

    def __init__(self, seed: str, size: int) -> None:
        self._random = Random(seed)  # noqa: S311 - a sample, no secret
        self._size = size
        self._taken: list[Key] = []
        self._left = 0  # to pass over until the next one is taken, once there are as many as wanted
        self._weight = 1.0

    def offer(self, key: Key) -> None:
        if len(self._taken) < self._size:
            self._taken.append(key)
            if len(self._taken) == self._size:
                self._pass_over()
        elif self._left:
            self._left -= 1
        elif self._size:
            self._taken[self._random.randrange(self._size)] = key
            self._pass_over()

    def _pass_over(self) -> None:
        self._weight *= math.exp(math.log(self._uniform()) / self._size)
        self._left = math.floor(math.log(self._uniform()) / math.log1p(-self._weight))

    def _uniform(self) -> float:
        return self._random.random() or 0.5  # between 0 and 1, neither of them: logarithms

    def drawn(self) -> list[Key]:
        return sorted(self._taken)
