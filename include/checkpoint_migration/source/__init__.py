"""The SQLite side: reads the application's database without touching it, and freezes a copy."""

from .drift import drift
from .fetching import at_hand, forget_fetched, look_at_object
from .freezing import folder_of, freeze, inspect_source, open_frozen, seen_path
from .rows import iter_checkpoints, iter_place, iter_writes, sort_key, thread_ids
from .thread_ts import has_old_layout, show_as_today
from .threads import count, plan, thread_counts, thread_stats

__all__ = [
    "at_hand",
    "count",
    "drift",
    "folder_of",
    "forget_fetched",
    "freeze",
    "has_old_layout",
    "inspect_source",
    "iter_checkpoints",
    "iter_place",
    "iter_writes",
    "look_at_object",
    "open_frozen",
    "plan",
    "seen_path",
    "show_as_today",
    "sort_key",
    "thread_counts",
    "thread_ids",
    "thread_stats",
]
