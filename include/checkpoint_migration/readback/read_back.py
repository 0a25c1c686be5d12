"""The read-back as a whole: opens both sides, has a sample looked at, and says what was found."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ..findings import Difference
from ..model import SourceText
from ..postgres import Connect
from ..server_errors import translated_errors
from ..settings import ThreadFilter
from .compare import Reader, Removed
from .raw_serializer import Decrypt
from .sample import Draw, keys_of
from .savers import DOING, SourceSide, TargetSide

NAMESPACES = 16  # of each thread, in byte order, beside those that are drawn


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
    `sample` other checkpoints and as many histories, drawn by `seed` and the keys alone. Neither side is
    changed, nothing is unpickled or imported, and memory does not grow with the database. Rows
    that only the target has are the application's own and are passed over; a missing one of
    which `removed(thread_id, checkpoint_ns, checkpoint_id)` is true is no difference.
    Raises `TargetUnreachable` or `TargetBusy` when PostgreSQL does not answer.
    """
    with (
        translated_errors(DOING),
        closing(SourceSide(frozen_path, decrypt)) as source,
        closing(TargetSide(connect, schema, decrypt)) as target,
    ):
        reader = Reader(source, target, sanitized, removed, most_differences)

        def begins(thread_id: SourceText) -> bool:
            if not thread_filter.takes(thread_id):
                target.rest()
                return False
            reader.threads += 1
            return True

        others, namespaces = Draw(seed, sample), Draw(seed, sample)
        for key, is_latest, place in keys_of(source.all_keys(), begins, reader.cannot_read):
            if not is_latest:
                others.offer(key)
                continue
            namespaces.offer(key)
            if place < NAMESPACES:
                reader.latest(key)
        for key in others.drawn():
            reader.one(key)
        for key in namespaces.drawn():
            reader.walk(key)
        return ReadBack(
            threads=reader.threads,
            checkpoints=reader.checkpoints,
            found=reader.found,
            differences=tuple(reader.differences),
            unread=reader.unread,
        )
