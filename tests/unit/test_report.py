"""What people and programs read after a run: keys, sentences, steps, SQL, the page, the log."""

from __future__ import annotations

import json
import re
import stat
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.checkpoint_migration.errors import (
    Blocked,
    MigrationError,
    SettingsInvalid,
    SourceDrifted,
    StorageRefused,
    TargetConflict,
    TargetUnreachable,
    VerificationFailed,
)
from include.checkpoint_migration.findings import (
    Blocker,
    Caution,
    Change,
    Counts,
    Difference,
    Drift,
    Verdict,
)
from include.checkpoint_migration.model import ThreadStat
from include.checkpoint_migration.reporting.build import (
    build_counts,
    build_drift,
    build_error,
    build_moment,
    build_phases,
    build_report,
    build_source,
    build_threads,
    build_warnings,
    worded,
)
from include.checkpoint_migration.reporting.log import final_lines, log_lines
from include.checkpoint_migration.reporting.report_html import render_page
from include.checkpoint_migration.reporting.report_json import Report, read_report
from include.checkpoint_migration.reporting.sentence import Situation, counts_line
from include.checkpoint_migration.reporting.write import write_report
from include.checkpoint_migration.settings import Settings, ThreadFilter

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = Settings(
    dag_id="migrate_checkpoints", run_id="a run", source="/a.sqlite", export_uri="/e"
)
REHEARSAL = replace(SETTINGS, rehearsal=True)
LIVE = Situation(settings=SETTINGS, promoted=True)
NOT_LIVE = Situation(settings=SETTINGS, promoted=False)
NOT_KNOWN = Situation(settings=SETTINGS, promoted=None)
BEGAN = datetime(2026, 3, 1, 12, tzinfo=UTC)
ALL = Counts(856, 1240, 999)
HOSTILE = (
    "<script>document.title='ran'</script>",
    '"><img src=x onerror="document.title=\'ran\'">',
    'it\'s "quoted" and `ticked`',
    "line\nbreak\rand\ttab",
    "nul\0here",
    "lone \ud800 surrogate",
    "\u202eright to left",
    "x" * 10_000,
    "",
    "../../etc/passwd",
    "{{ 7 * 7 }}{% raw %}",
    "verdict: identical",
)
CONTRACT: dict[str, Any] = {
    "version": 1, "run_id": 0, "dag_id": 0, "started": 0, "finished": 0, "succeeded": 0,
    "source": {"uri": 0, "format": 0, "bytes": 0},
    "target": {"conn_id": 0, "database": 0, "schema": 0, "server_version": 0},
    "verdict": 0, "sentence": 0, "next_steps": 0,
    "counts": {
        "checkpoints": {"source": 0, "frozen": 0, "exported": 0, "staged": 0, "live": 0},
        "writes": {"source": 0, "frozen": 0, "exported": 0, "staged": 0, "live": 0},
        "blobs": {"exported": 0, "staged": 0, "live": 0},
    },
    "threads": {"total": 0, "listed": 0, "omitted": 0},
    "differences": 0, "conflicts": 0, "warnings": 0, "blockers": 0,
    "drift": {
        "checkpoints": {"added": 0, "changed": 0, "removed": 0},
        "writes": {"added": 0, "changed": 0, "removed": 0},
    },
    "error": 0, "phases": 0, "sql": 0,
}  # fmt: skip


def difference(thread_id: str = "a", table: str = "checkpoints", id: str = "1") -> Difference:
    return Difference(thread_id, "", id, table, "metadata", "not equal by value")


def blocker(thread_id: str = "a") -> Blocker:
    return Blocker(thread_id, "", "1", "metadata", "it holds a NUL")


def report_of(situation: Situation = LIVE, **changes: Any) -> Report:
    """A report of a run that went well, but for the changes."""
    facts: dict[str, Any] = {
        "dag_id": "migrate_checkpoints",
        "run_id": "a run",
        "started": BEGAN,
        "finished": BEGAN + timedelta(seconds=42),
        "succeeded": True,
        "verdict": Verdict.IDENTICAL,
        "counts": build_counts(
            source=Counts(856, 1240), frozen=Counts(856, 1240), exported=ALL, staged=ALL, live=ALL
        ),
        "threads": build_threads([ThreadStat("a", 856, 1240, 1)], lambda _: Verdict.IDENTICAL),
        "drift": build_drift(Drift()),
        **changes,
    }
    return build_report(situation, **facts)


def failed(error: MigrationError, situation: Situation = NOT_LIVE, **changes: Any) -> Report:
    return report_of(
        situation,
        **{"verdict": Verdict.UNPROVEN, "succeeded": False, "error": build_error(error), **changes},
    )


def earliest() -> Report:
    """The report of a run whose params made no settings."""
    return build_report(
        Situation(),
        dag_id="migrate_checkpoints",
        run_id="a run",
        started=None,
        finished=None,
        succeeded=False,
        verdict=Verdict.UNPROVEN,
        error=build_error(SettingsInvalid("param 'source' is missing.", next="give one.")),
    )


def hostile_report() -> Report:
    """A report with hostile ids wherever an id can stand."""
    return failed(
        VerificationFailed("it is <b>not</b> equal.", next="look."),
        LIVE,
        verdict=Verdict.DIFFERENT,
        run_id=HOSTILE[0],
        differences=[difference(name) for name in HOSTILE],
        conflicts=[difference(name, id=name) for name in HOSTILE],
        blockers=[blocker(name) for name in HOSTILE],
        warnings=[Caution("kind", f"a message of {HOSTILE[0]}", 1, HOSTILE)],
        threads=build_threads(
            [ThreadStat(name, 1, 2, 3) for name in HOSTILE], lambda _: Verdict.DIFFERENT
        ),
        source=build_source("/srv/<script>/a.sqlite"),
        phases=build_phases([(HOSTILE[1], 1.0, 5)]),
    )


# --- report.json --------------------------------------------------------------------------------


def keys_of(value: Any) -> Any:
    """The nested keys of an object, in order; anything else is 0."""
    if not isinstance(value, dict):
        return 0
    return [(key, keys_of(inner)) for key, inner in value.items()]


@pytest.mark.parametrize("report", [report_of(), earliest(), hostile_report()])
def test_all_keys_are_there_and_in_order(report: Report) -> None:
    """However far a run came, `report.json` has the keys of version 1, in the contract's order."""
    written = json.loads(report.to_json())
    assert keys_of({**written, "error": 0}) == keys_of(CONTRACT)
    assert written["version"] == 1


def test_figures_not_reached_are_null() -> None:
    """A run that failed before it looked at anything has null for every figure, and no zero."""
    written = json.loads(earliest().to_json())
    figures = [
        *written["counts"]["checkpoints"].values(),
        *written["counts"]["writes"].values(),
        *written["counts"]["blobs"].values(),
        *written["drift"]["checkpoints"].values(),
        *written["drift"]["writes"].values(),
        *written["source"].values(),
        *written["target"].values(),
        written["threads"]["total"],
        written["threads"]["omitted"],
        written["started"],
        written["finished"],
    ]
    assert figures == [None] * len(figures)
    assert written["threads"]["listed"] == []


def test_items_of_lists_have_the_contracts_keys() -> None:
    """Threads, findings, phases, SQL and the error have the keys that the contract names."""
    written = json.loads(hostile_report().to_json())
    place = ["thread_id", "checkpoint_ns", "checkpoint_id"]
    assert list(written["threads"]["listed"][0]) == [
        "thread_id",
        "verdict",
        "checkpoints",
        "writes",
    ]
    assert list(written["blockers"][0]) == [*place, "column", "why"]
    assert list(written["differences"][0]) == [*place, "table", "column", "why"]
    assert list(written["conflicts"][0]) == [*place, "table", "column", "why"]
    assert list(written["warnings"][0]) == ["kind", "message", "count", "threads"]
    assert list(written["phases"][0]) == ["name", "seconds", "checkpoints_per_second"]
    assert list(written["sql"][0]) == ["what", "statement"]
    assert list(written["error"]) == ["type", "what", "safe", "next", "transient"]


def test_ids_survive_and_lone_surrogates_are_escaped() -> None:
    """Ids are exact in `report.json`; a lone surrogate alone, which UTF-8 lacks, is spelled out."""
    data = hostile_report().to_json()
    ids = [line.thread_id for line in read_report(data).threads.listed]
    assert ids == [name.replace("\ud800", "\\ud800") for name in HOSTILE]
    assert json.loads(data.decode("utf-8"))["threads"]["listed"][4]["thread_id"] == "nul\0here"


def test_read_report_returns_what_was_written() -> None:
    """Reading `report.json` gives the same report, and writing that the same bytes."""
    report = report_of(phases=build_phases([("export", 1.5, 856)]), blockers=[blocker()])
    assert read_report(report.to_json()) == report
    assert read_report(report.to_json()).to_json() == report.to_json()


def test_read_report_refuses_another_shape() -> None:
    """A file that is no report is refused, not filled with defaults."""
    with pytest.raises(msgspec.ValidationError):
        read_report(b'{"version": 1, "verdict": "perhaps"}')


texts = st.text(st.characters(exclude_categories=()), max_size=30)  # lone surrogates among them


@given(texts, texts, texts)
def test_any_text_leaves_every_form_intact(thread_id: str, ns: str, word: str) -> None:
    """Whatever an id holds: JSON is strict UTF-8, a log line is a line, the page keeps its tags."""
    place = Difference(thread_id, ns, thread_id, "checkpoints", "metadata", "not equal")
    report = report_of(
        verdict=Verdict.DIFFERENT,
        succeeded=False,
        differences=[place],
        warnings=[Caution("kind", "message", 1, (word,))],
        threads=build_threads([ThreadStat(thread_id, 1, 1, 1)], lambda _: Verdict.DIFFERENT),
    )
    msgspec.json.decode(report.to_json())
    assert all(line.isprintable() for line in log_lines(report))
    page = render_page(report)
    page.encode("utf-8")
    assert tags_of(page) <= usual_tags()


# --- the parts ----------------------------------------------------------------------------------


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


# --- sentences and steps ------------------------------------------------------------------------

DRIFT = build_drift(Drift(Change(3, 1, 0), Change(0, 0, 1)))
EMPTY = build_counts(
    source=Counts(),
    frozen=Counts(),
    exported=Counts(0, 0, 0),
    staged=Counts(0, 0, 0),
    live=Counts(0, 0, 0),
)
SHORT = build_counts(frozen=Counts(856, 1240), staged=ALL, live=Counts(855, 1240, 999))
ROWS = "856 checkpoints and 1,240 pending writes of 1 thread"
EQUAL = f"{ROWS} are live in PostgreSQL, all equal to the frozen source"
CHANGES = "3 checkpoints added, 1 checkpoint changed, 1 pending write removed"
NO_CONTENT = "`verify: counts` compared no content"
NOT_LEARNT = "whether rows of this run are live could not be learnt"
ONLY_REHEARSED = "this was a rehearsal, so the live tables were never touched"
AS_IT_WAS = "the live tables are exactly as they were"
SENTENCES = {
    "identical": (
        report_of(),
        f"{EQUAL}.",
    ),
    "identical, drifted since": (
        report_of(drift=DRIFT),
        f"{EQUAL}; since then the source has changed ({CHANGES}).",
    ),
    "identical, failed afterwards": (
        failed(
            TargetUnreachable("the server went away.", next="wait."),
            LIVE,
            verdict=Verdict.IDENTICAL,
        ),
        f"{EQUAL}; the run failed all the same: the server went away.",
    ),
    "identical, figures unknown": (
        report_of(counts=build_counts()),
        "All rows are live in PostgreSQL, all equal to the frozen source.",
    ),
    "empty source": (
        report_of(counts=EMPTY, threads=build_threads([], lambda _: Verdict.IDENTICAL)),
        "There was nothing to migrate: the source has LangGraph's tables, and no rows in them.",
    ),
    "no thread taken": (
        report_of(
            Situation(settings=replace(SETTINGS, threads=ThreadFilter(("none-*",))), promoted=True),
            counts=EMPTY,
        ),
        "There was nothing to migrate: the source has no row of the `threads` asked for.",
    ),
    "rehearsal": (
        report_of(Situation(settings=REHEARSAL, promoted=True)),
        f"Rehearsed {ROWS}, all equal to the frozen source; the real one will take about 42 s.",
    ),
    "different, live": (
        report_of(verdict=Verdict.DIFFERENT, succeeded=False, differences=[difference()]),
        "1 difference from the frozen source was found; the rows of this run are live.",
    ),
    "different, staged": (
        report_of(
            NOT_LIVE,
            verdict=Verdict.DIFFERENT,
            succeeded=False,
            differences=[difference()],
            found=12,
        ),
        f"12 differences from the frozen source were found; {AS_IT_WAS}.",
    ),
    "different, rehearsed": (
        report_of(
            Situation(settings=REHEARSAL, promoted=True),
            verdict=Verdict.DIFFERENT,
            succeeded=False,
            differences=[difference()],
        ),
        f"1 difference from the frozen source was found; {ONLY_REHEARSED}.",
    ),
    "different, kept": (
        report_of(verdict=Verdict.DIFFERENT, succeeded=False, conflicts=[difference()] * 3),
        "3 live rows with other content than the source were kept; the rows of this run are live.",
    ),
    "different, by count": (
        report_of(verdict=Verdict.DIFFERENT, succeeded=False, counts=SHORT),
        "The counts do not agree from the source to PostgreSQL; the rows of this run are live.",
    ),
    "counts only": (
        report_of(verdict=Verdict.UNPROVEN),
        f"{ROWS} are live in PostgreSQL and all counts agree, but {NO_CONTENT}.",
    ),
    "drifted": (
        failed(SourceDrifted("the source was written.", next="stop it."), drift=DRIFT),
        f"The source was written since it was frozen ({CHANGES}); {AS_IT_WAS}.",
    ),
    "blocked": (
        failed(Blocked("2 blockers.", next="mend them."), blockers=[blocker(), blocker()]),
        f"2 values of the source have no lossless place in PostgreSQL; {AS_IT_WAS}.",
    ),
    "conflict": (
        failed(TargetConflict("1 row.", next="choose."), conflicts=[difference()]),
        f"1 row of the source is live already with other content; {AS_IT_WAS}.",
    ),
    "failed": (
        failed(TargetUnreachable("no connection\n  to the target.", next="wait."), NOT_LIVE),
        f"The run stopped with nothing proven: no connection to the target; {AS_IT_WAS}.",
    ),
    "failed, nobody knows": (
        failed(TargetUnreachable("no connection.", next="wait."), NOT_KNOWN),
        f"The run stopped with nothing proven: no connection; {NOT_LEARNT}.",
    ),
    "killed": (
        report_of(NOT_LIVE, verdict=Verdict.UNPROVEN, succeeded=False),
        f"The run ended with nothing proven, and no task left an error; {AS_IT_WAS}.",
    ),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_sentence_of_each_situation(name: str) -> None:
    """Each verdict and situation has its sentence, and it says where the rows are."""
    report, expected = SENTENCES[name]
    assert report.sentence == expected


@pytest.mark.parametrize("name", SENTENCES)
def test_next_steps_are_imperative_sentences(name: str) -> None:
    """There is always something to do next; each step is one line that opens with a verb."""
    verbs = {
        "Check", "Choose", "Clear", "Decide", "Give", "Keep", "Leave", "Look", "Mend", "Read",
        "Set", "Start", "Stop", "Trigger", "Wait",
    }  # fmt: skip
    steps = SENTENCES[name][0].next_steps
    assert steps
    for step in steps:
        assert step.split()[0].rstrip(".") in verbs, step
        assert step.endswith(".")
        assert not step.endswith("..")
        assert "\n" not in step


def test_next_steps_never_send_the_application_over_unproven_rows() -> None:
    """Only after `identical` is the application started on PostgreSQL."""
    for report, _ in SENTENCES.values():
        start = "Start the application on PostgreSQL." in report.next_steps
        assert not start or report.verdict is Verdict.IDENTICAL
    assert "Start the application on PostgreSQL." in report_of().next_steps


def test_transient_error_says_how_to_go_on() -> None:
    """After an error that is worth another try, the steps say which task to clear."""
    report = failed(TargetUnreachable("no connection.", next="wait for the server."))
    assert report.next_steps[:2] == (
        "Wait for the server.",
        "Clear the failed task if its tries are used up: it goes on where it was.",
    )


def test_kept_exports_are_called_to_mind() -> None:
    """Export files that stay hold conversations, and the steps say so."""
    keeping = Situation(settings=replace(SETTINGS, keep_exports=True), promoted=True)
    assert any("export files" in step for step in report_of(keeping).next_steps)
    assert not any("export files" in step for step in report_of().next_steps)


def test_rewording_follows_the_facts() -> None:
    """A report whose facts change gets another sentence, and is otherwise the same."""
    report = report_of()
    changed = worded(replace(report, verdict=Verdict.DIFFERENT, succeeded=False), LIVE)
    assert changed.sentence != report.sentence
    assert worded(replace(changed, verdict=Verdict.IDENTICAL, succeeded=True), LIVE) == report


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "agree, from SQLite to the live tables"),
        ({"counts": build_counts(source=ALL, frozen=ALL)}, "agree, as far as the run came"),
        ({"counts": build_counts()}, "not reached"),
        ({"counts": SHORT}, "do not agree"),
        (
            {
                "counts": build_counts(
                    source=Counts(900, 1240), frozen=ALL, exported=ALL, staged=ALL, live=ALL
                ),
                "drift": DRIFT,
            },
            "agree from the frozen source on; SQLite has changed since",
        ),
        (
            {
                "counts": build_counts(
                    source=ALL, frozen=ALL, exported=ALL, staged=ALL, live=Counts(850, 1230, 990)
                ),
                "warnings": [Caution("removed_on_target", "not brought back", 16)],
            },
            "agree, but for 16 rows that the application removed from PostgreSQL",
        ),
        (
            {
                "counts": build_counts(
                    source=ALL, frozen=ALL, exported=ALL, staged=ALL, live=Counts(850, 1230, 990)
                ),
                "warnings": [Caution("removed_on_target", "not brought back", 15)],
            },
            "do not agree",
        ),
    ],
)
def test_counts_line_says_whether_counts_agree(changes: dict[str, Any], line: str) -> None:
    """Counts agree, agree as far as the run came, or do not; what explains a gap must fill it."""
    assert counts_line(report_of(**changes)) == line


# --- SQL ----------------------------------------------------------------------------------------


def what_of(report: Report) -> list[str]:
    return [re.split("[ .:]", statement.what)[0] for statement in report.sql]


@pytest.mark.parametrize(
    ("report", "whats"),
    [
        (report_of(), ["Count"]),
        (
            report_of(verdict=Verdict.DIFFERENT, succeeded=False, differences=[difference()]),
            ["Count", "Look", "Before", "Take", "Drop"],
        ),
        (
            report_of(
                NOT_LIVE, verdict=Verdict.DIFFERENT, succeeded=False, differences=[difference()]
            ),
            ["Look", "Drop"],
        ),
        (failed(TargetUnreachable("no.", next="wait."), NOT_KNOWN), ["Count", "Drop"]),
        (report_of(Situation(settings=REHEARSAL, promoted=True)), []),
        (earliest(), []),
    ],
)
def test_statements_fit_the_situation(report: Report, whats: list[str]) -> None:
    """Taking rows out is offered only when the verdict is `different` and rows may be live."""
    assert what_of(report) == whats


def test_differences_before_promote_are_looked_at_in_staging() -> None:
    """Where nothing is live, the differing row is in staging, and a conflicting one in live."""
    report = report_of(
        NOT_LIVE,
        verdict=Verdict.DIFFERENT,
        succeeded=False,
        differences=[difference("staged")],
        conflicts=[difference("live")],
    )
    looks = [s.statement for s in report.sql if s.what.startswith("Look")]
    assert f'"{SETTINGS.staging_schema}"."checkpoints"' in next(s for s in looks if "'staged'" in s)
    assert '"public"."checkpoints"' in next(s for s in looks if "'live'" in s)


def test_ids_that_postgresql_cannot_hold_are_not_looked_for() -> None:
    """An id with a NUL or a lone surrogate has no row to look at, nor has a place without an id."""
    places = [difference("a\0b"), difference("\ud800"), difference("a", id="")]
    report = report_of(verdict=Verdict.DIFFERENT, succeeded=False, differences=places)
    assert "Look" not in what_of(report)


def test_names_and_texts_are_quoted() -> None:
    """A schema or an id made to break out of its quotes stays inside them."""
    schema = 'pub"lic; DROP TABLE x; --'
    report = report_of(
        Situation(settings=replace(SETTINGS, target_schema=schema), promoted=True),
        verdict=Verdict.DIFFERENT,
        succeeded=False,
        differences=[difference("'; DROP TABLE y; --"), difference("back\\slash' OR 1=1")],
    )
    statements = "\n".join(s.statement for s in report.sql)
    assert '"pub""lic; DROP TABLE x; --"."checkpoints"' in statements
    assert "thread_id = '''; DROP TABLE y; --'" in statements
    assert r"thread_id =  E'back\\slash'' OR 1=1'" in statements


def test_statements_hold_only_what_prints() -> None:
    """Text direction marks, line breaks and escapes of a terminal are written in ASCII."""
    report = report_of(
        verdict=Verdict.DIFFERENT,
        succeeded=False,
        differences=[difference("\u202eabc\n\x1b[31m'{x}"), difference("naïve ✓")],
    )
    statements = "\n".join(s.statement for s in report.sql)
    assert r"E'\U0000202eabc\U0000000a\U0000001b[31m''{x}'" in statements
    assert "'naïve ✓'" in statements
    assert statements.replace("\n", "").isprintable()


# --- the log ------------------------------------------------------------------------------------


def test_log_holds_a_line_a_line() -> None:
    """No id, message or step breaks a line of the log, or passes for the run's last two lines."""
    lines = log_lines(hostile_report())
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith(("verdict:", "report:")) for line in lines)
    assert not any("x" * 100 in line for line in lines)


def test_log_opens_with_the_sentence_and_has_the_figures() -> None:
    """The log's table has each stage of each kind, thousands apart."""
    lines = log_lines(
        report_of(
            drift=DRIFT, phases=build_phases([("export", 2.0, 17_800), ("promote", 0.5, None)])
        )
    )
    assert lines[0].startswith("856 checkpoints and 1,240 pending writes")
    rows = {line.split("  ")[0]: line.split() for line in lines}
    assert rows["checkpoints"] == ["checkpoints", *["856"] * 5]
    assert rows["pending writes"] == ["pending", "writes", *["1,240"] * 5]
    assert rows["blobs"] == ["blobs", "999", "999", "999"]
    assert rows["export"] == ["export", "2.0", "s", "8,900/s"]
    assert any(
        line.startswith("Drift: 3 checkpoints added, 1 checkpoint changed") for line in lines
    )


def test_log_lists_the_first_ten_findings_of_each_kind() -> None:
    """Of many findings the log names ten, and says how many there are."""
    lines = log_lines(
        failed(
            Blocked("many.", next="mend them."),
            blockers=[blocker(f"t{i:02}") for i in range(25)],
            differences=[difference(f"d{i:02}") for i in range(11)],
            found=4000,
        )
    )
    assert "Blockers: 25, the first 10" in lines
    assert "Differences: 4,000, the first 10" in lines
    assert sum("thread 't" in line for line in lines) == 10
    assert sum("thread 'd" in line for line in lines) == 10
    assert "  thread 't00', checkpoint '1', metadata: it holds a NUL" in lines
    assert "  thread 'd00', checkpoint '1', checkpoints.metadata: not equal by value" in lines


def test_final_lines_are_the_two_plain_lines() -> None:
    """Programs find the verdict and the report's path in two plain lines."""
    lines = final_lines(report_of(), Path("/exports/run/report.json"))
    assert lines == ["verdict: identical", "report: /exports/run/report.json"]


# --- the files ----------------------------------------------------------------------------------


def test_files_are_private_and_whole(tmp_path: Path) -> None:
    """Both files appear with mode 0600, nothing else stays, and the path returned is absolute."""
    path = write_report(report_of(), tmp_path / "run")
    assert path == tmp_path / "run" / "report.json"
    assert {p.name: stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()} == {
        "report.json": 0o600,
        "report.html": 0o600,
    }
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert read_report(path.read_bytes()) == report_of()


def test_path_is_absolute_from_a_relative_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative folder still gives the absolute path of `report.json`."""
    monkeypatch.chdir(tmp_path)
    assert write_report(report_of(), Path("run")) == tmp_path / "run" / "report.json"


@pytest.mark.parametrize("name", ["report.json", "report.html"])
def test_planted_link_is_refused(tmp_path: Path, name: str) -> None:
    """A link in the place of a report is refused, and what it points to is not written."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / name).symlink_to(victim)
    with pytest.raises(StorageRefused):
        write_report(report_of(), folder)
    assert victim.read_text() == "mine"
    assert not [p for p in folder.iterdir() if "tmp" in p.name]


def test_page_that_cannot_be_written_leaves_the_old_report(tmp_path: Path) -> None:
    """A new `report.json` never stands beside an old page: the page is written first."""
    path = write_report(report_of(), tmp_path)
    before = path.read_bytes()
    page = tmp_path / "report.html"
    page.unlink()
    page.mkdir()
    with pytest.raises(StorageRefused):
        write_report(earliest(), tmp_path)
    assert path.read_bytes() == before


def test_second_report_replaces_the_first(tmp_path: Path) -> None:
    """A report task that is tried again leaves one report, the later one."""
    write_report(earliest(), tmp_path)
    path = write_report(report_of(), tmp_path)
    assert read_report(path.read_bytes()).verdict is Verdict.IDENTICAL
    assert "identical" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(list(tmp_path.iterdir())) == 2


# --- the page -----------------------------------------------------------------------------------


class Page(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def tags_of(page: str) -> set[str]:
    return Page(page).tags


@cache
def usual_tags() -> set[str]:
    """The tags of a page whose ids are tame."""
    return tags_of(
        render_page(
            failed(
                VerificationFailed("`not` equal.", next="look."),
                LIVE,
                verdict=Verdict.DIFFERENT,
                differences=[difference()],
                warnings=[Caution("kind", "message", 1, ("a",))],
            )
        )
    )


def test_page_fetches_nothing_and_runs_nothing() -> None:
    """The page has no script, no handler, no link and no reference to anything outside itself."""
    for report in (report_of(), hostile_report(), earliest()):
        page = render_page(report)
        seen = Page(page)
        assert not seen.tags & {"script", "img", "link", "iframe", "object", "svg", "form", "a"}
        assert not [name for name in seen.attributes if name.startswith("on")]
        assert seen.links == []
        assert "url(" not in page
        assert "@import" not in page


def test_page_shows_hostile_ids_as_text() -> None:
    """Ids are shown escaped where they print, spelled out where they do not, and cut when long."""
    page = render_page(hostile_report())
    text = " ".join(Page(page).text)
    assert "<script>document.title='ran'</script>" in text
    assert "'nul\\x00here'" in text
    assert "'line\\nbreak\\rand\\ttab'" in text
    assert "'lone \\ud800 surrogate'" in text
    assert "'\\u202eright to left'" in text
    assert "(10,000 characters)" in text
    assert "{{ 7 * 7 }}{% raw %}" in text
    assert "x" * 100 not in page
    page.encode("utf-8")


def test_page_holds_only_what_prints() -> None:
    """Escapes of a terminal, NUL and direction marks are spelled out, whatever text they are in."""
    odd = "\x1b[31m\0\ud800\u202e"
    report = failed(
        VerificationFailed(odd, safe=odd, next=odd),
        source=build_source(odd),
        warnings=[Caution(odd, odd, 1)],
        phases=build_phases([(odd, 1.0, None)]),
        differences=[Difference(odd, odd, odd, odd, odd, odd)],
    )
    page = render_page(report)
    assert page.replace("\n", "").isprintable()
    assert page.count("\\x1b[31m\\x00\\ud800\\u202e") >= 10


def test_page_opens_with_the_verdict_in_four_lines() -> None:
    """The sentence, the verdict, whether counts agree and the duration come before all else."""
    report = report_of()
    text = " ".join(" ".join(Page(render_page(report).partition("<main")[2]).text).split())
    opening = text[text.index(report.sentence) :]
    assert opening.startswith(
        f"{report.sentence} Verdict identical Counts agree, from SQLite to the live tables "
        "Duration 42 s · 2026-03-01 12:00:00 to 12:00:42 UTC"
    )


def test_page_has_every_section_of_a_full_report() -> None:
    """Findings, warnings, drift, phases, threads, SQL and next steps are all on the page."""
    page = render_page(hostile_report())
    headings = re.findall(r"<h2>([^<]+)", page)
    assert headings == [
        "VerificationFailed",
        "Next steps",
        "Counts",
        "Differences",
        "Blockers",
        "Conflicts",
        "Warnings",
        "Drift",
        "Phases",
        "Threads",
        "SQL",
        "Run",
    ]
    assert "No differences, no blockers, no conflicts, no warnings." in render_page(report_of())


def test_page_marks_the_figure_that_is_off() -> None:
    """Of the counts, the one that is not what was to be moved is marked."""
    page = render_page(report_of(verdict=Verdict.DIFFERENT, succeeded=False, counts=SHORT))
    assert re.findall(r'class="n off">([^<]*)<', page) == ["855"]


def test_page_wears_both_colour_schemes_and_prints() -> None:
    """The page follows the reader's colour scheme and has a style for paper."""
    page = render_page(report_of())
    assert "@media (prefers-color-scheme: dark)" in page
    assert "@media print" in page
    assert 'name="viewport"' in page


# --- the documentation --------------------------------------------------------------------------


def test_example_of_the_documentation_is_a_report() -> None:
    """The example in `docs/report-json.md` reads as a report and has its keys and no others."""
    text = (ROOT / "docs" / "report-json.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    report = read_report(example.encode())
    assert json.loads(report.to_json()) == json.loads(example)
    assert keys_of({**json.loads(example), "error": 0}) == keys_of(CONTRACT)
    settings = replace(SETTINGS, dag_id=report.dag_id, run_id=report.run_id)
    assert worded(report, Situation(settings=settings, promoted=True)) == report


def test_documentation_explains_every_key() -> None:
    """Every key of a report, at any depth, has a row in the documentation's tables."""
    text = (ROOT / "docs" / "report-json.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"^\| `([^`]+)`", text, re.MULTILINE))
    written = json.loads(hostile_report().to_json())

    def paths(value: Any, at: str) -> Iterator[str]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield f"{at}{key}"
                yield from paths(inner, f"{at}{key}.")
        elif isinstance(value, list) and value:
            yield from paths(value[0], f"{at.removesuffix('.')}[].")

    assert set(paths(written, "")) == explained
