"""Warnings name what migrates and will bite later; each is shown to be true, and none comes for nothing."""

from __future__ import annotations

import operator
import shutil
import sqlite3
import types
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import psycopg
import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send
from typing_extensions import TypedDict

from tests.support.engine import Migration
from tests.support.graphs import config_of
from tests.support.postgres import Database, TestServer
from tests.support.sqlite_sources import saved
from tests.support.values import Address, Order

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
KEY = b"0123456789abcdef"
UNWRITABLE = {"nan": float("nan"), "infinite": float("-inf"), "nul": "a\0b"}
WRITABLE = {
    "deep nan": [float("nan")],
    "deep nul": {"k": "a\0b"},
    "text": "é 🐋 \\u0000",
    "large": 1e300,
    "object": Order(1, [Address(street="x")]),
}


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    extra: Any


def build(saver: Any) -> Any:
    builder = StateGraph(State)
    builder.add_node("a", lambda _: {"log": ["a"]})
    builder.add_edge(START, "a")
    builder.add_edge("a", END)
    return builder.compile(checkpointer=saver)


@dataclass(frozen=True)
class Moved:
    """A database full of what bites later, migrated in many shards."""

    dsn: str
    warnings: list[dict[str, Any]]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [warning for warning in self.warnings if warning["kind"] == kind]

    def only(self, kind: str) -> dict[str, Any]:
        (warning,) = self.of(kind)
        return warning


@pytest.fixture(scope="module")
def moved(postgres_server: TestServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moved]:
    """Threads of every kind, written by the real saver."""
    folder = tmp_path_factory.mktemp("warnings")
    source = folder / "source.sqlite"
    with SqliteSaver.from_conn_string(str(source)) as saver:
        for thread, value in (UNWRITABLE | WRITABLE).items():
            build(saver).invoke({"extra": value}, config_of(thread))
        for number in range(12):
            build(saver).invoke({"log": ["in"]}, config_of(str(number)))
        saver.serde = EncryptedSerializer.from_pycryptodome_aes(key=KEY)
        build(saver).invoke({"log": ["in"]}, config_of("sealed"))
    with closing(sqlite3.connect(source, isolation_level=None)) as conn:
        conn.execute("CREATE TABLE notes (x)")
        conn.execute("ALTER TABLE writes ADD COLUMN seen_by TEXT")
    with postgres_server.database() as target:
        migration = Migration(
            target.dsn, source, folder / "e", aes_key=KEY, max_export_tasks=5, max_load_tasks=1
        )
        report = migration.all()
        assert report["verdict"] == "identical"
        yield Moved(target.dsn, report["warnings"])


def test_each_kind_is_told_once_for_all_shards(moved: Moved) -> None:
    """Counts of shards add up; a kind with one message is one line."""
    told = [(w["kind"], w["message"]) for w in moved.warnings]
    assert len(told) == len(set(told))
    assert {kind for kind, _ in told} == {
        "unwritable",
        "integer_ids",
        "encrypted",
        "strict_msgpack",
        "other_tables",
        "other_column",
    }


def test_unwritable_threads_are_those_that_put_refuses(moved: Moved) -> None:
    """`PostgresSaver` reads them, and refuses the graph's next step; it takes all the others."""
    warned = set(moved.only("unwritable")["threads"])
    assert warned == set(UNWRITABLE)
    refused = set()
    with PostgresSaver.from_conn_string(moved.dsn) as saver:
        for thread in UNWRITABLE | WRITABLE:
            graph = build(saver)
            assert "extra" in graph.get_state(config_of(thread)).values
            try:
                graph.invoke({"log": ["on"]}, config_of(thread))
            except psycopg.DataError:
                refused.add(thread)
    assert refused == warned


def test_ids_that_look_like_integers_fail_as_integers(moved: Moved) -> None:
    """Twelve are counted and ten are named; PostgreSQL refuses the int that SQLite takes."""
    warning = moved.only("integer_ids")
    assert warning["count"] == 12
    assert len(warning["threads"]) == 10
    assert set(warning["threads"]) <= set(map(str, range(12)))
    with PostgresSaver.from_conn_string(moved.dsn) as saver:
        assert saver.get_tuple({"configurable": {"thread_id": "7"}}) is not None
        with pytest.raises(psycopg.Error):
            saver.get_tuple({"configurable": {"thread_id": 7}})


def test_the_next_put_of_an_encrypted_thread_writes_in_clear(moved: Moved) -> None:
    """As the warning says: PostgresSaver leaves plain texts and numbers inline."""
    assert moved.only("encrypted")["threads"] == ["sealed"]
    with PostgresSaver.from_conn_string(moved.dsn) as saver:
        saver.serde = EncryptedSerializer.from_pycryptodome_aes(key=KEY)
        build(saver).invoke({"extra": "for all to read"}, config_of("sealed"))
    with closing(psycopg.connect(moved.dsn)) as conn:
        (clear,) = conn.execute(
            "SELECT count(*) FROM checkpoints WHERE thread_id = 'sealed'"
            " AND checkpoint::text LIKE '%for all to read%'"
        ).fetchone() or (0,)
    assert clear > 0


def test_classes_that_a_strict_application_must_allow_are_named(moved: Moved) -> None:
    """Each class once, by its name, also those inside others; LangGraph's own are not."""
    named = {warning["message"].split("'")[1] for warning in moved.of("strict_msgpack")}
    assert named == {"tests.support.values.Order", "tests.support.values.Address"}


def test_what_is_not_langgraphs_is_named(moved: Moved) -> None:
    """Tables and columns of the application's own stay behind, and the report says so."""
    assert "'notes' (0 rows)" in moved.only("other_tables")["message"]
    assert "seen_by" in moved.only("other_column")["message"]


def test_an_ordinary_database_gives_no_warning(database: Database, tmp_path: Path) -> None:
    """Nothing to say is nothing said."""
    source = saved(tmp_path / "source.sqlite", "user-1", "user-2")
    report = Migration(database.dsn, source, tmp_path / "e").all()
    assert report["verdict"] == "identical"
    assert report["warnings"] == []


# --- an edge that nobody can know of ------------------------------------------------------------


class Fan(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


def fan(saver: Any, *, beyond: bool) -> Any:
    """The graph of the fixtures' `sends_many*`; `beyond`: f1 also leads to a node that never ran."""
    builder = StateGraph(Fan)
    builder.add_node("w", lambda task: {"log": [f"w{task['item']}"]})
    builder.add_edge("w", END)
    for name in ("f1", "f2"):
        builder.add_node(name, lambda _, name=name: {"log": [name]})
        builder.add_edge(START, name)
        builder.add_conditional_edges(name, lambda _: [Send("w", {"item": 0})], ["w"])
    if beyond:
        builder.add_node("beyond", lambda _: {"log": ["beyond"]})
        builder.add_edge("f1", "beyond")
    return builder.compile(checkpointer=saver)


@pytest.mark.parametrize("beyond", [False, True], ids=["as it was", "with a node that never ran"])
def test_an_edge_to_a_node_that_never_ran_is_warned_of(
    database: Database, tmp_path: Path, beyond: bool
) -> None:
    """Threads with a node that leads nowhere known are named; all is well unless it leads somewhere."""
    source, stayed = tmp_path / "source.sqlite", tmp_path / "stayed.sqlite"
    for path in (source, stayed):
        shutil.copyfile(FIXTURES / "checkpoint-sqlite-2.0.6.sqlite", path)
    params = {"threads": ["sends_many0", "sends", "simple"]}
    report = Migration(database.dsn, source, tmp_path / "e", params, max_export_tasks=1).all()
    assert report["verdict"] == "identical"
    (warning,) = [w for w in report["warnings"] if w["kind"] == "unproven_edges"]
    assert warning["threads"] == ["sends_many0"]
    with (
        SqliteSaver.from_conn_string(str(stayed)) as sqlite,
        PostgresSaver.from_conn_string(database.dsn) as postgres,
    ):
        logs = []
        for saver in (sqlite, postgres):
            fan(saver, beyond=beyond).invoke(None, config_of("sends_many0"))
            logs.append(fan(saver, beyond=beyond).get_state(config_of("sends_many0")).values["log"])
    assert ("beyond" in logs[0]) is beyond
    assert (logs[0] == logs[1]) is not beyond


def test_long_class_names_are_told_whole(database: Database, tmp_path: Path) -> None:
    """Two classes that share their first sixty characters are two warnings, ready to be allowed."""
    module = types.ModuleType("application.subgraphs.reception_of_visitors.schemas_for_answers")
    names = ("AnswerOfTheVisitor", "AnswerOfTheHost")
    for name in names:
        made = make_dataclass(name, [("text", str)])
        made.__module__ = module.__name__
        setattr(module, name, made)
    with SqliteSaver.from_conn_string(str(tmp_path / "s.db")) as saver:
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"] = {name: getattr(module, name)("made up") for name in names}
        versions: Any = dict.fromkeys(names, f"{1:032}.1")
        checkpoint["channel_versions"] = versions
        with patch.dict("sys.modules", {module.__name__: module}):
            config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
            saver.put(config, checkpoint, {"step": 1}, versions)
    report = Migration(database.dsn, tmp_path / "s.db", tmp_path / "exports").all()
    told = [w["message"] for w in report["warnings"] if w["kind"] == "strict_msgpack"]
    assert len(told) == 2
    assert all(any(f"'{module.__name__}.{name}'" in message for message in told) for name in names)
