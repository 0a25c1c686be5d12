"""How a report counts the findings that it does not list. Pure."""

from __future__ import annotations

from ..findings import Caution

OMITTED = "_omitted"


def omitted(kind: str, count: int) -> Caution:
    """The warning that counts the rest of the differences, conflicts or blockers."""
    return Caution(kind + OMITTED, f"more {kind} were found than are listed here", count)
