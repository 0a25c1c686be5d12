"""Who cannot see, or uses no mouse: axe looks at every page in a real browser and finds nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from include.checkpoint_migration.errors import Blocked
from include.checkpoint_migration.findings import (
    Caution,
    Counts,
    LeftBlob,
    LeftThread,
    Undone,
    Verdict,
)
from include.checkpoint_migration.model import ThreadStat
from include.checkpoint_migration.reporting.build import build_phases, build_scope, build_threads
from include.checkpoint_migration.reporting.page_facts import (
    BatchLoaded,
    Named,
    Origin,
    PageFacts,
    Progress,
    Size,
    Span,
)
from include.checkpoint_migration.reporting.report_html import render_page
from include.checkpoint_migration.reporting.runs_html import RunLine, render_notice, render_runs
from include.checkpoint_migration.reporting.so_far import SoFar, summary_so_far
from include.checkpoint_migration.reporting.undo_html import render_undo
from include.checkpoint_migration.reporting.undo_json import undo_report
from include.checkpoint_migration.settings import Settings, ThreadFilter
from tests.support.pages import findings_of_axe
from tests.support.reports import DRIFT, blocker, difference, failed, report_of

DARK = "--blink-settings=preferredColorScheme=0"
DESK, PHONE = "--window-size=1100,900", "--window-size=390,900"
FACTS = PageFacts(
    inserted=Counts(800, 1200, 900),
    already_live=Counts(56, 40, 99),
    compared=True,
    sampled=201,
    digests=(Named("export 0000", "ab" * 32),),
    versions=(Named("Python", "3.11"),),
    params=(Named("on_conflict", "keep"),),
    origin=Origin("ann", "http://airflow.example/dags/a/runs/b"),
    spans=(Span("check_schema", 100.0, 101.0), Span("load_batch", 101.0, 103.0, failed=True)),
    batches=(BatchLoaded(1000, 1.0), BatchLoaded(1000, 0.5)),
    sizes=(Size("SQLite", 4096), Size("export files", 1024)),
    source_sql="SELECT 1;",
)
STATS = [ThreadStat(f"thread {number}", 1, 1, 1) for number in range(60)]


def identical() -> str:
    report = report_of(
        threads=build_threads(STATS, lambda _: Verdict.IDENTICAL),
        scope=build_scope(STATS, ThreadFilter()),
        phases=build_phases([("load_batch", 2.0, 856)]),
        warnings=[Caution("kind", "a message", 1, ("a",))],
    )
    return render_page(report, FACTS)


def refused() -> str:
    return render_page(
        failed(
            Blocked("2 blockers.", next="mend them."),
            blockers=[blocker(f"{number}") for number in range(60)],
            differences=[difference()],
            conflicts=[difference()],
            drift=DRIFT,
        ),
        FACTS,
    )


def so_far() -> str:
    progress = Progress("load: 14 of 49 batches, 28 %, about 20 s left", 28)
    summary = summary_so_far(
        SoFar(dag_id="d", run_id="r", rehearsal=False, progress=progress, spans=FACTS.spans)
    )
    return render_page(summary.report, summary.facts, refresh_seconds=60, list_href="../")


def listed() -> str:
    lines = [
        RunLine(run_id=f"run {n}", href="runs/a/b", state="success", started="", verdict=verdict)
        for n, verdict in enumerate([*Verdict, None] * 4)
    ]
    return render_runs(lines, more=3)


def undone() -> str:
    """Partly undone, with what was left."""
    rows = {"checkpoints": 1, "checkpoint_writes": 2, "checkpoint_blobs": 3}
    left = Undone(
        *("moved", "migrate_checkpoints", "public", rows, rows, rows, rows),
        left_threads=12,
        threads=tuple(LeftThread(f"thread {n}", "rows were changed", rows) for n in range(12)),
        left_blobs=1,
        blobs=(LeftBlob("a", "", "messages"),),
    )
    settings = Settings(dag_id="undo_migration", run_id="u", source="/a", export_uri="/e")
    then = datetime(2026, 3, 1, tzinfo=UTC)
    report = undo_report(settings, "moved", left, None, then, then)
    return render_undo(report, run_id="u", asked="moved", state="success", list_href="../")


PAGES = {
    "identical": identical(),
    "refused": refused(),
    "so far": so_far(),
    "listed": listed(),
    "undo": undone(),
    "notice": render_notice("There is no such migration", "Look elsewhere."),
}


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("identical", (DESK,)),
        ("identical", (PHONE, DARK)),
        ("refused", (DESK, DARK)),
        ("refused", (PHONE,)),
        ("so far", (DESK,)),
        ("listed", (DESK,)),
        ("listed", (PHONE, DARK)),
        ("undo", (PHONE,)),
        ("notice", (DESK,)),
    ],
)
def test_axe_finds_nothing(name: str, flags: tuple[str, ...], tmp_path: Path) -> None:
    """In light and dark, on a desk and on a phone, with and without findings."""
    assert findings_of_axe(PAGES[name], tmp_path, *flags) == []


def test_axe_would_find_something(tmp_path: Path) -> None:
    """A page that leaves its language out is noticed."""
    page = PAGES["notice"].replace(' lang="en"', "")
    assert [found.partition(":")[0] for found in findings_of_axe(page, tmp_path)] == [
        "html-has-lang"
    ]
