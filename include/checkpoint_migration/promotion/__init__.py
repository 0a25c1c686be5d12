"""From staging to live: the one transaction, what it may meet there, and what became of it since."""

from .judgement import Judgement
from .left_out import is_noted, note_removed, was_left_out
from .live_check import check_live
from .recorded import check_recorded, removed_in_source
from .store import note_removed_items
from .store_check import items_removed_in_source, was_item_left_out
from .transaction import as_on_live, judge_real_tables, promote_staged

__all__ = [
    "Judgement",
    "as_on_live",
    "check_live",
    "check_recorded",
    "is_noted",
    "items_removed_in_source",
    "judge_real_tables",
    "note_removed",
    "note_removed_items",
    "promote_staged",
    "removed_in_source",
    "was_item_left_out",
    "was_left_out",
]
