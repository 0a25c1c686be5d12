"""Which checkpoints are read back: each namespace's latest, and others drawn by a seed."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterator
from itertools import groupby
from operator import itemgetter
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
    """The keys whose hashes are the smallest: the same ones for the same seed, in any order."""

    def __init__(self, seed: str, size: int) -> None:
        self._seed = seed.encode()
        self._size = size
        self._heap: list[tuple[int, Key]] = []

    def offer(self, key: Key) -> None:
        text = b"\0".join([self._seed, *(part.encode() for part in key)])
        item = (-int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()), key)
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, item)
        elif self._heap:
            heapq.heappushpop(self._heap, item)

    def drawn(self) -> list[Key]:
        return sorted(key for _, key in self._heap)
