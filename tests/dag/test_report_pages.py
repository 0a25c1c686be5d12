"""The report in Airflow's UI: who sees it, how soon, what a browser makes of it."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.sqlite import SqliteSaver

from tests.support.airflow import DAG, UNDO, dags_test
from tests.support.pages import ApiServer, Relay, browse, hosts_named
from tests.support.postgres import Database

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

LIST = "/checkpoint-migrations/"
THREADS = 10_000
HOSTILE = "<script>document.title = 'ran'</script>\"><img src=x onerror=alert(1)>"


def written(path: Path) -> Path:
    """A checkpoint in each of 10,000 threads by the real saver, one with a hostile name."""
    with closing(sqlite3.connect(path, check_same_thread=False)) as conn:
        conn.execute("PRAGMA synchronous=OFF")
        saver = SqliteSaver(conn)
        saver.setup()
        conn.execute("PRAGMA journal_mode=DELETE")
        for number in range(THREADS):
            thread = HOSTILE if number == 0 else f"customer-{number:05}"
            config = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
            saver.put(config, empty_checkpoint(), {"source": "input", "step": -1}, {})  # type: ignore[arg-type]
    return path


def test_the_report_is_protected_prompt_and_readable_in_airflows_ui(
    tmp_path: Path, database: Database, airflow_env: dict[str, str]
) -> None:
    """A run of 10,000 threads, its page asked of a real API server and opened in a real browser.

    At last it is undone: the tab of that run shows the outcome.
    """
    source = written(tmp_path / "application.sqlite")
    env = {**airflow_env, "AIRFLOW_CONN_LANGGRAPH_POSTGRES": database.dsn}
    ended = dags_test(env, {"source": str(source)}, CHECKPOINT_MIGRATION_FEWEST_SHARDS="2")
    assert ended.verdicts == ["identical"]
    [(run_id,)] = ended.metadata("SELECT run_id FROM dag_run")
    page = page_of(DAG, run_id)
    with ApiServer(env).running() as server:
        nobody_sees_it_without_the_right(server, page, run_id)
        it_is_prompt_light_and_escaped(server, page)
        it_is_the_page_that_was_written(server, page, ended.report_paths[0])
        a_browser_follows_the_run(server, page, tmp_path)
        an_undo_has_its_outcome_in_the_tab(server, env, run_id)


def page_of(dag_id: str, run_id: str) -> str:
    return f"{LIST}runs/{dag_id}/{quote(run_id, safe='')}"


def nobody_sees_it_without_the_right(server: ApiServer, page: str, run_id: str) -> None:
    """401 without a login, 403 and no line of the list without rights, 404 for what is not there."""
    unknown = f"{LIST}runs/{DAG}/no-such-run"
    foreign = f"{LIST}runs/another_dag/{quote(run_id, safe='')}"
    assert [server.get(path, None).status for path in (LIST, page, unknown)] == [401, 401, 401]
    assert [server.get(path, "outsider").status for path in (page, unknown)] == [403, 403]
    assert [server.get(path).status for path in (unknown, foreign)] == [404, 404]
    assert "No migration has been run yet" in server.get(LIST, "outsider").text
    listed = server.get(LIST).text
    assert f'href="{page.removeprefix(LIST)}"' in listed
    assert "10,000" in listed
    for path in ("docs", "redoc", "openapi.json"):
        assert server.get(LIST + path).status == 404
    for answer in (server.get(LIST), server.get(page), server.get(unknown), server.get(page, None)):
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "unsafe" not in policy
        assert "frame-ancestors 'self'" in policy
        assert answer.headers["cache-control"] == "no-store"


def it_is_prompt_light_and_escaped(server: ApiServer, page: str) -> None:
    """Within 2 seconds, under 1 MB, with no script and no host but its own."""
    server.get(page)
    began = time.monotonic()
    answer = server.get(page)
    assert time.monotonic() - began < 2
    assert len(answer.text.encode()) < 1_000_000
    assert "9,000 not listed" in answer.text
    assert "&lt;script&gt;document.title" in answer.text
    assert answer.text.count("<script>") == 1
    assert "<img" not in answer.text
    assert hosts_named(answer.text) == set()


def it_is_the_page_that_was_written(server: ApiServer, page: str, report: Path) -> None:
    """The tab and `report.html` show the same, but for what only one of them can."""

    def main(text: str) -> str:
        return re.search(r"<main.*</main>", text, re.DOTALL)[0]  # type: ignore[index]

    assert main(server.get(page).text) == main(report.with_name("report.html").read_text())


def a_browser_follows_the_run(server: ApiServer, page: str, folder: Path) -> None:
    """In a frame such as Airflow's a page that is open becomes final by itself, in Airflow's colours."""
    server.change("UPDATE dag_run SET state = 'running'")
    server.change("UPDATE task_instance SET state = 'running' WHERE task_id = 'verify_counts'")
    server.change("UPDATE task_instance SET state = NULL WHERE task_id = 'report'")

    def end() -> None:
        server.change("UPDATE task_instance SET state = 'success'")
        server.change("UPDATE dag_run SET state = 'success'")

    with Relay(server, page, end).running() as address:
        root = browse(address, folder)
    first, last = json.loads(root["data-seen"])
    assert first.startswith("Not yet · witness: at work for ")
    assert last == f"Yes · identical · {DAG}"
    assert root["data-theme"] == "dark"
    assert root["data-tools"] == "1"


def an_undo_has_its_outcome_in_the_tab(server: ApiServer, env: dict[str, str], moved: str) -> None:
    """What went and what was refused, escaped, for those alone who may see it; the list has both."""
    mistyped = dags_test(env, {"run_id": HOSTILE}, dag=UNDO)
    undone = dags_test(env, {"run_id": moved}, dag=UNDO)
    assert undone.report["outcome"] == "undone", undone.output[-3000:]
    page, refused = (page_of(UNDO, ended.report["run_id"]) for ended in (undone, mistyped))
    assert [server.get(page, who).status for who in (None, "outsider")] == [401, 403]
    shown = server.get(page)
    assert shown.headers["content-security-policy"].startswith("default-src 'none'")
    assert '<dd class="verdict">undone</dd>' in shown.text
    for rows in undone.report["rows"].values():
        assert f"{rows['removed']:,}" in shown.text
    assert moved.split("+", maxsplit=1)[0] in shown.text
    told = server.get(refused).text
    assert '<dd class="verdict">failed</dd>' in told
    assert "SettingsInvalid" in told
    assert "&lt;script&gt;document.title" in told
    assert told.count("<script>") == 1
    listed = server.get(LIST).text
    assert listed.count("undo of") == 2
    assert '<span class="verdict">undone</span>' in listed
