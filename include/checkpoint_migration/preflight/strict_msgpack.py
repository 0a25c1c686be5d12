"""Which classes LangGraph's own strict mode would not revive, told by their names alone."""

from __future__ import annotations

from collections.abc import Iterable


def blocked_by_strict_msgpack(names: Iterable[str]) -> list[str]:
    """Those of `module.name` that `LANGGRAPH_STRICT_MSGPACK` does not allow by itself."""
    from langgraph.checkpoint.serde import _msgpack  # its list has no public name

    allowed = {".".join(parts) for parts in _msgpack.SAFE_MSGPACK_TYPES}
    return sorted(set(names) - allowed)
