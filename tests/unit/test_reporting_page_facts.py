"""What the page says beyond report.json: whether to switch, how the run went, what it rests on."""

from __future__ import annotations

import re
from dataclasses import replace

import msgspec
import pytest

from include.checkpoint_migration.errors import TargetUnreachable
from include.checkpoint_migration.findings import Counts, Verdict
from include.checkpoint_migration.model import ThreadStat
from include.checkpoint_migration.reporting.answer import answer
from include.checkpoint_migration.reporting.build import build_scope, build_threads
from include.checkpoint_migration.reporting.page_facts import (
    NO_FACTS,
    BatchLoaded,
    Named,
    Origin,
    PageFacts,
    Progress,
    Size,
    Span,
)
from include.checkpoint_migration.reporting.report_html import render_page
from include.checkpoint_migration.reporting.report_json import Report
from include.checkpoint_migration.reporting.runs_html import RunLine, render_notice, render_runs
from include.checkpoint_migration.reporting.so_far import SoFar, summary_so_far
from include.checkpoint_migration.reporting.summary import read_summary, summarized
from include.checkpoint_migration.settings import ThreadFilter
from tests.support.reports import (
    DRIFT,
    EMPTY,
    HOSTILE,
    difference,
    failed,
    hostile_report,
    report_of,
)

SPANS = (
    Span("check_schema", 100.0, 101.0),
    Span("load_batch", 101.0, 103.0),
    Span("load_batch", 102.0, 105.0, failed=True),
)
FACTS = PageFacts(
    inserted=Counts(800, 1200, 900),
    already_live=Counts(56, 40, 99),
    compared=True,
    sampled=201,
    unread=1,
    digests=(Named("export 0000", "ab" * 32),),
    versions=(Named("langgraph-checkpoint-sqlite", "3.1.2"),),
    params=(Named("on_conflict", "keep"),),
    origin=Origin("ann", "http://airflow.example/dags/a/runs/b"),
    spans=SPANS,
    batches=(BatchLoaded(1000, 1.0), BatchLoaded(1000, 0.5)),
    sizes=(Size("SQLite", 4096), Size("export files", 1024), Size("PostgreSQL", None)),
    source_sql="SELECT 1;",
)
PART = build_scope([ThreadStat("a", 1, 1, 1), ThreadStat("b", 1, 1, 1)], ThreadFilter(("a",)))
MANY = build_threads(
    (ThreadStat(f"{number:05} {'x' * 200}", 1, 1, 1) for number in range(10_000)),
    lambda _: Verdict.IDENTICAL,
)


@pytest.mark.parametrize(
    ("report", "facts", "said"),
    [
        (report_of(), NO_FACTS, "Yes"),
        (report_of(), PageFacts(rehearsal=True), "Not yet"),
        (report_of(), PageFacts(progress=Progress("load: 1 of 2 batches, 50 %")), "Not yet"),
        (report_of(drift=DRIFT), NO_FACTS, "Not yet"),
        (report_of(scope=PART), NO_FACTS, "Not yet"),
        (report_of(counts=EMPTY), NO_FACTS, "Not yet"),
        (report_of(succeeded=False), NO_FACTS, "Not yet"),
        (report_of(verdict=Verdict.UNPROVEN), NO_FACTS, "No"),
        (failed(TargetUnreachable("no.", next="wait.")), NO_FACTS, "No"),
        (report_of(verdict=Verdict.DIFFERENT, differences=[difference()]), NO_FACTS, "No"),
    ],
)
def test_only_a_proven_whole_migration_says_yes(
    report: Report, facts: PageFacts, said: str
) -> None:
    """The application is sent over only where every row of every thread is live and proven equal."""
    assert answer(report, facts)[0] == said
    assert f"<strong>{said}</strong>" in render_page(report, facts)


def test_the_page_shows_what_the_proof_rests_on() -> None:
    """Sample, digests, versions, params, who asked, sizes and rows found live are on the page."""
    page = render_page(report_of(), FACTS)
    for told in (
        "201 checkpoints, through both of LangGraph's savers",
        "ab" * 32,
        "langgraph-checkpoint-sqlite 3.1.2",
        "<code>on_conflict</code></dt><dd>keep",
        "triggered by ann",
        'href="http://airflow.example/dags/a/runs/b"',
        "live before, and equal",
        "2 tasks, 4.0 s",
        "1,500/s in the middle, 1,000/s at the slowest, 2,000/s at the fastest",
        "4.0 KiB",
        "SELECT 1;",
    ):
        assert told in page, told


def test_the_timeline_is_to_scale() -> None:
    """A bar begins and ends where its task did, in percent of the whole; a failed one is marked."""
    page = render_page(report_of(), FACTS)
    bars = re.findall(r'<rect(?: class="(\w+)")? x="([\d.]+)" width="([\d.]+)"', page)
    assert ("", "0.0", "20.0") in bars
    assert ("", "20.0", "40.0") in bars
    assert ("bad", "40.0", "60.0") in bars


def test_a_summary_makes_the_same_page() -> None:
    """What is handed on as plain JSON renders as the report that was written."""
    report = report_of(differences=[difference()])
    handed_on = msgspec.json.decode(msgspec.json.encode(summarized(report, FACTS)))
    read = read_summary(handed_on)
    assert render_page(read.report, read.facts) == render_page(report, FACTS)


def test_a_summary_of_another_release_is_the_report_alone() -> None:
    """What the page shows beside may change from release to release; the report is version 1."""
    plain = summarized(report_of(), FACTS)
    read = read_summary({**plain, "facts": {"spans": [{"of": "another shape"}]}})
    assert (read.report, read.facts) == (read_summary(plain).report, NO_FACTS)
    with pytest.raises(msgspec.ValidationError):
        read_summary({"report": {}, "facts": {}})


def test_a_summary_is_capped_and_says_what_it_leaves_out() -> None:
    """However many threads and findings: so many bytes, and the rest is counted."""
    many = [difference(f"{number} {'y' * 5_000}") for number in range(1_000)]
    report = report_of(
        verdict=Verdict.DIFFERENT, succeeded=False, threads=MANY, differences=many, found=1_234
    )
    plain = summarized(report, FACTS, 60_000)
    assert len(msgspec.json.encode(plain)) <= 60_000
    read = read_summary(plain).report
    assert len(read.threads.listed) + (read.threads.omitted or 0) == 10_000
    [omitted] = [w for w in read.warnings if w.kind == "differences_omitted"]
    assert omitted.count + len(read.differences) == 1_234


def test_a_summary_holds_only_what_any_database_takes() -> None:
    """No NUL and no lone surrogate: JSONB would refuse the whole of it."""
    text = msgspec.json.encode(summarized(hostile_report(), FACTS)).decode()
    assert "\\u0000" not in text
    assert not re.search(r"(?<!\\)\\ud[89a-f]", text)
    assert "nul\\\\x00here" in text


def test_a_page_of_ten_thousand_threads_is_light() -> None:
    """It weighs under 1 MB, and says how many threads it does not list."""
    page = render_page(replace(report_of(), threads=MANY), FACTS)
    assert len(page.encode()) < 1_000_000
    assert "9,000 not listed" in page


def running(**changes: object) -> SoFar:
    known = {
        "dag_id": "migrate_checkpoints",
        "run_id": "a run",
        "rehearsal": False,
        "progress": Progress("load: 14 of 49 batches, 31 %, about 20 s left", 31),
        "started": 100.0,
        "counted": Counts(856, 1240),
        "spans": SPANS,
        **changes,
    }
    return SoFar(**known)  # type: ignore[arg-type]


def test_a_run_that_goes_on_promises_nothing() -> None:
    """Its page says how far it is, that nothing is proven yet, and nothing of what it has not seen."""
    summary = summary_so_far(running())
    page = render_page(summary.report, summary.facts, refresh_seconds=5)
    assert "load: 14 of 49 batches, 31 %, about 20 s left" in page
    assert '<progress aria-label="how far the run is" max="100" value="31">' in page
    assert 'data-refresh="5"' in page
    assert "connect-src &#39;self&#39;" in page
    assert "No blockers" not in page
    assert summary.report.verdict is Verdict.UNPROVEN


def test_a_run_without_a_report_names_the_task_to_look_at() -> None:
    """A run that ended and left no summary says which task failed first."""
    summary = summary_so_far(running(progress=None, failed=("import.load_batch", "report")))
    assert "`import.load_batch` failed" in summary.report.sentence
    assert "`import.load_batch`" in summary.report.next_steps[0]
    assert "data-refresh" not in render_page(summary.report, summary.facts).partition("<main")[0]


def test_the_list_of_runs_escapes_what_it_shows() -> None:
    """Whatever a run, a source or a target is called, it is text in the list."""
    lines = [
        RunLine(run_id=name, href="runs/a/b", state="failed", started="", source=name, target=name)
        for name in HOSTILE
    ]
    page = render_runs(lines, more=1)
    assert "<script>document" not in page
    assert "<img" not in page
    assert "1 older run is not listed" in page
    assert "rehearse_checkpoints" in render_runs([])
    assert "<img" not in render_notice(HOSTILE[1], HOSTILE[1])
