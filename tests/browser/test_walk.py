"""A person at Airflow's UI, in a real browser: from the login to the verdict, a blocker, a second try."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from scripts.browser import Browser, chromium
from tests.support import sqlite_sources as sources
from tests.support.airflow import DAG, REHEARSAL, ROOT, Deployed
from tests.support.postgres import Database

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# What the walk saw; kept for people, and for whoever runs the tests elsewhere to collect.
PICTURES = Path(os.environ.get("PICTURES") or ROOT / ".pictures")
THREADS = ("ada", "grace", "linus")
TAB, LIST = "Migration report", "/plugin/checkpoint-migrations"
RUNS_FOR = 240.0  # seconds that a run may take on a busy machine
BLOCKED = """UPDATE checkpoints SET metadata = '{"note": "a\\u0000b"}' WHERE thread_id = 'grace'"""


def test_a_person_moves_an_application_in_the_browser(
    tmp_path: Path, database: Database, airflow_env: dict[str, str]
) -> None:
    """All that a person does is done in the browser, before one Airflow; a picture is kept of each step.

    A rehearsal, the migration itself, one batch of it run again, and a run that a blocker stops.
    """
    source = sources.saved(tmp_path / "application.sqlite", *THREADS)
    airflow = Deployed({**airflow_env, "AIRFLOW_CONN_LANGGRAPH_POSTGRES": database.dsn})
    with airflow.running(), chromium(airflow.url, PICTURES) as browser:
        logs_in_and_finds_both_dags(browser, airflow.password)
        rehearses_first(browser, source)
        run = triggers_watches_and_reads_the_verdict(browser, source)
        runs_one_batch_again(browser, run)
        learns_of_a_blocker(browser, blocked(tmp_path / "blocked.sqlite"))
        finds_all_runs_in_the_list(browser)
        assert browser.complaints() == []


def blocked(path: Path) -> Path:
    """A database of which one thread has metadata that JSONB refuses."""
    sources.saved(path, *THREADS)
    with closing(sqlite3.connect(path)) as conn, conn:
        conn.execute(BLOCKED)
    return path


def logs_in_and_finds_both_dags(browser: Browser, password: str) -> None:
    browser.log_in(password)
    browser.go("/dags")
    browser.see("Migrate LangGraph checkpoints")
    browser.see("Rehearse the migration")
    browser.picture("1-list")


def rehearses_first(browser: Browser, source: Path) -> None:
    """The report of a rehearsal sends nobody over, and says what the real run will take."""
    triggers(browser, REHEARSAL, source)
    browser.press(TAB, "a")
    reads(browser, "Verdict\nidentical")
    with browser.inside():
        browser.see("The application stays on SQLite until the real migration.")
        browser.see("twice the data")
        browser.see("The real run would meet no conflict with live rows now.")
        browser.scroll_to("The real run")
        browser.picture("2-rehearsal")


def triggers_watches_and_reads_the_verdict(browser: Browser, source: Path) -> str:
    """One field filled, the run goes on before one's eyes, and its report says to switch over."""
    browser.go(f"/dags/{DAG}")
    browser.find("[data-testid=trigger-dag-button]").click()
    browser.find("input[name=element_source]")
    assert not browser.find("[data-testid=trigger-dag-submit]").is_enabled()
    browser.picture("3-form")
    run = triggers(browser, DAG, source)
    browser.press(TAB, "a")
    reads(browser, "Not yet")
    browser.picture("4-running")
    reads(browser, "Verdict\nidentical")
    with browser.inside():
        browser.see("Switch the application over to PostgreSQL?\nYes")
        browser.see("Beside the last rehearsal")
    browser.picture("5-verdict")
    browser.go(run)
    browser.find("[data-testid=expand-all-button]").click()
    browser.see("load_batch")
    browser.picture("6-grid")
    return run


def runs_one_batch_again(browser: Browser, run: str) -> None:
    """One batch is cleared with what follows: it finds its receipt, and live is only looked at."""
    browser.go(f"{run}/tasks/import.load_batch/mapped/1")
    browser.see("thread 'grace'")
    browser.press("Press shift+c to clear")
    browser.see("Affected Tasks: ")
    browser.picture("7-clear")
    browser.press("Confirm")
    browser.see("Try Number\n2", RUNS_FOR)
    browser.go(f"{run}/plugin/migration-report")
    reads(browser, "looked at again on")
    reads(browser, "Verdict\nidentical")
    browser.picture("8-again")


def learns_of_a_blocker(browser: Browser, source: Path) -> None:
    """The run fails, and its report says who must stay, why, and what to do: live is untouched."""
    run = triggers(browser, DAG, source)
    browser.press(TAB, "a")
    reads(browser, "Verdict\nunproven")
    with browser.inside():
        browser.see("Switch the application over to PostgreSQL?\nNo")
        for told in ("Blockers", "grace", "metadata", "NUL", "on_blocker", "exactly as they were"):
            browser.see(told)
    browser.picture("9-blocked")
    browser.go(run)
    browser.see("Failed")


def finds_all_runs_in_the_list(browser: Browser) -> None:
    browser.go(LIST)
    with browser.inside():
        browser.see("unproven")
        assert browser.text().count("identical") == 2
    browser.picture("10-past-migrations")


def triggers(browser: Browser, dag: str, source: Path) -> str:
    """Trigger a DAG through its form; the path of the run that Airflow then shows."""
    if browser.path != f"/dags/{dag}":
        browser.go(f"/dags/{dag}")
        browser.find("[data-testid=trigger-dag-button]").click()
    browser.fill("input[name=element_source]", str(source))
    browser.press_when_enabled("[data-testid=trigger-dag-submit]")
    browser.until(lambda: "/runs/" in browser.path, "Airflow does not show the new run")
    return browser.path


def reads(browser: Browser, text: str) -> None:
    """Read a text in the report's tab, as soon as it is there."""
    with browser.inside():
        browser.see(text, RUNS_FOR)
