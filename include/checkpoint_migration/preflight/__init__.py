"""What check_schema asks of the target, and has made there, before any work."""

from .check import TargetInfo, check_target, recheck_on, recheck_target

__all__ = ["TargetInfo", "check_target", "recheck_on", "recheck_target"]
