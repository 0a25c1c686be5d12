"""The parts of a report: moments, threads, lists, warnings, errors and phases."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone

from include.checkpoint_migration.errors import TargetUnreachable
from include.checkpoint_migration.findings import Caution, Verdict
from include.checkpoint_migration.model import ThreadStat
from include.checkpoint_migration.reporting.build import (
    build_error,
    build_moment,
    build_phases,
    build_threads,
    build_warnings,
    worded,
)
from include.checkpoint_migration.reporting.log import log_lines
from include.checkpoint_migration.reporting.report_html import render_page
from tests.support.reports import LIVE, NOT_LIVE, blocker, report_of


def test_moments_are_utc_to_the_millisecond() -> None:
    """A moment of any time zone is written in UTC, as ISO 8601 with Z."""
    zone = timezone(timedelta(hours=5, minutes=30))
    moment = datetime(2026, 3, 1, 17, 30, 0, 123_456, tzinfo=zone)
    assert build_moment(moment) == "2026-03-01T12:00:00.123Z"
    assert build_moment(None) is None


def test_threads_that_differ_are_listed_first() -> None:
    """Of more threads than are listed, the differing ones come first and the rest is a figure."""
    stats = [ThreadStat(f"t{i}", i, i, i) for i in range(5000)]
    differing = {"t4990", "t4995"}
    threads = build_threads(
        stats, lambda t: Verdict.DIFFERENT if t in differing else Verdict.IDENTICAL
    )
    assert [line.thread_id for line in threads.listed[:3]] == ["t4990", "t4995", "t0"]
    assert (threads.total, len(threads.listed), threads.omitted) == (5000, 1000, 4000)


def test_threads_do_not_grow_with_the_database() -> None:
    """Thirty thousand threads are counted in the memory of those that are listed."""

    def stats() -> Iterator[ThreadStat]:
        for number in range(30_000):
            yield ThreadStat(f"thread-{number}", 1, 1, 1)

    tracemalloc.start()
    try:
        threads = build_threads(stats(), lambda _: Verdict.IDENTICAL)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert threads.total == 30_000
    assert peak < 1_000_000


def test_thread_ids_that_are_no_utf8_are_spelled_out() -> None:
    """A thread id that arrives as bytes is text in the report, its foreign bytes in hex."""
    threads = build_threads([ThreadStat(b"caf\xe9", 1, 1, 1)], lambda _: Verdict.UNPROVEN)
    assert threads.listed[0].thread_id == "caf\\xe9"


def test_long_lists_are_cut_and_the_rest_counted() -> None:
    """A thousand blockers are listed, and a warning says how many are not."""
    report = report_of(
        NOT_LIVE,
        verdict=Verdict.UNPROVEN,
        succeeded=False,
        blockers=(blocker(f"t{i}") for i in range(1234)),
    )
    assert len(report.blockers) == 1000
    assert [(w.kind, w.count) for w in report.warnings] == [("blockers_omitted", 234)]
    assert report.sentence.startswith("1,234 values of the source have no lossless place")


def test_warnings_of_one_kind_are_merged() -> None:
    """Warnings that shards repeat are one, with their counts added and ten examples at most."""
    warnings = build_warnings(
        [
            Caution("nan", "holds NaN", 2, ("a", "b")),
            Caution("nul", "holds NUL", 1, ("a",)),
            Caution("nan", "holds NaN", 20, ("b", *(f"t{i}" for i in range(20)))),
        ]
    )
    assert [(w.kind, w.count) for w in warnings] == [("nan", 22), ("nul", 1)]
    assert warnings[0].threads == ("a", "b", *(f"t{i}" for i in range(8)))


def test_error_of_the_tree_is_told_whole() -> None:
    """An error of ours, or what was kept of one, keeps its three parts and whether to try again."""
    error = TargetUnreachable("no answer.", safe="all.", next="wait.")
    told = build_error(error)
    assert told == build_error(error.as_dict())
    assert told is not None
    assert (told.type, told.what, told.safe, told.next, told.transient) == (
        "TargetUnreachable",
        "no answer.",
        "all.",
        "wait.",
        True,
    )


def test_message_of_a_foreign_error_stays_out() -> None:
    """The message of an error that is not ours may hold a value or a DSN, so it is not told."""
    secret = "hunter2 of Ann"
    report = report_of(
        NOT_LIVE,
        verdict=Verdict.UNPROVEN,
        succeeded=False,
        error=build_error(ValueError(f"postgresql://user:{secret}@host")),
    )
    everything = report.to_json().decode() + render_page(report) + "\n".join(log_lines(report))
    assert secret not in everything
    assert "ValueError" in report.sentence


def test_phases_have_rates_where_checkpoints_move() -> None:
    """A phase's rate is checkpoints by second; none where none move, or where no time passed."""
    phases = build_phases([("check", 0.5, None), ("export", 2.0, 1000), ("empty", 0.0, 0)])
    assert [(p.name, p.seconds, p.checkpoints_per_second) for p in phases] == [
        ("check", 0.5, None),
        ("export", 2.0, 500.0),
        ("empty", 0.0, None),
    ]


def test_rewording_follows_the_facts() -> None:
    """A report whose facts change gets another sentence, and is otherwise the same."""
    report = report_of()
    changed = worded(replace(report, verdict=Verdict.DIFFERENT, succeeded=False), LIVE)
    assert changed.sentence != report.sentence
    assert worded(replace(changed, verdict=Verdict.IDENTICAL, succeeded=True), LIVE) == report
