"""What the page shows beyond `report.json`: how the run went, and what its proof rests on.

It travels with the report in the capped summary that a run hands on; nothing of it is a value.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..findings import Counts
from ..rehearsal import NONE, Rehearsals


@dataclass(frozen=True, slots=True)
class Named:
    """A figure or a text with its name."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Span:
    """One task of a phase: when it ran (Unix seconds; no end while it does), and whether it failed."""

    phase: str
    started: float
    finished: float | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True)
class BatchLoaded:
    """The checkpoints that a task loaded, and how long it took."""

    checkpoints: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes of one form of the data; None where it was not reached."""

    name: str
    bytes: int | None


@dataclass(frozen=True, slots=True)
class Origin:
    """Who asked for the run, and where it is seen."""

    triggered_by: str | None = None
    run_url: str | None = None


NOT_TOLD = Origin()


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is that goes on: "load: 14 of 49 batches, 31 %, about 20 s left"."""

    line: str
    percent: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFacts:
    """All of it; what is not given was not reached. `progress` is there only while a run goes on."""

    rehearsal: bool = False
    inserted: Counts | None = None
    already_live: Counts | None = None
    removed: Counts | None = None
    kept: int = 0
    replaced: int = 0
    compared: bool = False
    sampled: int | None = None
    unread: int | None = None
    digests: tuple[Named, ...] = ()
    versions: tuple[Named, ...] = ()
    params: tuple[Named, ...] = ()
    origin: Origin = NOT_TOLD
    spans: tuple[Span, ...] = ()
    batches: tuple[BatchLoaded, ...] = ()
    sizes: tuple[Size, ...] = ()
    source_sql: str | None = None
    progress: Progress | None = None
    rehearsals: Rehearsals = NONE


NO_FACTS = PageFacts()
