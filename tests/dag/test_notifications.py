"""Who is told how a run ended: a mail server and a webhook of our own, by Airflow's real notifiers."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import Message
from email.policy import default as modern
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from aiosmtpd.controller import Controller
from airflow.dag_processing.dagbag import DagBag

from include.orchestration import tell_of_timeout
from include.orchestration.deployment import read_deployment
from tests.support import sqlite_sources as sources
from tests.support.airflow import DAG, REHEARSAL, ROOT, UNDO, dags_test
from tests.support.postgres import Database

PASSWORD = "s3cret-Pa55word"
MAIL = "airflow.providers.smtp.notifications.smtp.SmtpNotifier"
WEBHOOK = "airflow.providers.http.notifications.http.HttpNotifier"
POSTED = {name: "{{ migration." + name + " }}" for name in ("sentence", "verdict", "link", "text")}


class Letterbox:
    """What a mail server of our own has taken."""

    def __init__(self) -> None:
        self.letters: list[Message] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.letters.append(message_from_bytes(envelope.content, policy=modern))
        return "250 taken"


@pytest.fixture
def mail() -> Iterator[tuple[Letterbox, str]]:
    """A letterbox and the Airflow connection to it."""
    box = Letterbox()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = Controller(box, hostname="127.0.0.1", port=port)
    server.start()
    extra = "disable_ssl=true&disable_tls=true&timeout=10&retry_limit=1"
    try:
        yield box, f"smtp://127.0.0.1:{port}/?{extra}"
    finally:
        server.stop()


@contextmanager
def webhook(answer: int = 200) -> Iterator[tuple[list[dict[str, Any]], str]]:
    """What was posted to a web server of our own, and the Airflow connection to it."""
    posted: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posted.append({"path": self.path, **json.loads(body)})
            self.send_response(answer)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield posted, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def notifiers(*entries: tuple[str, str, dict[str, Any]]) -> str:
    return json.dumps([{"notifier": path, "on": on, "kwargs": kw} for path, on, kw in entries])


def by_mail(on: str) -> tuple[str, str, dict[str, Any]]:
    templates = {"subject": "{{ migration.subject }}", "html_content": "{{ migration.html }}"}
    return MAIL, on, {"to": "ops@example.org", "from_email": "airflow@example.org", **templates}


def by_webhook(on: str, path: str = "hook") -> tuple[str, str, dict[str, Any]]:
    return WEBHOOK, on, {"endpoint": path, "json": POSTED}


@pytest.mark.parametrize(
    "text",
    [
        "ops@example.org",
        '{"notifier": "a.B"}',
        '["a.B"]',
        '[{"kwargs": {}}]',
        '[{"notifier": "nodots"}]',
        '[{"notifier": "a.B", "kwargs": ["s3cret"]}]',
        '[{"notifier": "a.B", "on": "s3cret"}]',
        '[{"notifier": "a.B", "s3cret": 1}]',
    ],
)
def test_notifiers_that_make_no_sense_are_named_and_not_shown(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says how it is written, and nothing of what was: a password may be in it."""
    monkeypatch.setenv("CHECKPOINT_MIGRATION_NOTIFIERS", text)
    with pytest.raises(
        ValueError, match="CHECKPOINT_MIGRATION_NOTIFIERS must be a JSON list"
    ) as raised:
        read_deployment()
    assert "s3cret" not in str(raised.value)
    assert raised.value.__suppress_context__


def test_what_report_cannot_tell_a_callback_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose time was up, and a `report` that failed or was killed; other failures it has told."""
    bag = DagBag(str(ROOT / "dags"))
    with webhook() as (posted, http):
        monkeypatch.setenv("AIRFLOW_CONN_HTTP_DEFAULT", http)
        monkeypatch.setenv("CHECKPOINT_MIGRATION_NOTIFIERS", notifiers(by_webhook("failure")))
        for dag in (bag.dags[DAG], bag.dags[REHEARSAL]):
            context = {"dag": dag, "run_id": "r", "reason": "timed_out"}
            assert dag.on_failure_callback is None  # `dags test` would end in an error of its own
            tell_of_timeout({**context, "reason": "task_failure"})
            assert posted == []
            tell_of_timeout(context)
            assert "time was up" in posted.pop()["sentence"]
            [callback] = dag.get_task("report").on_failure_callback
            callback({**context, "exception": RuntimeError("a value")})
            told = posted.pop()
            assert "without a report" in told["sentence"]
            assert told["verdict"] == "unproven"
            assert "a value" not in json.dumps(told)
        dag = bag.dags[UNDO]
        context = {"dag": dag, "run_id": "u", "reason": "timed_out"}
        assert dag.on_failure_callback is None
        tell_of_timeout({**context, "reason": "task_failure"})
        assert posted == []
        tell_of_timeout(context)
        told = posted.pop()
        assert "as before or as after" in told["sentence"]
        assert "undo: failed" in told["text"]
        [callback] = dag.get_task("undo").on_failure_callback
        callback({**context, "exception": RuntimeError("a value")})
        told = posted.pop()
        assert (told["verdict"], "a value" in json.dumps(told)) == ("failed", False)
        assert "without a report" in told["sentence"]


@pytest.mark.slow
def test_a_verdict_is_told_by_mail_and_webhook_and_a_failure_too(
    small_sample: Path,
    database: Database,
    airflow_env: dict[str, str],
    mail: tuple[Letterbox, str],
) -> None:
    """Sentence, verdict and the link to the run reach both; who wants failures alone hears of these.

    A thread id that looks like a template or like HTML is shown as it is.
    """
    box, smtp = mail
    with webhook() as (posted, http):
        env = {
            "AIRFLOW_CONN_LANGGRAPH_POSTGRES": database.dsn,
            "AIRFLOW_CONN_SMTP_DEFAULT": smtp,
            "AIRFLOW_CONN_HTTP_DEFAULT": http,
            "AIRFLOW__API__BASE_URL": "https://airflow.example.org/here",
            "CHECKPOINT_MIGRATION_NOTIFIERS": notifiers(
                by_mail("verdict"), by_webhook("verdict"), by_webhook("failure", "failures")
            ),
        }
        good = dags_test(airflow_env, {"source": str(small_sample)}, **env)
        assert good.code == 0, good.output[-3000:]
        [letter], [post] = box.letters, posted
        assert (letter["to"], letter["subject"]) == (
            "ops@example.org",
            f"{DAG}: succeeded, identical",
        )
        run = f"https://airflow.example.org/here/dags/{DAG}/runs/{quote(good.report['run_id'])}"
        mailed = letter.get_body().get_content()  # type: ignore[attr-defined]
        for said in (good.report["sentence"], "verdict: identical", *good.report["next_steps"]):
            assert said in post["text"]
        assert "verdict: identical" in mailed
        assert f'href="{run}"' in mailed
        assert post["path"] == "/hook"
        assert (post["sentence"], post["verdict"]) == (good.report["sentence"], "identical")
        assert post["link"] == run

        failed = dags_test(airflow_env, {"source": "/nowhere/<b>{{ 7*7 }}.sqlite"}, **env)
        assert failed.code == 1
        assert [p["path"] for p in posted[1:]] == ["/hook", "/failures"]
        assert posted[1]["verdict"] == "unproven"
        assert posted[1]["sentence"] == failed.report["sentence"]
        assert "<b>" not in box.letters[1].get_body().get_content()  # type: ignore[attr-defined]
        assert box.letters[1]["subject"] == f"{DAG}: failed, unproven"
    told = json.dumps(posted) + "".join(map(str, box.letters))
    if password := urlsplit(database.dsn).password:
        assert password not in told


@pytest.mark.slow
def test_a_notifier_that_fails_changes_nothing(
    tmp_path: Path, database: Database, airflow_env: dict[str, str]
) -> None:
    """A server that refuses, one that is not there and a class that does not exist: the run is green.

    The log says which notifier told nobody, and neither address nor password; the others are told.
    """
    source = sources.saved(tmp_path / "application.sqlite", "a")
    with webhook() as (posted, http), webhook(500) as (refused, broken):
        ended = dags_test(
            airflow_env,
            {"source": str(source)},
            AIRFLOW_CONN_LANGGRAPH_POSTGRES=database.dsn,
            AIRFLOW_CONN_HTTP_DEFAULT=http,
            AIRFLOW_CONN_BROKEN=broken,
            AIRFLOW_CONN_GONE=f"http://user:{PASSWORD}@127.0.0.1:1/token-{PASSWORD}",
            CHECKPOINT_MIGRATION_NOTIFIERS=notifiers(
                ("nowhere.at_all.Notifier", "verdict", {}),
                (WEBHOOK, "verdict", {"http_conn_id": "gone", "json": POSTED}),
                (WEBHOOK, "verdict", {"http_conn_id": "broken", "json": POSTED}),
                (WEBHOOK, "verdict", {"json": "{{ migration.no_such_thing.at_all }}"}),
                by_webhook("verdict"),
            ),
        )
    assert ended.code == 0, ended.output[-3000:]
    assert ended.verdicts == ["identical"]
    assert ended.tries()["report"] == 1
    assert len(posted) == len(refused) == 1
    assert ended.output.count(f"{WEBHOOK} told nobody: ") == 3
    assert "nowhere.at_all.Notifier will tell nobody: ModuleNotFoundError" in ended.output
    assert "nowhere.at_all.Notifier told nobody: ModuleNotFoundError" in ended.output
    assert ended.places_with(PASSWORD) == []
