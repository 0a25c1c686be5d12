"""Texts of a database, which may hold anything, made safe to print. Pure."""

from __future__ import annotations


def printable(text: str | bytes) -> str:
    """A text as it is; of one that is not UTF-8, each wrong byte in hex."""
    return text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else text


def quoted(text: str | bytes, limit: int = 60) -> str:
    """A text escaped, quoted, and cut after `limit` characters."""
    text = printable(text)
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return ascii(cut) if not cut.isprintable() else f"'{cut}'"
