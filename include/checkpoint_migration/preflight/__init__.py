"""What check_schema asks of the target, and has made there, before any work."""

from .check import check_target, check_undo, recheck_on, recheck_target
from .store import check_store, recheck_store
from .strict_msgpack import blocked_by_strict_msgpack

__all__ = [
    "blocked_by_strict_msgpack",
    "check_store",
    "check_target",
    "check_undo",
    "recheck_on",
    "recheck_store",
    "recheck_target",
]
