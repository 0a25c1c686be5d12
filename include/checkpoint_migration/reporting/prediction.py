"""What the real run will take, from what its rehearsal took. Pure.

Work grows with the data, but for the moment in which each phase connects and looks around. Airflow's
own time grows with its tasks. What one rehearsal measured holds for a machine as busy as it was then.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..rehearsal import Rehearsal

LOOKING_AROUND = 0.1  # seconds of a phase that do not grow: measured with 20 checkpoints
NOT_IN_SQLITE = 2  # live rows once more as the WAL that promote writes; staging writes none


@dataclass(frozen=True, slots=True)
class Prediction:
    """Seconds from trigger to report, and bytes at the fullest, for `growth` times the data.

    `stays_bytes` is what remains on the server where no row is live yet.
    """

    growth: float
    seconds: float
    folder_bytes: int
    server_bytes: int
    stays_bytes: int


def predict(rehearsal: Rehearsal, growth: float) -> Prediction | None:
    """The real run over `growth` times the data; None where too little is known.

    Only a rehearsal that came to its end knows every phase.
    """
    sizes = (rehearsal.folder_bytes, rehearsal.staged_bytes, rehearsal.live_bytes)
    tasks, more = rehearsal.tasks, rehearsal.tasks_for_twice
    if not rehearsal.succeeded or None in sizes or not tasks or more is None:
        return None
    folder, staged, live = (int((size or 0) * growth) for size in sizes)
    work = sum(rehearsal.phases.values())
    grown = sum(_grown(seconds, growth) for seconds in rehearsal.phases.values())
    waiting = max(0.0, rehearsal.seconds - work) * (1 + (more / tasks - 1) * (growth - 1))
    return Prediction(growth, grown + waiting, folder, staged + NOT_IN_SQLITE * live, live)


def _grown(seconds: float, growth: float) -> float:
    fixed = min(seconds, LOOKING_AROUND)
    return fixed + (seconds - fixed) * growth
