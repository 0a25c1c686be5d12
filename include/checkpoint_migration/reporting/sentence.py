"""The one sentence that a report says to people, and the cause behind its verdict. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto

from ..figures import format_about, format_count
from ..findings import Blocker, Caution, Difference, Verdict
from ..settings import Settings
from .counts import counts_agree, is_compared, removed_alone, removed_rows
from .kinds import OTHER_HISTORIES, in_sqlite, kinds
from .omissions import OMITTED
from .report_json import BlobStages, ChangeFigures, Report, Stages

NOT_COUNTED = "what `threads` leaves behind in SQLite could not be counted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What the sentence, the next steps and the SQL need beyond `report.json`.

    `settings` is None when the params made none. `promoted` says whether rows of this run are
    live (in a rehearsal: in its scratch schema), None when that could not be learnt. `created_tables`:
    this run had setup() make or update the saver's tables. `staging_left`: a failed run has a staging
    schema. `kept_bytes` lie in `folder`, the run's own.
    """

    settings: Settings | None = None
    promoted: bool | None = False
    created_tables: bool = False
    staging_left: bool = False
    folder: str | None = None
    kept_bytes: int = 0

    @property
    def rehearsal(self) -> bool:
        return self.settings is not None and self.settings.rehearsal


class Cause(Enum):
    """Why a report's verdict is what it is."""

    IDENTICAL = auto()
    DIFFERENT = auto()
    COUNTS_ONLY = auto()
    DRIFTED = auto()
    BLOCKED = auto()
    CONFLICT = auto()
    FAILED = auto()
    UNFINISHED = auto()


def cause_of(report: Report) -> Cause:
    if report.verdict is Verdict.IDENTICAL:
        return Cause.IDENTICAL
    if report.verdict is Verdict.DIFFERENT:
        return Cause.DIFFERENT
    if report.error is not None:
        return {
            "SourceDrifted": Cause.DRIFTED,
            "Blocked": Cause.BLOCKED,
            "TargetConflict": Cause.CONFLICT,
        }.get(report.error.type, Cause.FAILED)
    if report.succeeded:
        return Cause.COUNTS_ONLY
    return Cause.BLOCKED if report.blockers else Cause.UNFINISHED


def plural(count: int, noun: str) -> str:
    return f"{format_count(count)} {noun}" if count == 1 else f"{format_count(count)} {noun}s"


def one_line(text: str) -> str:
    """A text as one sentence: on one line, with a capital and one full stop."""
    flat = ended(text)
    return f"{flat[:1].upper()}{flat[1:]}"


def ended(text: str) -> str:
    """A text with one full stop, or the question mark that it ends with."""
    flat = inner(text)
    return flat if flat.endswith("?") else f"{flat}."


def inner(text: str) -> str:
    """A text as part of a sentence: on one line, without its full stop."""
    return " ".join(text.split()).rstrip(".")


def where(place: Difference | Blocker) -> str:
    """The column of a finding, with its table where that is known."""
    table = place.table if isinstance(place, Difference) else ""
    if place.column.isidentifier() and table:
        return f"{table}.{place.column}"
    return f"{table} {place.column}".strip()


def total_of(report: Report, kind: str) -> int:
    """How many differences, conflicts or blockers were found, listed or not."""
    listed: tuple[object, ...] = getattr(report, kind)
    return len(listed) + sum(w.count for w in report.warnings if w.kind == kind + OMITTED)


def real_warnings(report: Report) -> list[Caution]:
    """The warnings but for those that only count what a list leaves out."""
    return [warning for warning in report.warnings if not warning.kind.endswith(OMITTED)]


def moved(stages: Stages | BlobStages) -> int | None:
    """How many rows the run was about: the frozen figure, or the nearest one that is known."""
    figures = (getattr(stages, s, None) for s in ("frozen", "exported", "staged", "live", "source"))
    return next((figure for figure in figures if figure is not None), None)


def live_in(stages: Stages) -> int | None:
    return stages.live


def nothing_moved(report: Report) -> bool:
    return all(moved(stages) == 0 for _, stages in in_sqlite(report))


def sentence(report: Report, situation: Situation) -> str:
    """Return the one sentence that a person should read if they read no other."""
    say = {
        Cause.IDENTICAL: _identical,
        Cause.DIFFERENT: _different,
        Cause.COUNTS_ONLY: _counts_only,
        Cause.DRIFTED: _drifted,
        Cause.BLOCKED: _blocked,
        Cause.CONFLICT: _conflict,
        Cause.FAILED: _failed,
        Cause.UNFINISHED: _unfinished,
    }[cause_of(report)]
    return one_line(say(report, situation))


def _identical(report: Report, situation: Situation) -> str:
    failed = ""
    if not report.succeeded:
        failed = "; the run failed all the same"
        failed += f": {inner(report.error.what)}" if report.error else " and left no error"
    if nothing_moved(report):
        return f"there was nothing to migrate: {_nothing(situation)}{failed}"
    rest = _left_behind(report)
    if situation.rehearsal:
        length = ""
        if report.seconds is not None:
            length = f"; the real one will take about {format_about(report.seconds)}"
        return f"rehearsed {_rows(report)}, all equal to the frozen source{rest}{length}{failed}"
    changes = drift_of(report)
    drift = f"; since then the source has changed ({changes})" if changes else ""
    if away := removed_rows(report):
        verb = "was" if away == 1 else "were"
        rest += f"; {plural(away, 'row')} that {verb} removed from PostgreSQL since an earlier run "
        rest += f"{verb} not brought back"
    rows = _rows(report, live_in if away else moved)
    return f"{rows} are live in PostgreSQL, all equal to the frozen source{rest}{drift}{failed}"


def _left_behind(report: Report) -> str:
    threads, items = report.scope.threads.left_out or 0, report.scope.store_left_out
    left = [plural(threads, "thread")] * bool(threads)
    left += [plural(items, "store item")] * bool(items)
    stays = "stays" if threads + items == 1 else "stay"
    return f"; {' and '.join(left)} {stays} behind in SQLite" if left else ""


def _nothing(situation: Situation) -> str:
    if situation.settings is not None and situation.settings.threads.globs:
        return "the source has no row of the `threads` asked for"
    return "the source has LangGraph's tables, and no rows in them"


def _different(report: Report, situation: Situation) -> str:
    differences, conflicts = total_of(report, "differences"), total_of(report, "conflicts")
    if differences:
        found = f"{plural(differences, 'difference')} from the frozen source"
        found += " was found" if differences == 1 else " were found"
    elif conflicts and situation.promoted is not False:
        found = _left_as_it_was(report, conflicts)
    elif counts_agree(report) is False:
        found = "the counts do not agree from the source to PostgreSQL"
    else:
        found = "something is not equal to the frozen source"
    return f"{found}; {_whereabouts(situation)}"


def _left_as_it_was(report: Report, conflicts: int) -> str:
    """What `on_conflict: keep` left on live: rows that differ, and threads of which no row was taken."""
    threads = sum(w.count for w in report.warnings if w.kind == OTHER_HISTORIES)
    rows = conflicts - threads
    left = []
    if rows:
        row = f"{plural(rows, 'live row')} with other content than the source"
        left.append(f"{row} {'was' if rows == 1 else 'were'} kept")
    if threads:
        thread = f"{plural(threads, 'thread')} that {'is' if threads == 1 else 'are'} live with another history"
        left.append(f"{thread} {'was' if threads == 1 else 'were'} left out")
    return " and ".join(left)


def _counts_only(report: Report, situation: Situation) -> str:
    place = "were rehearsed" if situation.rehearsal else "are live in PostgreSQL"
    agree = "and all counts agree" if counts_agree(report) else "and were counted"
    return f"{_rows(report)} {place} {agree}, but `verify: counts` compared no content"


def _drifted(report: Report, situation: Situation) -> str:
    changes = drift_of(report)
    figures = f" ({changes})" if changes else ""
    return f"the source was written since it was frozen{figures}; {_whereabouts(situation)}"


def _blocked(report: Report, situation: Situation) -> str:
    count = total_of(report, "blockers")
    rows = plural(count, "value") if count else "some values"
    has = "has" if count == 1 else "have"
    return f"{rows} of the source {has} no lossless place in PostgreSQL; {_whereabouts(situation)}"


def _conflict(report: Report, situation: Situation) -> str:
    what = inner(report.error.what) if report.error else "something else is live already"
    return f"{what}; {_whereabouts(situation)}"


def _failed(report: Report, situation: Situation) -> str:
    what = inner(report.error.what) if report.error else "no error was left"
    return f"the run stopped with nothing proven: {what}; {_whereabouts(situation)}"


def _unfinished(_report: Report, situation: Situation) -> str:
    ended = "the run ended with nothing proven, and no task left an error"
    return f"{ended}; {_whereabouts(situation)}"


def _whereabouts(situation: Situation) -> str:
    if situation.rehearsal:
        return "this was a rehearsal, so the live tables were never touched"
    if situation.promoted is None:
        return "whether rows of this run are live could not be learnt"
    if situation.promoted:
        return "the rows of this run are live"
    if situation.created_tables:
        return "the live tables are as they were, but for the empty ones that setup() made"
    return "the live tables are exactly as they were"


def _rows(report: Report, at: Callable[[Stages], int | None] = moved) -> str:
    checkpoints, writes = at(report.counts.checkpoints), at(report.counts.writes)
    if checkpoints is None or writes is None:
        return "all rows"
    rows = f"{plural(checkpoints, 'checkpoint')} and {plural(writes, 'pending write')}"
    items = at(report.counts.store) if report.counts.store else None
    threads = report.threads.total
    if threads == 0 and items:
        return plural(items, "store item")
    store = "" if items is None else f", with {plural(items, 'store item')},"
    if threads is None:
        return rows + store
    if report.scope.is_part:
        of_all = threads + (report.scope.threads.left_out or 0)
        return f"{format_count(threads)} of {plural(of_all, 'thread')} ({rows}){store}"
    return f"{rows} of {plural(threads, 'thread')}{store}"


def drift_of(report: Report) -> str:
    """Return, for example, "3 checkpoints added, 1 pending write removed"; "" without drift."""
    drifts = ((kind.drift, kind.noun) for kind in kinds(report))
    return ", ".join(p for drift, noun in drifts if drift for p in _changes(drift, noun))


def _changes(change: ChangeFigures, noun: str) -> Iterable[str]:
    for word in ("added", "changed", "removed"):
        if count := getattr(change, word):
            yield f"{plural(count, noun)} {word}"


def counts_line(report: Report) -> str:
    """Whether the counts agree, in a few words."""
    agree = counts_agree(report)
    if agree:
        return "agree, from SQLite to the live tables"
    if agree is None:
        return "agree, as far as the run came" if is_compared(report) else "not reached"
    if report.drift.total and counts_agree(report, first=1) is not False:
        return "agree from the frozen source on; SQLite has changed since"
    if removed := removed_alone(report):
        return (
            f"agree, but for {plural(removed, 'row')} removed from PostgreSQL since an earlier run"
        )
    if report.blockers:
        return "do not agree: what is blocked was not exported"
    return "do not agree"
