"""Long work says now and then how far it is, in figures that people read at a glance."""

from __future__ import annotations

import time
from collections.abc import Callable

from .figures import format_about, format_count, format_rate, format_seconds


def no_progress(_count: int) -> None:
    """Progress that nobody listens to."""


class Progress:
    """Logs a line at most every `every` seconds, and a last one at `done`.

    `verb` opens each line: "exported 12,000 of 50,000 checkpoints, 24 % · 8,900/s · about 4 s left".
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
        self.found = 0  # of the total, what was done before and is not done again
        self._log = log
        self._every = every
        self._clock = clock
        self._verb = verb
        self._began = self._last = clock()
        self._ended = False

    def advance(self, n: int = 1) -> None:
        """Count `n` more, and log a line when the last one is old enough."""
        self.count += n
        self._tick()

    def skip(self, n: int) -> None:
        """Count `n` that an earlier try did: they are no work of this one, and not in its rate."""
        self.found += n
        self._tick()

    def _tick(self) -> None:
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
        line = f"{self._verb} {self._figure()} in {format_seconds(seconds)}"
        if self.count and seconds > 0:
            line += f" · {format_rate(self.count / seconds)}"
        self._log(line + self._done_before())

    def _done_before(self) -> str:
        return f" · {format_count(self.found)} found {self._verb} before" if self.found else ""

    def _percent(self) -> str:
        over = self.count + self.found
        return f", {100 * over // self.total} %" if 0 < over <= self.total else ""

    def _figure(self) -> str:
        if self.count + self.found == self.total:
            return f"{format_count(self.count)} {self.unit}"
        return f"{format_count(self.count)} of {format_count(self.total)} {self.unit}"

    def _line(self, seconds: float) -> str:
        line = f"{self._verb} {format_count(self.count)} of {format_count(self.total)} {self.unit}"
        line += self._percent()
        if not self.count or seconds <= 0:
            return line + self._done_before()
        rate = self.count / seconds
        line += f" · {format_rate(rate)}{self._done_before()}"
        left = self.total - self.count - self.found
        return f"{line} · about {format_about(left / rate)} left" if left > 0 else line
