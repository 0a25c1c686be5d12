"""Which packages later steps import and this worker has not: known before any work, not after promote."""

from __future__ import annotations

from importlib.util import find_spec

from ..errors import SettingsInvalid

# what reads back through LangGraph, at the very end
NEEDED = ("langgraph.graph", "langgraph.checkpoint.postgres", "langgraph.checkpoint.sqlite")


def check_packages() -> None:
    """Raise `SettingsInvalid` naming every module that is missing."""
    missing = [name for name in NEEDED if not _is_there(name)]
    if missing:
        raise SettingsInvalid(
            f"this worker's Python environment has no {', '.join(missing)}.",
            safe="nothing was opened, read or written.",
            next="install the packages of requirements.txt on all workers; then clear check_schema.",
            missing=missing,
        )


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # not even the package around it
        return False
