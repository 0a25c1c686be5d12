"""Undo: what one run made live goes out again, but for what somebody changed or built upon since."""

from .asked import find_run_to_undo
from .transaction import undo_run

__all__ = ["find_run_to_undo", "undo_run"]
