"""Tells a checkpoint that LangGraph.js wrote by its first bytes. The oracles have rules of their own."""

from __future__ import annotations

import re

LANGGRAPH_JS = "langgraph.js (json)"
LOOKED_AT = 200  # bytes that are enough to tell

# JSON.stringify leaves no spaces, and a Date ends in Z; Python's json and isoformat do neither.
_START = re.compile(rb'\{"v":\d+,(?:"id":"[^"]*",)?"ts":"[^"]*Z"')


def is_javascript(start: bytes) -> bool:
    """Whether JSON of a checkpoint begins as LangGraph.js has it."""
    return _START.match(start) is not None
