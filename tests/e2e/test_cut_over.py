"""docs/cut-over.md, step by step: an application in use moves to PostgreSQL, and its ways back."""

from __future__ import annotations

import multiprocessing
import operator
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any, Self

import pytest
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt
from typing_extensions import TypedDict

from include.checkpoint_migration import owner_of_process
from include.checkpoint_migration.errors import SourceDrifted, TargetConflict
from tests.support.engine import Migration
from tests.support.faults import NO_ROWS, Child, live_rows
from tests.support.graphs import alike, config_of, shown
from tests.support.postgres import Database
from tests.support.sqlite_sources import ROOT, listing

DOCUMENT = ROOT / "docs" / "cut-over.md"
SERVED = [f"customer-{n}" for n in range(8)]
WAITING = ["waiting-0", "waiting-1"]  # for a person, all the time
CUSTOMERS = [*SERVED, *WAITING]
PAUSE = 0.1  # seconds between two turns
STEP = re.compile(r"^(?: *# )?(\d+)\. (?:\*\*)?(.+?)\.(?:\*\*|$)", re.MULTILINE)


# --- the application ----------------------------------------------------------------------------


class Order(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    price: float


def build(saver: Any, questions: int = 1) -> Any:
    """Draft an offer, wait for a person's answers, send it."""

    def ask(state: Order) -> Order:
        answers = [interrupt({"question": f"question {n}?"}) for n in range(questions)]
        return {"log": answers, "price": len(state["log"]) / 7}

    builder = StateGraph(Order)
    builder.add_node("draft", lambda state: {"log": [f"draft {len(state['log'])}"]})
    builder.add_node("ask", ask)
    builder.add_node("send", lambda state: {"log": ["sent"]})
    for before, after in ((START, "draft"), ("draft", "ask"), ("ask", "send"), ("send", END)):
        builder.add_edge(before, after)
    return builder.compile(checkpointer=saver)


def asked(graph: Any, customer: str) -> str | None:
    """What the customer's thread waits for."""
    pending = graph.get_state(config_of(customer)).interrupts
    return pending[0].value["question"] if pending else None


def go_on(graph: Any, customer: str, word: str) -> list[str]:
    """A customer's next turn: an order, or an answer to what the thread waits for."""
    waits = asked(graph, customer) is not None
    turn: Any = Command(resume=word) if waits else {"log": [f"order {word}"]}
    return list(graph.invoke(turn, config_of(customer))["log"])


@contextmanager
def on_sqlite(path: Path, questions: int = 1) -> Iterator[Any]:
    """The application's graph on its file, which need not survive a power cut."""
    with closing(sqlite3.connect(path, check_same_thread=False)) as conn:
        conn.execute("PRAGMA synchronous=OFF")
        yield build(SqliteSaver(conn), questions)


@contextmanager
def on_postgres(database: Database, questions: int = 1) -> Iterator[Any]:
    with PostgresSaver.from_conn_string(database.dsn) as saver:
        saver.setup()  # as applications do when they start
        yield build(saver, questions)


def serve(path: Path, ready: Any, turns: Any, stop: Any) -> list[str]:
    """Serve one customer after the other; the errors that they saw."""
    errors = []
    with on_sqlite(path) as graph:
        for customer in WAITING:
            go_on(graph, customer, "placed long ago")
        while not stop.is_set():
            customer = SERVED[turns.value % len(SERVED)]
            try:
                go_on(graph, customer, f"turn {turns.value}")
            except Exception as error:  # noqa: BLE001 - whatever it is, a customer saw it
                errors.append(repr(error))
            turns.value += 1
            if turns.value == 3 * len(SERVED):
                ready.set()
            if ready.is_set():
                time.sleep(PAUSE)
    return errors


class Application:
    """The application at work on its SQLite file, in a process of its own."""

    def __init__(self, path: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        ready, self._turns, self._stop = context.Event(), context.Value("q", 0), context.Event()
        self._child = Child(serve, path, ready, self._turns, self._stop)
        assert ready.wait(60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()

    @property
    def turns(self) -> int:
        return int(self._turns.value)

    def stop(self) -> None:
        """No customer saw an error."""
        self._stop.set()
        assert self._child.wait() == 0
        assert self._child.result == []


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "application").mkdir()
    return tmp_path / "application" / "app.sqlite"


@pytest.fixture
def run(run_on: Callable[..., Migration], source: Path) -> Callable[..., Migration]:
    return lambda run_id, **params: run_on(source, params, run_id=run_id, max_export_tasks=2)


def rehearsal_of(migration: Migration) -> Migration:
    migration.dag_id, migration.rehearsal = "rehearse_checkpoints", True
    return migration


def schemas(database: Database) -> set[str]:
    found = database.rows("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'checkpoint%'")
    return {name for (name,) in found}


def threads_live(database: Database) -> set[str]:
    return {row[0] for row in live_rows(database.dsn)["checkpoints"]}


def versions_of_tables(database: Database) -> list[Any]:
    return database.rows("SELECT v FROM checkpoint_migrations ORDER BY 1")


# --- the way there ------------------------------------------------------------------------------


def test_following_the_document_moves_an_application_in_use(
    run: Callable[..., Migration], database: Database, source: Path, tmp_path: Path
) -> None:
    """Each step does what the document says, and every conversation goes on where it was."""
    with Application(source) as app:
        # 1. Rehearse.
        rehearsal = rehearsal_of(run("rehearsal", on_drift="report"))
        report = rehearsal.all()
        assert (report["verdict"], report["blockers"]) == ("identical", [])
        assert "the real one will take" in report["sentence"]
        assert live_rows(database.dsn) == NO_ROWS
        assert schemas(database) == {"checkpoint_migration"}

        # 2. Move the bulk, with the application running.
        turns = app.turns
        report = run("bulk", on_drift="report").all()
        assert report["verdict"] == "identical"
        assert report["drift"]["checkpoints"]["added"] > 0
        assert app.turns > turns
        assert threads_live(database) == set(CUSTOMERS)

        # Somebody still writes to the file: step 4 fails before anything new is live, and says so.
        before = live_rows(database.dsn)
        with pytest.raises(SourceDrifted, match="stop the application"):
            run("too early").all()
        assert live_rows(database.dsn) == before

        # 3. Stop the application.
        app.stop()
    file = listing(source.parent)

    # 4. Catch up.
    catching_up = run("catching up")
    report = catching_up.all()

    # 5. Read the verdict.
    assert (report["verdict"], report["succeeded"]) == ("identical", True)
    assert not any(n for kinds in report["drift"].values() for n in kinds.values())
    assert (catching_up.folder / "report.json").is_file()

    # 6. Switch.
    shutil.copyfile(source, tmp_path / "stayed.sqlite")
    tables = versions_of_tables(database)
    with on_sqlite(tmp_path / "stayed.sqlite") as stayed, on_postgres(database) as moved:
        for customer in CUSTOMERS:
            assert shown(moved, config_of(customer)) == shown(stayed, config_of(customer))
        assert versions_of_tables(database) == tables != []
        assert asked(moved, WAITING[0]) == "question 0?"
        for turn in ("first", "second", "third"):
            for customer in CUSTOMERS:
                assert go_on(moved, customer, turn) == go_on(stayed, customer, turn)
        for customer in (SERVED[0], WAITING[0]):
            expected = alike(shown(stayed, config_of(customer)))
            assert alike(shown(moved, config_of(customer))) == expected

    # 7. Keep the SQLite file.
    assert listing(source.parent) == file


def test_the_document_has_the_steps_that_are_tested() -> None:
    """The steps of docs/cut-over.md are those above, by number and name."""
    told = STEP.findall(DOCUMENT.read_text())
    assert told == STEP.findall(Path(__file__).read_text())
    assert [int(number) for number, _ in told] == [1, 2, 3, 4, 5, 6, 7]


def test_a_rehearsal_leaves_no_row_of_a_checkpoint_behind(
    run: Callable[..., Migration], database: Database, source: Path
) -> None:
    """What a rehearsal made live in its scratch schema goes with the schema, in the ledger too."""
    with on_sqlite(source) as graph:
        go_on(graph, CUSTOMERS[0], "order")
    assert rehearsal_of(run("rehearsal")).all()["verdict"] == "identical"
    assert schemas(database) == {"checkpoint_migration"}
    assert database.rows("SELECT count(*) FROM checkpoint_migration.promoted") == [(0,)]


def stage_and_end(migration: Migration) -> None:
    """Run up to staging in a process that carries the whole run, and that nobody hears of again."""
    migration.owner = owner_of_process()
    migration.to_staging()


def test_a_rehearsal_that_was_killed_is_cleared_away_by_the_next(
    run: Callable[..., Migration], database: Database, source: Path
) -> None:
    """No schema of a rehearsal that nobody concluded outlives the next one."""
    with on_sqlite(source) as graph:
        go_on(graph, CUSTOMERS[0], "order")
    killed = Child(stage_and_end, rehearsal_of(run("killed")))
    assert killed.wait() == 0
    assert len(schemas(database)) == 3
    assert rehearsal_of(run("next")).all()["verdict"] == "identical"
    assert schemas(database) == {"checkpoint_migration"}


@pytest.mark.parametrize("cleared", ["all", "witness"])
def test_a_rehearsal_that_is_done_stays_identical_when_its_tasks_are_cleared(
    run: Callable[..., Migration], source: Path, cleared: str
) -> None:
    """Its scratch schema is gone as it should be, and that is no difference."""
    with on_sqlite(source) as graph:
        go_on(graph, CUSTOMERS[0], "order")
    rehearsal = rehearsal_of(run("rehearsal"))
    rehearsal.all()
    try:
        getattr(rehearsal, cleared)()
    finally:
        rehearsal.conclude()
    assert (rehearsal.report["verdict"], rehearsal.report["succeeded"]) == ("identical", True)


# --- if the application changed something between the two runs ---------------------------------


@pytest.mark.parametrize("mode", ["fail", "replace"])
def test_a_question_answered_in_part_between_the_runs_is_named_or_replaced(
    run: Callable[..., Migration], database: Database, source: Path, mode: str
) -> None:
    """The pending writes that the answer replaced are the conflicts; with `replace` the source's win."""
    first, second, _ = customers = CUSTOMERS[:3]
    with on_sqlite(source, questions=3) as graph:
        for customer in customers:
            go_on(graph, customer, "order")
        go_on(graph, second, "answer 0")
        run("bulk").all()
        go_on(graph, first, "answer 0")
        go_on(graph, second, "answer 1")
        expected = {customer: shown(graph, config_of(customer)) for customer in customers}
    before = live_rows(database.dsn)
    catching_up = run("catching up", on_conflict=mode)
    if mode == "fail":
        with pytest.raises(TargetConflict):
            catching_up.all()
        named = {(row["thread_id"], row["table"]) for row in catching_up.report["conflicts"]}
        assert named == {(customer, "checkpoint_writes") for customer in (first, second)}
        assert "replace" in catching_up.report["error"]["next"]
        assert live_rows(database.dsn) == before
        return
    assert catching_up.all()["verdict"] == "identical"
    with on_postgres(database, questions=3) as moved:
        assert {c: shown(moved, config_of(c)) for c in customers} == expected
        waiting_for = [asked(moved, customer) for customer in customers]
        assert waiting_for == ["question 1?", "question 2?", "question 0?"]
        said = go_on(moved, second, "answer 2")
        assert said[-4:] == ["answer 0", "answer 1", "answer 2", "sent"]


# --- the ways back ------------------------------------------------------------------------------


def test_before_it_wrote_to_postgresql_the_way_back_is_the_old_file(
    run: Callable[..., Migration], database: Database, source: Path
) -> None:
    """The file is as it was, the application goes on there, and the next attempt is step 4."""
    with on_sqlite(source) as graph:
        for customer in CUSTOMERS:
            go_on(graph, customer, "order")
        before = shown(graph, config_of(CUSTOMERS[0]))
    file = listing(source.parent)
    assert run("first attempt").all()["verdict"] == "identical"
    with on_postgres(database) as moved:  # looked at, and not written
        assert shown(moved, config_of(CUSTOMERS[0])) == before
    assert listing(source.parent) == file

    with on_sqlite(source) as graph:
        assert shown(graph, config_of(CUSTOMERS[0])) == before
        for word in ("the answer", "another order"):
            go_on(graph, CUSTOMERS[0], word)
        after = shown(graph, config_of(CUSTOMERS[0]))

    assert run("next attempt").all()["verdict"] == "identical"
    with on_postgres(database) as moved:
        assert shown(moved, config_of(CUSTOMERS[0])) == after
        assert asked(moved, CUSTOMERS[0]) == "question 0?"
