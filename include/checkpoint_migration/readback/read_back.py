"""The read-back as a whole: opens both sides, has a sample looked at, and says what was found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import SimpleQueue

from ..ahead import side_by_side
from ..findings import Difference
from ..model import SourceText
from ..postgres import Connect
from ..server_errors import translated_errors
from ..settings import ThreadFilter
from .compare import Look, Looked, Reader, Removed
from .raw_serializer import Decrypt
from .sample import Draw, keys_of
from .savers import DOING, SourceKeys, SourceSide, TargetSide

NAMESPACES = 16  # of each thread, in byte order, beside those that are drawn
READERS = 2  # at once: while one waits for the server, another decodes and compares
PORTION = 16  # looks that a reader takes together


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What the savers said. `found` counts all differences, `differences` holds the first ones.

    `unread` counts the checkpoints that SqliteSaver itself cannot read as plain data, such as
    pickled ones: nothing is said of them.
    """

    threads: int
    checkpoints: int
    found: int
    differences: tuple[Difference, ...]
    unread: int


def read_back(
    frozen_path: Path,
    connect: Connect,
    schema: str,
    thread_filter: ThreadFilter,
    *,
    seed: str,
    sample: int = 200,
    sanitized: bool = False,
    decrypt: Decrypt | None = None,
    removed: Removed | None = None,
    most_differences: int = 100,
) -> ReadBack:
    """Compare a sample of the frozen source with the live tables of `schema`, through both savers.

    The sample: each taken thread's latest checkpoint in each of its namespaces (up to 16), and
    `sample` other checkpoints and as many histories, drawn by `seed` alone. Neither side is
    changed, nothing is unpickled or imported, and memory does not grow with the database. Rows
    that only the target has are the application's own and are passed over; a missing one of
    which `removed(thread_id, checkpoint_ns, checkpoint_id)` is true is no difference.
    Raises `TargetUnreachable` or `TargetBusy` when PostgreSQL does not answer.
    """
    with (
        translated_errors(DOING),
        ExitStack() as stack,
        closing(SourceKeys(frozen_path)) as keys,
    ):
        idle: SimpleQueue[Reader] = SimpleQueue()
        for _ in range(READERS):
            source = stack.enter_context(closing(SourceSide(frozen_path, decrypt)))
            target = stack.enter_context(closing(TargetSide(connect, schema, decrypt)))
            idle.put(Reader(source, target, sanitized, removed, most_differences))

        def look(looks: list[Look]) -> Looked:
            reader = idle.get()
            try:
                return reader.look(looks)
            finally:
                idle.put(reader)

        drawn = _Sample(thread_filter, seed, sample)
        total = Looked()
        for looked in side_by_side(_portions(drawn.looks(keys)), look, READERS):
            total.add(looked, most_differences)
        return ReadBack(
            threads=drawn.threads,
            checkpoints=total.checkpoints,
            found=total.found,
            differences=tuple(total.differences),
            unread=total.unread + drawn.unread,
        )


class _Sample:
    """What is to be looked at, and how; counts the threads taken, and the keys that are no texts."""

    def __init__(self, thread_filter: ThreadFilter, seed: str, size: int) -> None:
        self._filter = thread_filter
        self._others, self._namespaces = Draw(seed, size), Draw(seed, size)
        self.threads = self.unread = 0

    def looks(self, keys: SourceKeys) -> Iterator[Look]:
        for key, is_latest, place in keys_of(keys.all(), self._begins, self._cannot_read):
            if not is_latest:
                self._others.offer(key)
                continue
            self._namespaces.offer(key)
            if place < NAMESPACES:
                yield Reader.latest, key
        for key in self._others.drawn():
            yield Reader.one, key
        for key in self._namespaces.drawn():
            yield Reader.walk, key

    def _begins(self, thread_id: SourceText) -> bool:
        taken = self._filter.takes(thread_id)
        self.threads += taken
        return taken

    def _cannot_read(self) -> None:
        self.unread += 1


def _portions(looks: Iterator[Look]) -> Iterator[list[Look]]:
    while portion := list(islice(looks, PORTION)):
        yield portion
