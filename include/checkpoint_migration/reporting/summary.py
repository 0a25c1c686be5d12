"""The capped summary of a run: its report and what the page shows beside, small enough for XCom. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from ..findings import Caution
from .omissions import OMITTED, omitted
from .page_facts import NO_FACTS, BatchLoaded, PageFacts
from .report_json import Report, Statement

VERSION = 1
MOST_BYTES = 400_000
CAPS = (1000, 500, 200, 100, 50, 20)
LISTS = ("differences", "conflicts", "blockers")
IDS = frozenset(
    (*("thread_id", "checkpoint_ns", "checkpoint_id", "threads"), "channel", "namespace", "key")
)
LONGEST_ID, LONGEST = 300, 4_000  # characters; the page shows less of an id


@dataclass(frozen=True, slots=True)
class Summary:
    """What a page is made of."""

    report: Report
    facts: PageFacts = NO_FACTS
    version: int = VERSION


def summarized(report: Report, facts: PageFacts, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """Plain JSON of at most so many bytes; what a list leaves out is counted, as in the report.

    Any database takes it: no NUL, no lone surrogate, no text without an end.
    """
    plain: dict[str, Any] = {}
    for cap in CAPS:
        cut = Summary(_cut(report, cap), _cut_facts(facts, cap))
        plain = storable(msgspec.to_builtins(cut))
        if len(msgspec.json.encode(plain)) <= most_bytes:
            break
    return plain


def read_summary(plain: Any) -> Summary:
    """The summary that `summarized` made; `msgspec.ValidationError` for anything else.

    Of another release of the package it is the report alone, where the rest has changed since.
    """
    try:
        return msgspec.convert(plain, Summary)
    except msgspec.ValidationError:
        if not isinstance(plain, Mapping) or "facts" not in plain:
            raise
        return msgspec.convert({"report": plain.get("report")}, Summary)


def _cut(report: Report, cap: int) -> Report:
    threads = report.threads
    if more := len(threads.listed[cap:]):
        left_out = (threads.omitted or 0) + more
        threads = replace(threads, listed=threads.listed[:cap], omitted=left_out)
    cut = replace(report, threads=threads, sql=tuple(filter(_is_whole, report.sql)))
    for kind in LISTS:
        found = getattr(report, kind)
        if more := len(found[cap:]):
            warnings = _counted(cut.warnings, kind, more)
            cut = replace(cut, **{kind: found[:cap]}, warnings=warnings)
    return cut


def _is_whole(statement: Statement) -> bool:
    """Whether a statement stays as it is: a cut one would be worse than none."""
    return len(statement.statement) <= LONGEST


def _counted(warnings: tuple[Caution, ...], kind: str, more: int) -> tuple[Caution, ...]:
    before = sum(w.count for w in warnings if w.kind == kind + OMITTED)
    others = tuple(w for w in warnings if w.kind != kind + OMITTED)
    return (*others, omitted(kind, before + more))


def _cut_facts(facts: PageFacts, cap: int) -> PageFacts:
    """Of tasks and batches beyond the cap the page draws fewer, and lists none."""
    every = -(-len(facts.spans) // cap) or 1
    return replace(
        facts,
        spans=facts.spans[::every],
        batches=merged(facts.batches, cap),
        digests=facts.digests[:cap],
    )


def merged(batches: tuple[BatchLoaded, ...], most: int) -> tuple[BatchLoaded, ...]:
    """At most so many, each of neighbours in the order in which they began."""
    size = -(-len(batches) // most) or 1
    groups = [batches[start : start + size] for start in range(0, len(batches), size)]
    return tuple(
        BatchLoaded(sum(b.checkpoints for b in group), sum(b.seconds for b in group))
        for group in groups
    )


def storable(value: Any, name: str = "") -> Any:
    """Plain JSON with its texts as any database takes them, ids and others cut."""
    if isinstance(value, dict):
        return {key: storable(item, key) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item, name) for item in value]
    return _text(value, LONGEST_ID if name in IDS else LONGEST) if isinstance(value, str) else value


def _text(text: str, longest: int) -> str:
    cut = text if len(text) <= longest else f"{text[:longest]}…"
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in cut)
