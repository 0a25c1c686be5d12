"""A rehearsal as it is remembered, and those that a report knows of. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from .findings import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """A rehearsal as it is remembered: figures alone, None where it did not come so far.

    `tasks` is how many tasks Airflow ran for it (and would for twice the data), `phases` are seconds
    of work; bytes are at the
    fullest: `folder_bytes` in the run's folder, `staged_bytes` and `live_bytes` on the server.
    """

    run_id: str
    started: str
    verdict: Verdict
    succeeded: bool
    seconds: float
    threads: int | None = None
    checkpoints: int | None = None
    writes: int | None = None
    conflicts: int = 0
    blockers: int = 0
    error: str | None = None
    tasks: int | None = None
    tasks_for_twice: int | None = None
    phases: dict[str, float] = field(default_factory=dict)
    source_bytes: int | None = None
    folder_bytes: int | None = None
    staged_bytes: int | None = None
    live_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Rehearsals:
    """What the report of a rehearsal, or of a real run after some, knows of them.

    `this` is the run itself where it is one. `past` is the oldest first.
    """

    this: Rehearsal | None = None
    past: tuple[Rehearsal, ...] = ()

    @property
    def trend(self) -> tuple[Rehearsal, ...]:
        """All that are known, the latest last."""
        return (*self.past, *([self.this] if self.this else []))

    @property
    def last(self) -> Rehearsal | None:
        """The rehearsal before this run, if there was one."""
        return self.past[-1] if self.past else None


NONE = Rehearsals()
