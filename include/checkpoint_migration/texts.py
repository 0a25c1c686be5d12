"""Texts of a database, which may hold anything, made safe to print. Pure."""

from __future__ import annotations


def printable(text: str | bytes) -> str:
    """A text as it is; of one that is not UTF-8, each wrong byte in hex."""
    return text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else text


def threads_named(first: str | bytes, last: str | bytes, threads: int) -> str:
    """A thread, or a range of threads in the order of their ids, in few words."""
    if threads == 1:
        return f"thread {_short(first, 40)}"
    return f"{_short(first, 24)} … {_short(last, 24)}, {threads:,} threads"


def _short(text: str | bytes, limit: int) -> str:
    """Quoted and cut, escapes and all: Airflow's database keeps 250 characters of a label."""
    told = quoted(text, limit)
    return told if len(told) <= 2 * limit else f"{told[: 2 * limit - 2]}…'"


def quoted(text: str | bytes, limit: int = 60) -> str:
    """A text escaped, quoted, and cut after `limit` characters."""
    text = printable(text)
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return ascii(cut) if not cut.isprintable() else f"'{cut}'"
