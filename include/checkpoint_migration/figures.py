"""Counts, sizes, rates and durations as people read them at a glance. Pure."""

from __future__ import annotations

import math


def format_count(count: int) -> str:
    """A count with its thousands apart: `12,000`."""
    return f"{count:,}"


def format_rate(per_second: float) -> str:
    """A rate without figures that mean nothing: `8,900/s`, `42/s`, `0.3/s`."""
    if per_second >= 1000:
        return f"{round(per_second, -2):,.0f}/s"
    return f"{per_second:.0f}/s" if per_second >= 10 else f"{per_second:.1f}/s"


def format_seconds(seconds: float) -> str:
    """A duration as it was measured: `0.04 s`, `4.2 s`, `1 min 05 s`, `2 h 05 min`."""
    if seconds < 0.1:
        return f"{seconds:.2f} s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def format_about(seconds: float) -> str:
    """A duration that is a guess, never below it: `4 s`, `3 min`, `2 h 5 min`."""
    if seconds <= 90:
        return f"{max(1, math.ceil(seconds))} s"
    minutes = math.ceil(seconds / 60)
    if minutes <= 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def format_bytes(count: int) -> str:
    """A size for people: `812 bytes`, `3.1 MiB`, `42 GiB`."""
    size = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if round(size, 1 if unit != "bytes" else 0) < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 9.95 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"
