"""The SQLite side: reads the application's database without touching it, and freezes a copy."""

from .drift import drift
from .fetching import at_hand, forget_fetched, look_at_object
from .freezing import folder_of, freeze, inspect_source, open_frozen, seen_path
from .rows import iter_checkpoints, iter_place, iter_writes, sort_key, thread_ids
from .store import all_items, all_vectors, count_store, items_with_vectors, namespaces
from .thread_ts import has_old_layout, show_as_today
from .threads import count, plan, plan_store, thread_counts, thread_stats

__all__ = [
    "all_items",
    "all_vectors",
    "at_hand",
    "count",
    "count_store",
    "drift",
    "folder_of",
    "forget_fetched",
    "freeze",
    "has_old_layout",
    "inspect_source",
    "items_with_vectors",
    "iter_checkpoints",
    "iter_place",
    "iter_writes",
    "look_at_object",
    "namespaces",
    "open_frozen",
    "plan",
    "plan_store",
    "seen_path",
    "show_as_today",
    "sort_key",
    "thread_counts",
    "thread_ids",
    "thread_stats",
]
