"""The demo's application: a support desk of LangGraph graphs whose memory is to be moved.

    python scripts/demo_sample.py write FILE [--threads N] [--checkpoints N]
    DSN=postgresql://… python scripts/demo_sample.py resume

`write` lets real graphs run on the real `SqliteSaver`; `resume` goes on, on PostgreSQL, with the
thread that waits for a person. Both run as a process of their own: the state holds a `Refund`,
whose class is in `__main__` here and which no migration worker can import.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import operator
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, TypedDict

THREADS, CHECKPOINTS = 20, 3000
LONG = "conversation-long"  # most of the checkpoints, over three batches of 1,000, and forked
WAITING = "refund-waiting"  # stopped at interrupt()
NESTED = "research-nested"  # subgraphs, hence namespaces
FANNED_OUT = "orders-fanned-out"  # stopped before the targets of its sends
FAILED = "orders-failed"  # a node raised: an error among the pending writes
REMEMBERED = 8  # messages that a conversation keeps


def write_sample(path: Path, *, threads: int = THREADS, checkpoints: int = CHECKPOINTS) -> Path:
    """Write a sample of exactly so many threads and checkpoints to `path`; a fit one is reused."""
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    note = path.with_name(f"{path.name}.note")
    wanted = {"recipe": _recipe(), "threads": threads, "checkpoints": checkpoints}
    if path.exists() and note.exists():
        found = json.loads(note.read_text())
        if found.pop("sha256", None) == _sha256(path) and found == wanted:
            return path
    for old in (path, note, *path.parent.glob(f"{path.name}-*")):
        old.unlink(missing_ok=True)
    subprocess.run(
        [sys.executable, __file__, "write", path, f"--threads={threads}"]
        + [f"--checkpoints={checkpoints}"],
        check=True,
    )
    note.write_text(json.dumps({**wanted, "sha256": _sha256(path)}, indent=1) + "\n")
    return path


def resume_waiting(dsn: str) -> list[str]:
    """Let the application go on with its waiting thread on PostgreSQL; return what it says."""
    done = subprocess.run(
        [sys.executable, __file__, "resume"],
        env={**os.environ, "DSN": dsn},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _recipe() -> str:
    releases = [importlib.metadata.version(name) for name in ("langgraph", "langchain-core")]
    return hashlib.sha256(Path(__file__).read_bytes() + repr(releases).encode()).hexdigest()


# --- the application -------------------------------------------------------------------------
# Everything below runs in the application's own process.


@dataclass
class Refund:
    """What the desk decides on; unknown to everybody but this program."""

    order: str
    amount: Decimal
    reason: str
    approved_by: str | None = None


def keep_last(known: list[Any] | None, new: Any) -> list[Any]:
    from langgraph.graph.message import add_messages

    return add_messages(known or [], new)[-REMEMBERED:]


class Desk(TypedDict, total=False):
    """A conversation's state."""

    messages: Annotated[list[Any], keep_last]
    turn: int
    until: int
    urgent: bool
    mood: float
    facts: Annotated[dict[str, Any], operator.or_]


class Case(TypedDict, total=False):
    """A refund's state."""

    messages: Annotated[list[Any], keep_last]
    refund: Refund
    log: Annotated[list[str], operator.add]


class Research(TypedDict, total=False):
    """A question's state, shared by the graph and its subgraphs."""

    question: str
    notes: Annotated[list[str], operator.add]


class Orders(TypedDict, total=False):
    """An order's state."""

    items: list[str]
    packed: Annotated[list[str], operator.add]


def conversation(saver: Any) -> Any:
    from langchain_core.messages import AIMessage
    from langgraph.graph import END, START, StateGraph

    def answer(state: Desk) -> Desk:
        turn = state.get("turn", 0) + 1
        chance = random.Random(turn)  # noqa: S311 - the same sample every time
        words = " ".join(chance.choices(WORDS, k=24))
        told = AIMessage(content=f"{turn}. {words}", additional_kwargs={"tokens": len(words)})
        return {
            "messages": [told],
            "turn": turn,
            "urgent": turn % 3 == 0,
            "mood": turn / 7,
            "facts": {f"fact {turn % 5}": [turn, None, words[:20]]},
        }

    graph = StateGraph(Desk)
    graph.add_node("answer", answer)
    graph.add_edge(START, "answer")
    graph.add_conditional_edges(
        "answer", lambda state: END if state["turn"] >= state["until"] else "answer"
    )
    return graph.compile(checkpointer=saver)


def refund_case(saver: Any) -> Any:
    from langchain_core.messages import AIMessage
    from langgraph.graph import END, START, StateGraph
    from langgraph.types import interrupt

    def draft(_: Case) -> Case:
        refund = Refund("A-1043", Decimal("49.90"), "arrived broken ☹")
        return {"refund": refund, "log": ["drafted"], "messages": [AIMessage("I ask a colleague.")]}

    def approve(state: Case) -> Case:
        refund = state["refund"]
        person = interrupt({"question": f"Pay back {refund.amount} for order {refund.order}?"})
        paid = Refund(refund.order, refund.amount, refund.reason, approved_by=person)
        return {"refund": paid, "log": [f"approved by {person}"]}

    def pay(state: Case) -> Case:
        if not isinstance(state["refund"], Refund):
            raise TypeError(f"the refund came back as {type(state['refund']).__name__}")
        return {"log": ["paid"], "messages": [AIMessage("The money is on its way.")]}

    graph = StateGraph(Case)
    for node in (draft, approve, pay):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "draft")
    graph.add_edge("draft", "approve")
    graph.add_edge("approve", "pay")
    graph.add_edge("pay", END)
    return graph.compile(checkpointer=saver)


def research(saver: Any) -> Any:
    from langgraph.graph import START, StateGraph

    def noting(word: str) -> Callable[[Research], Research]:
        return lambda state: {"notes": [f"{word}: {state['question']}"]}

    inner = StateGraph(Research)
    inner.add_node("read", noting("read"))
    inner.add_edge(START, "read")
    middle = StateGraph(Research)
    middle.add_node("search", noting("searched"))
    middle.add_node("reading", inner.compile(checkpointer=True))
    middle.add_edge(START, "search")
    middle.add_edge("search", "reading")
    outer = StateGraph(Research)
    outer.add_node("looking", middle.compile(checkpointer=True))
    outer.add_node("conclude", noting("concluded"))
    outer.add_edge(START, "looking")
    outer.add_edge("looking", "conclude")
    return outer.compile(checkpointer=saver)


def orders(saver: Any, *, pause: bool) -> Any:
    from langgraph.graph import START, StateGraph
    from langgraph.types import Send

    def pack(item: str) -> Orders:
        if item == "the last unicorn":
            raise LookupError("out of stock")
        return {"packed": [item]}

    graph = StateGraph(Orders)
    graph.add_node("take", lambda state: {"items": state["items"]})
    graph.add_node("pack", pack)
    graph.add_edge(START, "take")
    graph.add_conditional_edges("take", lambda s: [Send("pack", i) for i in s["items"]], ["pack"])
    return graph.compile(checkpointer=saver, interrupt_before=["pack"] if pause else None)


WORDS = (
    "the order left our warehouse yesterday and arrives on Friday please tell us whether the "
    "parcel was opened größer naïve 東京 ✓ we are sorry for the delay and refund the postage"
).split()


class Writer:
    """Runs the application's graphs on one SQLite database until it is as large as asked for."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        from langgraph.checkpoint.sqlite import SqliteSaver

        self.connection = connection
        self.saver = SqliteSaver(connection, serde=serializer())
        self.saver.setup()
        self.desk = conversation(self.saver)

    def write(self, threads: int, checkpoints: int) -> None:
        self._special()
        customers = threads - 5
        if customers < 0:
            raise SystemExit("the sample has at least five threads")
        each = max(3, min(40, (checkpoints - self._count()) // (customers * 2 or 1)))
        for number in range(customers):
            self._talk(f"customer-{number:03}", each)
        self._long(checkpoints - self._count())

    def _special(self) -> None:
        from langchain_core.messages import HumanMessage

        question = HumanMessage("My lamp arrived broken, what now?")
        refund_case(self.saver).invoke({"messages": [question]}, at(WAITING))
        for asked in ("why is the sky blue?", "and at dusk?"):
            research(self.saver).invoke({"question": asked}, at(NESTED))
        orders(self.saver, pause=True).invoke({"items": ["lamp", "chair"]}, at(FANNED_OUT))
        try:
            broken = {"items": ["lamp", "the last unicorn"]}
            orders(self.saver, pause=False).invoke(broken, at(FAILED))
        except LookupError:
            pass

    def _talk(self, thread: str, checkpoints: int, fork: str | None = None) -> None:
        """Talk for so many checkpoints: one for the input, one to begin, one for each answer."""
        from langchain_core.messages import HumanMessage

        config = at(thread, fork)
        turn = self.desk.get_state(config).values.get("turn", 0)
        said = {"messages": [HumanMessage("Where is my parcel?")], "until": turn + checkpoints - 2}
        if checkpoints > 2:
            self.desk.invoke(said, config, durability="sync")

    def _long(self, checkpoints: int) -> None:
        """Talk past a batch's border, then go back before the border and take another way."""
        first = max(3, checkpoints // 2)
        self._talk(LONG, first)
        query = (
            "SELECT checkpoint_id FROM checkpoints WHERE thread_id = ? AND checkpoint_ns = '' "
            "ORDER BY checkpoint_id LIMIT 1 OFFSET ?"
        )
        (back,) = self.connection.execute(query, (LONG, first * 3 // 4)).fetchone()
        self._talk(LONG, checkpoints - first, fork=back)

    def _count(self) -> int:
        return int(self.connection.execute("SELECT count(*) FROM checkpoints").fetchone()[0])


def at(thread: str, checkpoint: str | None = None) -> dict[str, Any]:
    configurable = {"thread_id": thread} | ({"checkpoint_id": checkpoint} if checkpoint else {})
    return {"configurable": configurable, "recursion_limit": 100_000}


def serializer() -> Any:
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

    return JsonPlusSerializer(allowed_msgpack_modules=[(Refund.__module__, Refund.__name__)])


def _write(path: Path, threads: int, checkpoints: int) -> None:
    unfinished = path.with_name(f"{path.name}.unfinished")
    for old in path.parent.glob(f"{unfinished.name}*"):
        old.unlink()
    with closing(sqlite3.connect(unfinished, check_same_thread=False)) as connection:
        connection.execute("PRAGMA synchronous=OFF")  # a sample: what a crash loses is made again
        Writer(connection).write(threads, checkpoints)
    unfinished.rename(path)


def _resume(dsn: str) -> None:
    import psycopg
    from langgraph.checkpoint.postgres import PostgresSaver
    from langgraph.types import Command
    from psycopg.rows import dict_row

    with psycopg.connect(dsn, autocommit=True, prepare_threshold=0, row_factory=dict_row) as target:
        case = refund_case(PostgresSaver(target, serde=serializer()))
        config = at(WAITING)
        waiting = case.get_state(config)
        (asked,) = waiting.interrupts
        print(f"the application asks  {asked.value['question']}")
        print("a person answers      Ada")
        result = case.invoke(Command(resume="Ada"), config)
        print(f"the graph goes on     {' → '.join(result['log'])}")
        print(f"its state             {result['refund']}")
        print(f"its last message      {result['messages'][-1].content}")
        if case.get_state(config).next or result["log"] != ["drafted", "approved by Ada", "paid"]:
            raise SystemExit("the waiting thread did not go on as it should")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="The demo's application.")
    parser.add_argument("command", choices=("write", "resume"))
    parser.add_argument("path", type=Path, nargs="?")
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--checkpoints", type=int, default=CHECKPOINTS)
    options = parser.parse_args(arguments)
    if options.command == "resume":
        _resume(os.environ["DSN"])
    elif options.path is None:
        parser.error("write needs a path")
    else:
        _write(options.path.absolute(), options.threads, options.checkpoints)


if __name__ == "__main__":
    main()
