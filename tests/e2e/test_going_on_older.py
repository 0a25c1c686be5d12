"""Threads of older releases are loaded from PostgreSQL as from SQLite, and go on to the same end."""

from __future__ import annotations

import operator
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from pprint import pformat
from typing import Annotated, Any
from uuid import UUID

import msgpack
import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, Send, interrupt
from typing_extensions import TypedDict

from tests.support.engine import Migration, rows
from tests.support.graphs import alike, config_of, outcome, shown
from tests.support.postgres import Database, TestServer
from tests.support.readers import (
    by_value,
    differences,
    keys_of,
    order_differences,
    postgres_side,
    spelled,
    sqlite_side,
)
from tests.support.sqlite_sources import empty

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
SANITIZED = ("inf", "meta", "nan", "nul")
UNKNOWN = ("types", "strenum", "intenum", "bytearray")  # hold classes that no process can import
Build = Callable[[Any], Any]


# --- the graphs that wrote the fixtures ---------------------------------------------------------


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    n: int
    extra: Any


class Talk(TypedDict, total=False):
    messages: Annotated[list[Any], add_messages]


def says(name: str, **more: Callable[[State], Any]) -> Callable[[State], dict[str, Any]]:
    def node(state: State) -> dict[str, Any]:
        return {"log": [name], **{key: value(state) for key, value in more.items()}}

    return node


def first(state: State) -> State:
    return {"log": [f"a{state.get('n', 0)}"], "n": state.get("n", 0) + 1}


def second(state: State) -> State:
    return {"log": ["b"], "n": state.get("n", 0) * 10}


def chain(builder: Any, **nodes: Any) -> Any:
    for name, node in nodes.items():
        builder.add_node(name, node)
    for before, after in zip((START, *nodes), (*nodes, END), strict=True):
        builder.add_edge(before, after)
    return builder


def plain(saver: Any) -> Any:
    return chain(StateGraph(State), a=first, b=second).compile(checkpointer=saver)


def stopping(saver: Any) -> Any:
    return chain(StateGraph(State), a=first, b=second).compile(
        checkpointer=saver, interrupt_before=["b"]
    )


def mutating(saver: Any) -> Any:
    builder = chain(StateGraph(State), mut=says("m"), b=says("b"))
    return builder.compile(checkpointer=saver)


def talking(saver: Any) -> Any:
    def answer(state: Talk) -> Talk:
        number = len(state["messages"])
        return {"messages": [AIMessage(f"hi {number}", id=f"answer {number}")]}

    return chain(StateGraph(Talk), x=answer).compile(checkpointer=saver)


def asking(saver: Any) -> Any:
    builder = StateGraph(State)
    builder.add_node("ask", lambda state: {"log": [f"said {interrupt({'q': 'ok?'})}"]})
    builder.add_node("side", says("side"))
    for name in ("ask", "side"):
        builder.add_edge(START, name)
        builder.add_edge(name, END)
    return builder.compile(checkpointer=saver)


def nesting(saver: Any) -> Any:
    inner = chain(StateGraph(State), i1=says("i1"), i2=says("i2")).compile(interrupt_before=["i2"])
    return chain(StateGraph(State), a=first, sub=inner, b=second).compile(checkpointer=saver)


class Fan(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


def sending(**senders: list[Any]) -> Build:
    """Nodes that send to `w`, which is stopped before."""

    def build(saver: Any) -> Any:
        builder = StateGraph(Fan)
        builder.add_node("w", lambda task: {"log": [f"w{task['item']}"]})
        builder.add_edge("w", END)
        for name, items in senders.items():
            builder.add_node(name, says(name))
            builder.add_edge(START, name)
            sent = [Send("w", {"item": item}) for item in items]
            builder.add_conditional_edges(name, lambda _, sent=sent: sent, ["w"])
        return builder.compile(checkpointer=saver, interrupt_before=["w"])

    return build


MANY = sending(f1=["f1-0", "f1-1", "f1-2"], f2=["f2-0", "f2-1", "f2-2"])
GRAPHS: dict[str, Build] = {
    "interrupted": stopping,
    "inplace": mutating,
    "messages": talking,
    "dyn": asking,
    "subgraph": nesting,
    "sends_many*": MANY,
    "sends*": sending(fan=[3, 1, 2]),
    "*": plain,
}


def build_of(thread: str) -> Build:
    return next(build for glob, build in GRAPHS.items() if fnmatchcase(thread, glob))


# --- the fixtures, migrated ---------------------------------------------------------------------


@dataclass(frozen=True)
class Move:
    """A fixture in PostgreSQL, and the copy that stayed on SQLite, which tests copy again."""

    stayed: Path
    database: Database
    report: dict[str, Any]

    @property
    def dsn(self) -> str:
        return self.database.dsn

    @property
    def threads(self) -> list[str]:
        return sorted({key[0] for key in keys_of(self.stayed)} - {"encrypted"})


@pytest.fixture(scope="module", params=["1.0.4", "2.0.6"])
def move(
    request: pytest.FixtureRequest,
    postgres_server: TestServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Move]:
    """A fixture of an older release; metadata that JSONB refuses is sanitised."""
    folder = tmp_path_factory.mktemp("older")
    source, stayed = folder / "source.sqlite", folder / "stayed.sqlite"
    for path in (source, stayed):
        shutil.copyfile(FIXTURES / f"checkpoint-sqlite-{request.param}.sqlite", path)
    for number in (0, 1):
        sibling_of_sends(source, number)
        sibling_of_sends(stayed, number)
    params = {"on_blocker": "sanitize", "threads": ["!encrypted"]}
    with postgres_server.database() as target:
        migration = Migration(
            target.dsn, source, folder / "exports", params, max_export_tasks=2, max_load_tasks=1
        )
        yield Move(stayed, target, migration.all())


@pytest.fixture
def leaving(move: Move, postgres_server: TestServer) -> Iterator[Move]:
    """The same for a test that goes on: in a copy of the database, for others look at it too."""
    with postgres_server.database(template=move.database.name) as copy:
        yield replace(move, database=copy)


def sibling_of_sends(path: Path, number: int) -> None:
    """Add, beside a checkpoint that has pending sends, a fork of its parent that never had any."""
    with closing(sqlite3.connect(path)) as conn:
        row = list(
            conn.execute(
                "SELECT * FROM checkpoints WHERE thread_id = ? ORDER BY checkpoint_id DESC",
                (f"sends_many{number}",),
            ).fetchone()
        )
        whole = msgpack.unpackb(row[5], strict_map_key=False)
        assert whole["pending_sends"]
        row[2] = whole["id"] = whole["id"][:-4] + "ffff"
        whole["pending_sends"] = []
        row[5] = msgpack.packb(whole)
        conn.execute("INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        conn.commit()


@contextmanager
def both(move: Move, tmp_path: Path) -> Iterator[tuple[Any, Any]]:
    """The saver on a fresh copy of what stayed, and the one on what was migrated."""
    copy = Path(shutil.copyfile(move.stayed, tmp_path / "copy.sqlite"))
    with (
        closing(sqlite3.connect(copy, check_same_thread=False)) as conn,
        PostgresSaver.from_conn_string(move.dsn) as postgres,
    ):
        conn.execute("PRAGMA synchronous=OFF")
        yield SqliteSaver(conn), postgres


# --- reading ------------------------------------------------------------------------------------


def test_verdict_is_identical(move: Move) -> None:
    """All rows are live, the forks of our own too."""
    assert move.report["verdict"] == "identical"
    keys = [key for key in keys_of(move.stayed) if key[0] != "encrypted"]
    assert move.report["counts"]["checkpoints"]["live"] == len(keys)
    assert {key[2][-4:] for key in keys if key[0] == "sends_many0"} >= {"ffff"}


def test_every_checkpoint_reads_equal(move: Move, tmp_path: Path) -> None:
    """Values, parents, versions and writes; metadata too, but for what was sanitised."""
    copy = Path(shutil.copyfile(move.stayed, tmp_path / "copy.sqlite"))
    keys = [key for key in keys_of(copy) if key[0] != "encrypted"]
    with sqlite_side(copy) as before, postgres_side(move.dsn) as after:
        found = differences(before, after, keys)
        assert [d for d in found if ": metadata " not in d] == []
        sanitised = {d.split("'")[1] for d in found}
        assert sanitised <= set(SANITIZED)
        (warning,) = [w for w in move.report["warnings"] if w["kind"] == "sanitized"]
        assert (len(found), sanitised) == (warning["count"], set(warning["threads"]))
        # SQLite's own JSON functions, by which `list` filters, fail at metadata that is none
        assert order_differences(before, after, [k for k in keys if k[0] not in SANITIZED]) == []


def history(graph: Any, config: Any) -> list[str]:
    """Every snapshot of a thread as lines; a subgraph's state is named in it and not shown.

    Today's LangGraph gives a node's task another id than older releases did, and so does not find
    the checkpoints of a subgraph that they left half-way.
    """
    told = [s._replace(metadata=by_value(s.metadata)) for s in graph.get_state_history(config)]
    assert told
    return pformat(list(map(spelled, told)), width=160).splitlines()


def test_langgraph_shows_the_same_history(move: Move, tmp_path: Path) -> None:
    """State, next nodes, tasks and history of every thread, as its graph loads them, to the letter.

    Only the ids of tasks may be others, where a checkpoint of `v` 1 had to become one of `v` 4.
    """
    with both(move, tmp_path) as (sqlite, postgres):
        for thread in move.threads:
            if thread in (*SANITIZED, *UNKNOWN):
                continue
            build, config = build_of(thread), config_of(thread)
            ours, theirs = (history(build(saver), config) for saver in (postgres, sqlite))
            if fnmatchcase(thread, "sends_many*"):
                ours, theirs = alike(ours), alike(theirs)
            assert ours == theirs, thread


# --- going on -----------------------------------------------------------------------------------

STEPS: dict[str, tuple[Any, Any, Any]] = {
    "interrupted": (None, {"log": ["more"], "n": 5}, None),
    "simple": ({"log": ["more"], "n": 5}, {"log": ["again"]}, {"n": 1}),
    "forked": ({"log": ["more"], "n": 5}, {"log": ["again"]}, {"n": 1}),
    "error": (None, {"log": ["more"], "n": 5}, {"n": 1}),
    "inplace": ({"log": ["more"], "extra": ["x"]}, {"log": ["again"]}, {"extra": ["y"]}),
    "messages": ({"messages": [("human", "x")]}, {"messages": [("human", "y")]}, {"messages": []}),
    "subgraph": (None, None, {"log": ["more"], "n": 5}),
    "dyn": (Command(resume="yes"), {"log": ["more"]}, Command(resume="no")),
    **{
        f"sends{which}": (None, {"log": ["more"]}, None)
        for which in ("", "_done", "_many0", "_many1", "_many2", "_many3")
    },
}


@pytest.mark.parametrize("thread", STEPS)
def test_three_steps_later_both_show_the_same(leaving: Move, tmp_path: Path, thread: str) -> None:
    """What each call returns, and state, next, tasks, interrupts and history after it, are the same."""
    if thread not in leaving.threads:
        assert thread == "dyn"  # interrupt() came after 1.0.4
        return
    build, config = build_of(thread), config_of(thread)
    with both(leaving, tmp_path) as savers:
        stayed, moved = (build(saver) for saver in savers)
        for step in STEPS[thread]:
            expected = outcome(lambda: stayed.invoke(step, config))  # noqa: B023
            assert outcome(lambda: moved.invoke(step, config)) == expected  # noqa: B023
            assert alike(shown(moved, config)) == alike(shown(stayed, config))
        assert len(stayed.get_state(config).values["log" if thread != "messages" else thread]) > 2


@pytest.mark.parametrize("thread", ["forked", "sends", "sends_many0", "sends_many1", "interrupted"])
def test_every_old_checkpoint_is_a_place_to_fork_from(
    leaving: Move, tmp_path: Path, thread: str
) -> None:
    """Going on from each checkpoint of the history ends the same, with the sends that it had."""
    build, config = build_of(thread), config_of(f"{thread}")
    with both(leaving, tmp_path) as savers:
        stayed, moved = (build(saver) for saver in savers)
        old = [key[2] for key in keys_of(leaving.stayed) if key[:2] == (thread, "")]
        assert len(old) >= 3
        for checkpoint_id in old:
            at = {"configurable": {**config["configurable"], "checkpoint_id": checkpoint_id}}
            assert moved.get_state(at).next == stayed.get_state(at).next
            expected = outcome(lambda: stayed.invoke(None, at))  # noqa: B023
            assert outcome(lambda: moved.invoke(None, at)) == expected  # noqa: B023


# --- integer versions ---------------------------------------------------------------------------


class Counting(SqliteSaver):
    """The saver of long ago, whose versions were integers."""

    get_next_version = BaseCheckpointSaver.get_next_version  # type: ignore[assignment]


@contextmanager
def counting(path: Path) -> Iterator[Counting]:
    with closing(sqlite3.connect(path, check_same_thread=False)) as conn:
        conn.execute("PRAGMA synchronous=OFF")
        yield Counting(conn)


@pytest.mark.parametrize("v", [4, 1], ids=["v 4", "v 1"])
def test_integer_versions_go_on_counting(database: Database, tmp_path: Path, v: int) -> None:
    """Twelve versions and a fork in, four further calls on PostgreSQL end as on the old saver."""
    source, stayed = tmp_path / "source.sqlite", tmp_path / "stayed.sqlite"
    threads: dict[str, Build] = {"plain": plain, "stopped": stopping, "nested": nesting}
    if v == 4:
        threads["sent"] = MANY  # before, sends had another place
    with counting(source) as saver:
        for thread, build in threads.items():
            for n in range(3):
                build(saver).invoke({"log": ["in"], "n": n}, config_of(thread))
        graph = plain(saver)
        old = list(graph.get_state_history(config_of("plain")))[-3].config
        graph.update_state(old, {"log": ["fork"], "n": 50}, as_node="a")
        if v != 4:
            set_v(saver.conn, v)
        whole = saver.get_tuple(config_of("plain"))
        assert whole is not None
        assert {type(n) for n in whole.checkpoint["channel_versions"].values()} == {int}
    shutil.copyfile(source, stayed)
    assert Migration(database.dsn, source, tmp_path / "e", max_export_tasks=1).all()["succeeded"]
    blobs = len(rows(database.dsn)["checkpoint_blobs"])
    with counting(stayed) as sqlite, PostgresSaver.from_conn_string(database.dsn) as postgres:
        for thread, build in threads.items():
            config, before, after = config_of(thread), build(sqlite), build(postgres)
            assert history(after, config) == history(before, config)
            for n in range(4):
                value = {"log": [f"in {n}"], "n": n} if n % 2 else None
                expected = outcome(lambda: before.invoke(value, config))  # noqa: B023
                assert outcome(lambda: after.invoke(value, config)) == expected  # noqa: B023
                assert alike(shown(after, config)) == alike(shown(before, config))
    assert len(rows(database.dsn)["checkpoint_blobs"]) > blobs + 4 * len(threads)


def set_v(conn: sqlite3.Connection, v: int) -> None:
    """Have every checkpoint say that an older release wrote it."""
    for rowid, blob in conn.execute("SELECT rowid, checkpoint FROM checkpoints").fetchall():
        whole = msgpack.unpackb(blob, strict_map_key=False)
        whole |= {"v": v, "pending_sends": []}
        conn.execute(
            "UPDATE checkpoints SET checkpoint = ? WHERE rowid = ?", (msgpack.packb(whole), rowid)
        )
    conn.commit()


# --- sends whose order only the server knows ----------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "v"),
    [
        (("~__pregel_pull, B", "~__pregel_pull, a"), 4),
        (("~__pregel_pull, a_b", "~__pregel_pull, a1"), 4),
        (("", ""), 2),
    ],
    ids=["capitals", "signs", "ids alone"],
)
def test_sends_that_a_collation_could_order_otherwise_stand_as_they_are(
    database: Database, tmp_path: Path, paths: tuple[str, str], v: int
) -> None:
    """A server's reader sorts by its collation: `v` below 4 may stay only where all agree."""
    packer = JsonPlusSerializer()
    sends = [Send("w", n) for n in range(2)]
    source = tmp_path / "source.sqlite"
    with closing(empty(source)) as conn:
        for checkpoint_id, parent, pending in (("1", None, []), ("2", "1", sends)):
            whole = {
                "v": 2,
                "ts": "",
                "id": checkpoint_id,
                "channel_values": {},
                "channel_versions": {"log": "1.5"},
                "versions_seen": {},
                "pending_sends": pending,
            }
            conn.execute(
                "INSERT INTO checkpoints VALUES ('t', '', ?, ?, 'msgpack', ?, '{}')",
                (checkpoint_id, parent, packer.dumps_typed(whole)[1]),
            )
        for n, send in enumerate(sends):
            conn.execute(
                "INSERT INTO writes (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path,"
                " idx, channel, type, value) VALUES ('t', '', '1', ?, ?, 0, '__pregel_tasks', ?, ?)",
                (str(UUID(int=n)), paths[n], *packer.dumps_typed(send)),
            )
    report = Migration(database.dsn, source, tmp_path / "e").all()
    assert report["verdict"] == "identical"
    with PostgresSaver.from_conn_string(database.dsn) as saver:
        found = saver.get_tuple(config_of("t"))
    assert found is not None
    assert found.checkpoint["v"] == v
    assert found.checkpoint["channel_values"] == {"__pregel_tasks": sends}
