"""Counts exactly what was added, changed and removed in the source since it was frozen."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

from ..findings import Change, Counts, Drift
from ..settings import ThreadFilter
from .file_state import file_of, glance, opened
from .freezing import EVERYTHING, frozen_file, identity, seen_path, sweep
from .layout import check_layout
from .reading import TIMEOUT, Reading, read
from .rows import KEYS, STORE_KEYS, all_checkpoints, all_writes, sort_key
from .store import all_items, all_vectors
from .thread_ts import show_as_today
from .threads import count

CHECKPOINT_KEY = attrgetter(*KEYS["checkpoints"])
WRITE_KEY = attrgetter(*KEYS["writes"])
LAST = (9, None)
AllRows = Callable[[sqlite3.Connection], Iterator[tuple[Any, ...]]]
OF_STORE = {"store": all_items, "store_vectors": all_vectors}


def drift(
    path: str,
    frozen: sqlite3.Connection,
    thread_filter: ThreadFilter = EVERYTHING,
    *,
    store_tables: tuple[str, ...] = (),
    timeout: float = TIMEOUT,
) -> tuple[Drift, Counts]:
    """Return what changed in the source since it was frozen, and the source's counts now.

    Keys are counted for the threads and the store's tables taken; a key is changed when any column
    of its row is. Both answers describe one moment. Where the files are as `freeze` saw them, nothing
    is compared.
    Raises what `inspect_source` raises.
    """
    beside = frozen_file(frozen)
    if _is_as_seen(path, beside):
        none = dict.fromkeys(store_tables, Change())
        unchanged = Drift(items=none.get("store"), vectors=none.get("store_vectors"))
        return unchanged, count(frozen, thread_filter, store_tables)

    def work(reading: Reading) -> tuple[Drift, Counts]:
        now = reading.conn
        check_layout(now, path)
        show_as_today(now)
        both = (frozen, now)
        of_threads: AllRows = partial(all_checkpoints, thread_filter=thread_filter)
        checkpoints, rows = _compare(of_threads, CHECKPOINT_KEY, *both)
        of_threads = partial(all_writes, thread_filter=thread_filter)
        writes, write_rows = _compare(of_threads, WRITE_KEY, *both)
        changes: dict[str, Change] = {}
        counted: dict[str, int] = {}
        for name in store_tables:
            key = attrgetter(*STORE_KEYS[name])
            changes[name], counted[name] = _compare(OF_STORE[name], key, *both)
        return (
            Drift(checkpoints, writes, changes.get("store"), changes.get("store_vectors")),
            Counts(
                rows,
                write_rows,
                items=counted.get("store", 0),
                vectors=counted.get("store_vectors", 0),
            ),
        )

    sweep(beside.parent)
    return read(path, work, timeout=timeout, brief=False, scratch=beside.parent)


def _is_as_seen(path: str, frozen: Path) -> bool:
    """Whether no byte can have changed: inode, sizes, times, header and -wal are as noted."""
    try:
        then = json.loads(seen_path(frozen).read_text())
        belongs = isinstance(then, dict) and then.get("frozen") == identity(frozen)
    except (OSError, ValueError):
        return False
    if not belongs or then.get("settled") is not True:
        return False
    real = file_of(path)
    with opened(real) as fd:
        now = json.loads(json.dumps(asdict(glance(fd, real))))
    return all(then.get(name) == now[name] for name in now if name not in ("settled", "shm"))


def _compare(
    rows: AllRows,
    key: Callable[[Any], tuple[Any, ...]],
    frozen: sqlite3.Connection,
    source: sqlite3.Connection,
) -> tuple[Change, int]:
    """Merge both sides in key order, each read once; return the change and the source's rows."""
    added = changed = removed = same = 0
    olds, news = rows(frozen), rows(source)
    old, new = next(olds, None), next(news, None)
    while old is not None or new is not None:
        if old == new and list(map(type, old or ())) == list(map(type, new or ())):
            same += 1
            old, new = next(olds, None), next(news, None)
            continue
        place_of_old = _place(old, key)
        place_of_new = _place(new, key)
        if place_of_old == place_of_new:
            changed += 1
            old, new = next(olds, None), next(news, None)
        elif place_of_old < place_of_new:
            removed += 1
            old = next(olds, None)
        else:
            added += 1
            new = next(news, None)
    return Change(added, changed, removed), same + changed + added


def _place(
    row: tuple[Any, ...] | None, key: Callable[[Any], tuple[Any, ...]]
) -> list[tuple[int, Any]]:
    """Where a row's key sorts; the end of a side sorts last."""
    return [LAST] if row is None else [sort_key(column) for column in key(row)]
