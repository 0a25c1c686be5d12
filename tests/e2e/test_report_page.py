"""What a person does with a report: opens its page in a browser, runs its SQL on a server."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.postgres import PostgresSaver
from psycopg.rows import dict_row

from include.checkpoint_migration.errors import VerificationFailed
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
    build_phases,
    build_report,
    build_source,
    build_threads,
)
from include.checkpoint_migration.reporting.report_json import Report, TargetFacts
from include.checkpoint_migration.reporting.sentence import Situation
from include.checkpoint_migration.reporting.write import write_report
from include.checkpoint_migration.run import lease
from include.checkpoint_migration.settings import Settings
from tests.support.postgres import Database

SETTINGS = Settings(
    dag_id="migrate_checkpoints", run_id="a run", source="/a.sqlite", export_uri="/e"
)
RAN = "document.documentElement.dataset.ran = 'yes'"
HOSTILE = (
    f"<script>{RAN}</script>",
    f'"><img src=x onerror="{RAN}">',
    f"'><svg onload='{RAN}'>",
    f"</title></style></pre></table><script>{RAN}</script>",
    f"--><script>{RAN}</script><!--",
    f"`<b onmouseover={RAN}>`",
    'it\'s "quoted" \\ and {{ braced }}',
    "line\nbreak",
    "nul\0here",
    "lone \ud800 surrogate",
    "\u202eright to left",
    "مرحبا بالعالم",
    "x" * 10_000,
    "",
)


def hostile_report() -> Report:
    """A report of a run that found differences, with hostile text wherever text can stand."""
    counts = Counts(20_000, 40_000, 61_234)
    return build_report(
        Situation(settings=SETTINGS, promoted=True),
        dag_id="migrate_checkpoints",
        run_id=HOSTILE[3],
        started=datetime(2026, 3, 1, 12, tzinfo=UTC),
        finished=datetime(2026, 3, 1, 12, tzinfo=UTC) + timedelta(seconds=41.3),
        succeeded=False,
        verdict=Verdict.DIFFERENT,
        source=build_source(f"/srv/{HOSTILE[0]}/a.sqlite"),
        target=TargetFacts("langgraph_postgres", HOSTILE[1], HOSTILE[2], "16.4"),
        counts=build_counts(
            source=counts,
            frozen=counts,
            exported=counts,
            staged=counts,
            live=Counts(19_999, 40_000, 9),
        ),
        threads=build_threads(
            [ThreadStat(name, 20, 40, 1) for name in HOSTILE], lambda _: Verdict.DIFFERENT
        ),
        differences=[Difference(n, n, n, "checkpoints", "metadata", "not equal") for n in HOSTILE],
        found=2345,
        conflicts=[Difference(n, "", n, "checkpoint_blobs", n, n) for n in HOSTILE],
        blockers=[Blocker(n, n, n, "metadata", "it holds a NUL") for n in HOSTILE],
        warnings=[Caution(n, n, 12, HOSTILE) for n in HOSTILE],
        drift=build_drift(Drift(Change(3, 1, 0), Change(4, 0, 1))),
        error=build_error(
            VerificationFailed(f"`{HOSTILE[0]}` is not equal.", safe=HOSTILE[1], next=HOSTILE[2])
        ),
        phases=build_phases(
            [("freeze_source", 0.36, None), ("import", 3.2, 20_000), (HOSTILE[0], 1, 1)]
        ),
    )


# --- in a browser -------------------------------------------------------------------------------

Browse = Callable[[str], "Dom"]


class Dom(HTMLParser):
    """The document as the browser had it after it ran what there was to run."""

    def __init__(self, dumped: str) -> None:
        super().__init__()
        self.root: dict[str, str | None] = {}
        self.tags: set[str] = set()
        self.handlers: set[str] = set()
        self.text = ""
        self.feed(dumped)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.handlers |= {name for name, _ in attrs if name.startswith("on")}
        if tag == "html":
            self.root = dict(attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def browse(tmp_path: Path) -> Browse:
    """Open a page in headless Chromium and return its document."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")

    def open_(page: str) -> Dom:
        file = tmp_path / "page.html"
        file.write_text(page, encoding="utf-8")
        flags = (
            "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
            "--disable-background-networking --disable-component-update --disable-sync"
        ).split()
        command = [browser, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
        done = subprocess.run([*command, file.as_uri()], capture_output=True, timeout=90)
        assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
        return Dom(done.stdout.decode("utf-8"))

    return open_


@pytest.fixture
def page(tmp_path: Path) -> str:
    path = write_report(hostile_report(), tmp_path / "run")
    return path.with_name("report.html").read_text(encoding="utf-8")


def without_policy(page: str) -> str:
    """The page without the policy that forbids scripts, so that its escaping stands alone."""
    bare, found = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    assert found == 1
    return bare


def test_no_script_of_an_id_runs_in_a_browser(browse: Browse, page: str) -> None:
    """Opened in a real browser without its policy, a page of hostile ids runs nothing of theirs."""
    dom = browse(without_policy(page))
    assert "data-ran" not in dom.root
    assert not dom.handlers
    assert not dom.tags & {"img", "b", "iframe"}
    assert f"<script>{RAN}</script>" in dom.text
    assert "'nul\\x00here'" in dom.text
    assert "'lone \\ud800 surrogate'" in dom.text


def test_the_check_sees_a_script_that_runs(browse: Browse, page: str) -> None:
    """A page that fails to escape is noticed: the same script unescaped leaves its mark."""
    dom = browse(without_policy(page).replace("</main>", f"{HOSTILE[0]}</main>"))
    assert dom.root["data-ran"] == "yes"


def test_policy_stops_even_a_script_that_got_in(browse: Browse, page: str) -> None:
    """Should a script ever get into the page, its policy keeps the browser from running it."""
    dom = browse(page.replace("</main>", f"{HOSTILE[0]}</main>"))
    assert "script" in dom.tags
    assert "data-ran" not in dom.root


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_page_never_scrolls_sideways(browse: Browse, page: str, width: int) -> None:
    """On a phone as on a desk the page is as wide as the screen, whatever its ids hold."""
    frame = html.escape(without_policy(page), quote=True)
    dom = browse(
        f'<!doctype html><iframe width="{width}" height="800" srcdoc="{frame}"></iframe><script>'
        "addEventListener('load', () => { document.documentElement.dataset.width = "
        "document.querySelector('iframe').contentDocument.documentElement.scrollWidth })</script>"
    )
    assert int(dom.root["data-width"] or 0) in range(width - 20, width + 1)


# --- on a server --------------------------------------------------------------------------------

ODD_THREAD = "it's {odd}: \\ \"\n\t\u202e\U0001f600"


def put(database: Database, thread_id: str, parent: str | None, **channels: str) -> str:
    """Write a checkpoint with `PostgresSaver`, each channel at the version that its value names."""
    checkpoint = empty_checkpoint()
    versions: dict[str, Any] = {name: f"{value}.0" for name, value in channels.items()}
    checkpoint["channel_values"] = {name: [value] for name, value in channels.items()}
    checkpoint["channel_versions"] = versions
    config: Any = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
    if parent:
        config["configurable"]["checkpoint_id"] = parent
    with database.connect(row_factory=dict_row) as connection:
        saver = PostgresSaver(connection)  # type: ignore[arg-type]
        written = saver.put(config, checkpoint, {"source": "loop", "step": 1}, versions)
        saver.put_writes(written, [("pending", "a write")], task_id="task")
    return str(written["configurable"]["checkpoint_id"])


@pytest.fixture
def target(database: Database) -> Database:
    """A database with the saver's tables, and the ledger that a run makes."""
    with database.connect(row_factory=dict_row) as connection:
        PostgresSaver(connection).setup()  # type: ignore[arg-type]
    lease.acquire(lambda: psycopg.connect(database.dsn), SETTINGS)
    return database


def record(
    target: Database, thread_id: str, checkpoint_id: str, settings: Settings = SETTINGS
) -> None:
    """Enter a checkpoint into the ledger as made live by a run."""
    target.execute(
        "INSERT INTO checkpoint_migration.promoted VALUES (%s, %s, '', %s, %s, %s, false, NULL)",
        settings.live_schema,
        thread_id,
        checkpoint_id,
        settings.key,
        settings.source,
    )


def statements_of(*places: tuple[str, str]) -> dict[str, str]:
    """The SQL of a report of a run that found these checkpoints different, by its first word."""
    report = build_report(
        Situation(settings=SETTINGS, promoted=True, staging_left=True),
        dag_id="migrate_checkpoints",
        run_id="a run",
        started=None,
        finished=None,
        succeeded=False,
        verdict=Verdict.DIFFERENT,
        differences=[
            Difference(thread_id, "", checkpoint_id, "checkpoints", "metadata", "not equal")
            for thread_id, checkpoint_id in places
        ],
    )
    return {re.split("[ .:]", s.what)[0]: s.statement for s in report.sql}


def run(target: Database, statement: str) -> list[list[tuple[Any, ...]]]:
    """Run what a person would paste, and return the rows of each statement that has some."""
    results = []
    with target.connect() as connection:
        cursor = connection.execute(statement.encode())
        while True:
            if cursor.description:
                results.append(cursor.fetchall())
            if not cursor.nextset():
                return results


def test_count_finds_the_runs_rows_for_each_thread(target: Database) -> None:
    """The counting statement says what was recorded of each thread and what of it is live now."""
    first = put(target, "a", None, x="1")
    record(target, "a", first)
    record(target, "a", "00000000-gone")
    record(target, ODD_THREAD, put(target, ODD_THREAD, None, x="1"))
    put(target, "of the application", None, x="1")
    [rows] = run(target, statements_of()["Count"])
    assert sorted(rows) == sorted([("a", 2, 1, 1), (ODD_THREAD, 1, 1, 1)])


def test_look_finds_a_checkpoint_whatever_its_thread_is_called(target: Database) -> None:
    """The looking statements find the very row, its blobs and its writes, by ids of any text."""
    checkpoint = put(target, ODD_THREAD, None, x="1", y="2")
    put(target, "another", None, x="1")
    envelope, blobs, writes = run(target, statements_of((ODD_THREAD, checkpoint))["Look"])
    assert [row[0] for row in envelope] == [checkpoint]
    assert [row[:3] for row in blobs] == [("x", "1.0", "msgpack"), ("y", "2.0", "msgpack")]
    assert [(row[0], row[3]) for row in writes] == [("task", "pending")]


def test_before_counts_what_the_application_added(target: Database) -> None:
    """The statement to run before taking rows out counts the application's later checkpoints."""
    ours = put(target, "a", None, x="1")
    record(target, "a", ours)
    put(target, "a", ours, x="2")
    put(target, "never ours", None, x="1")
    [rows] = run(target, statements_of()["Before"])
    assert rows == [("a", "", 1)]


def test_take_out_removes_the_run_and_spares_the_application(target: Database) -> None:
    """Taking out leaves the application's rows whole, blobs that it shares among them."""
    other = replace(SETTINGS, run_id="an earlier run")
    ours = put(target, "a", None, shared="1", only_ours="1")
    record(target, "a", ours)
    record(target, ODD_THREAD, put(target, ODD_THREAD, None, x="1"))
    earlier = put(target, "a", None, from_earlier="1")
    record(target, "a", earlier, other)
    later = put(target, "a", ours, shared="1", own="1")
    elsewhere = put(target, "never ours", None, x="1")

    run(target, statements_of()["Take"])

    assert {row[0] for row in target.rows("SELECT checkpoint_id FROM checkpoints")} == {
        earlier,
        later,
        elsewhere,
    }
    assert {row[0] for row in target.rows("SELECT checkpoint_id FROM checkpoint_writes")} == {
        earlier,
        later,
        elsewhere,
    }
    blobs = target.rows("SELECT thread_id, channel FROM checkpoint_blobs")
    assert set(blobs) == {
        ("a", "shared"),
        ("a", "own"),
        ("a", "from_earlier"),
        ("never ours", "x"),
    }
    assert target.rows("SELECT run_key, checkpoint_id FROM checkpoint_migration.promoted") == [
        (other.key, earlier)
    ]
    with target.connect(row_factory=dict_row) as connection:
        saver = PostgresSaver(connection)  # type: ignore[arg-type]
        found = saver.get_tuple(
            {"configurable": {"thread_id": "a", "checkpoint_ns": "", "checkpoint_id": later}}
        )
    assert found is not None
    assert found.checkpoint["channel_values"] == {"shared": ["1"], "own": ["1"]}


def test_drop_removes_staging_and_nothing_else(target: Database) -> None:
    """Dropping what was staged leaves the live tables and the ledger, and may be run twice."""
    target.execute(f"CREATE SCHEMA {SETTINGS.staging_schema}")
    put(target, "a", None, x="1")
    statement = statements_of()["Drop"]
    run(target, statement)
    run(target, statement)
    schemas = {row[0] for row in target.rows("SELECT nspname FROM pg_namespace")}
    assert SETTINGS.staging_schema not in schemas
    assert "checkpoint_migration" in schemas
    assert target.rows("SELECT count(*) FROM checkpoints") == [(1,)]


def test_total_counts_the_runs_own_rows(target: Database) -> None:
    """The totals are those of this run: what the application adds to the same threads is not counted."""
    ours = put(target, "a", None, x="1", y="2")
    record(target, "a", ours)
    put(target, "a", ours, x="3")
    put(target, "of the application", None, x="1")
    target.execute(
        "INSERT INTO checkpoint_migration.batches (run_key, shard, batch, sha256, checkpoints, writes,"
        " blobs) VALUES (%s, 0, 0, '', 1, 1, 2)",
        SETTINGS.key,
    )
    [rows] = run(target, statements_of()["Total"])
    assert rows == [("staged, by its receipts", 1, 1, 2), ("live", 1, 1, 2)]
