"""Long work says now and then how far it is, in figures that people read at a glance."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


def spell_count(count: int) -> str:
    """A count with its thousands apart: `12,000`."""
    return f"{count:,}"


def spell_rate(per_second: float) -> str:
    """A rate without figures that mean nothing: `8,900/s`, `42/s`, `0.3/s`."""
    if per_second >= 1000:
        return f"{round(per_second, -2):,.0f}/s"
    return f"{per_second:.0f}/s" if per_second >= 10 else f"{per_second:.1f}/s"


def spell_seconds(seconds: float) -> str:
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


def spell_about(seconds: float) -> str:
    """A duration that is a guess, never below it: `4 s`, `3 min`, `2 h 5 min`."""
    if seconds <= 90:
        return f"{max(1, math.ceil(seconds))} s"
    minutes = math.ceil(seconds / 60)
    if minutes <= 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def unheard(_count: int) -> None:
    """Progress that nobody listens to."""


class Progress:
    """Logs a line at most every `every` seconds, and a last one at `done`.

    `verb` opens each line: "exported 12,000 of 50,000 checkpoints · 8,900/s · about 4 s left".
    """

    def __init__(
        self,
        total: int,
        unit: str,
        log: Callable[[str], None],
        every: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        *,
        verb: str = "done",
    ) -> None:
        self.total = total
        self.unit = unit
        self.count = 0
        self._log = log
        self._every = every
        self._clock = clock
        self._verb = verb
        self._began = self._last = clock()
        self._ended = False

    def advance(self, n: int = 1) -> None:
        """Count `n` more, and log a line when the last one is old enough."""
        self.count += n
        now = self._clock()
        if now - self._last >= self._every:
            self._last = now
            self._log(self._line(now - self._began))

    def done(self) -> None:
        """Log the last line, once: the figure reached, the seconds, the rate."""
        if self._ended:
            return
        self._ended = True
        seconds = self._clock() - self._began
        line = f"{self._verb} {self._figure()} in {spell_seconds(seconds)}"
        if self.count and seconds > 0:
            line += f" · {spell_rate(self.count / seconds)}"
        self._log(line)

    def _figure(self) -> str:
        if self.count == self.total:
            return f"{spell_count(self.count)} {self.unit}"
        return f"{spell_count(self.count)} of {spell_count(self.total)} {self.unit}"

    def _line(self, seconds: float) -> str:
        line = f"{self._verb} {spell_count(self.count)} of {spell_count(self.total)} {self.unit}"
        if not self.count or seconds <= 0:
            return line
        rate = self.count / seconds
        line += f" · {spell_rate(rate)}"
        left = self.total - self.count
        return f"{line} · about {spell_about(left / rate)} left" if left > 0 else line
