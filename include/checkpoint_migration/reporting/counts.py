"""Whether a report's counts agree, and what explains it where live has fewer. Pure."""

from __future__ import annotations

from dataclasses import astuple

from .kinds import in_sqlite, kinds
from .report_json import Report, Stages

REMOVED = "removed_on_target"  # the warning's kind


def counts_agree(report: Report, *, first: int = 0) -> bool | None:
    """Whether the figures of each kind are equal; None when they are, as far as the run came.

    `first` leaves out that many stages: with 1, checkpoints and writes count from `frozen` on.
    """
    found = [
        astuple(kind.stages)[first if isinstance(kind.stages, Stages) else 0 :]
        for kind in kinds(report)
    ]
    if any(len(set(figures) - {None}) > 1 for figures in found):
        return False
    return None if any(None in figures for figures in found) else True


def removed_rows(report: Report) -> int:
    """The rows of the source that were removed from PostgreSQL after an earlier run."""
    return sum(w.count for w in report.warnings if w.kind == REMOVED)


def removed_alone(report: Report) -> int:
    """Rows missing from live alone, if they are just those that were removed there."""
    removed = removed_rows(report)
    missing = 0
    for _, stages in in_sqlite(report):
        if stages.staged is None or stages.live is None:
            return 0
        if {stages.source, stages.frozen, stages.exported} - {stages.staged, None}:
            return 0
        missing += stages.staged - stages.live
    return removed if removed == missing else 0


def is_compared(report: Report) -> bool:
    """Whether two figures of checkpoints are known."""
    return sum(figure is not None for figure in astuple(report.counts.checkpoints)) > 1
