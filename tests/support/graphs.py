"""Stories: real graphs that stop half-way on one saver, and how they go on.

A story is told twice or more, on different savers, and what it shows must be the same. Its nodes
are pure but for `World`, so that nothing but the saver can make a difference.
"""

from __future__ import annotations

import operator
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pprint import pformat
from typing import Annotated, Any

from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage, ToolMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, Send, StateSnapshot, interrupt
from typing_extensions import TypedDict

from tests.support.readers import by_value, spelled


@dataclass
class World:
    """What lies outside a graph: whether something is broken, and which nodes have run."""

    broken: bool = False
    ran: list[str] = field(default_factory=list)


Config = dict[str, Any]
Step = Callable[[Any, Config, World], Any]


@dataclass(frozen=True)
class Story:
    """A graph, how it comes to a stop, and three further steps; each gives what the caller sees.

    `native` is false where a thread that began on PostgreSQL has other values: `PostgresSaver`
    stores a version once, so what a node mutates in place is lost there and kept on SQLite.
    """

    name: str
    build: Callable[[Any, World], Any]
    begin: Step
    steps: tuple[Step, Step, Step]
    prunable: bool = True
    native: bool = True


def config_of(thread_id: str) -> Config:
    return {"configurable": {"thread_id": thread_id}}


# --- what a story shows ---------------------------------------------------------------------------

RANDOM = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b[0-9a-f]{32}\b"
    r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00"
)


def shown(graph: Any, config: Config) -> list[str]:
    """All that LangGraph shows of a thread, types included, as lines of text."""
    told = [graph.get_state(config, subgraphs=True), *graph.get_state_history(config)]
    return pformat([spelled(_ordered(snapshot)) for snapshot in told], width=160).splitlines()


def _ordered(snapshot: Any) -> Any:
    """A snapshot, its subgraphs' too, without the order of metadata's keys: JSONB has none."""
    if not isinstance(snapshot, StateSnapshot):
        return snapshot
    tasks = tuple(task._replace(state=_ordered(task.state)) for task in snapshot.tasks)
    return snapshot._replace(metadata=by_value(snapshot.metadata), tasks=tasks)


def alike(lines: Sequence[str]) -> list[str]:
    """The same with ids and times named by the order in which they come: those are random."""
    names: dict[str, str] = {}

    def name(found: re.Match[str]) -> str:
        return names.setdefault(found[0], f"<{len(names)}>")

    return RANDOM.sub(name, "\n".join(lines)).splitlines()


def outcome(call: Callable[[], Any]) -> list[str]:
    """What a caller gets: the result, or the error."""
    try:
        result = call()
    except Exception as error:  # noqa: BLE001 - whatever it is, both tellings must raise it
        result = error
    if isinstance(result, dict) and "__interrupt__" in result:  # they come as threads end
        result["__interrupt__"].sort(key=lambda interrupt: repr(interrupt.value))
    return alike(pformat(spelled(result), width=160).splitlines())


def ran_of(world: World) -> list[str]:
    """Which nodes have run; those of one superstep run in threads, in any order."""
    return sorted(world.ran)


# --- pieces ---------------------------------------------------------------------------------------


class Log(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    n: int
    extra: Any


def noting(world: World, name: str, **more: Any) -> Callable[[Any], dict[str, Any]]:
    """A node that says that it was there."""

    def node(state: Any) -> dict[str, Any]:
        world.ran.append(name)
        return {"log": [f"{name}{len(state.get('log', []))}"], **more}

    return node


def asking(world: World, name: str, times: int = 1) -> Callable[[Any], dict[str, Any]]:
    """A node that asks a person, once or several times."""

    def node(state: Any) -> dict[str, Any]:
        world.ran.append(name)
        answers = [interrupt({"question": f"{name} {i}?", "of": name}) for i in range(times)]
        return {"log": [f"{name}:{answer}" for answer in answers]}

    return node


def chain(builder: Any, *names: str) -> Any:
    for before, after in zip((START, *names), (*names, END), strict=True):
        builder.add_edge(before, after)
    return builder


def say(value: Any) -> Step:
    return lambda graph, config, world: graph.invoke(value, config)


def fresh(word: str = "in") -> Step:
    return say({"log": [word], "n": 1})


go_on = say(None)


def at(graph: Any, config: Config, *following: str, last: bool = False) -> Config:
    """The config of an old checkpoint: the oldest, or the newest, whose next nodes are these."""
    found = [s for s in graph.get_state_history(config) if s.next == following]
    return found[0 if last else -1].config


# --- the stories ----------------------------------------------------------------------------------


def _interrupted(saver: Any, world: World) -> Any:
    builder = StateGraph(Log)
    builder.add_node("a", noting(world, "a", n=5))
    builder.add_node("ask", asking(world, "ask"))
    builder.add_node("b", noting(world, "b", extra={"k": [1, 2.5, None]}))
    return chain(builder, "a", "ask", "b").compile(checkpointer=saver)


def _asked_twice(saver: Any, world: World) -> Any:
    builder = StateGraph(Log)
    builder.add_node("ask", asking(world, "ask", times=2))
    builder.add_node("b", noting(world, "b"))
    return chain(builder, "ask", "b").compile(checkpointer=saver)


def _asked_in_parallel(saver: Any, world: World) -> Any:
    builder = StateGraph(Log)
    for name in ("left", "right", "third"):
        builder.add_node(name, asking(world, name))
        builder.add_edge(START, name)
        builder.add_edge(name, "join")
    builder.add_node("quick", noting(world, "quick"))
    builder.add_edge(START, "quick")
    builder.add_node("join", noting(world, "join"))
    return builder.compile(checkpointer=saver)


def answer(*names: str) -> Step:
    """Answer the pending questions of these nodes by the ids of their interrupts, all at once."""

    def step(graph: Any, config: Config, world: World) -> Any:
        pending = graph.get_state(config, subgraphs=True).interrupts
        wanted = {i.id: f"to {i.value['of']}" for i in pending if i.value["of"] in names}
        assert len(wanted) == len(names)
        return graph.invoke(Command(resume=wanted), config)

    return step


def _static(before: list[str], after: list[str]) -> Callable[[Any, World], Any]:
    def build(saver: Any, world: World) -> Any:
        builder = StateGraph(Log)
        for name in ("a", "b", "c"):
            builder.add_node(name, noting(world, name))
        return chain(builder, "a", "b", "c").compile(
            checkpointer=saver, interrupt_before=before, interrupt_after=after
        )

    return build


def _fork(as_node: str, *following: str) -> Step:
    def step(graph: Any, config: Config, world: World) -> Any:
        old = at(graph, config, *following)
        forked = graph.update_state(old, {"log": ["forked"], "n": 99}, as_node=as_node)
        return graph.invoke(None, forked)

    return step


def _replay(*following: str) -> Step:
    def step(graph: Any, config: Config, world: World) -> Any:
        return graph.invoke(None, at(graph, config, *following))

    return step


def _begin_fork(graph: Any, config: Config, world: World) -> Any:
    graph.invoke({"log": ["in"], "n": 1}, config)
    old = at(graph, config, "b")
    graph.update_state(old, {"log": ["fork"], "extra": "x"})
    return graph.update_state(old, {"log": ["sibling"], "extra": True})


def _begin_twice(graph: Any, config: Config, world: World) -> Any:
    graph.invoke({"log": ["in"], "n": 1}, config)
    return graph.invoke({"log": ["again"], "n": 2}, config)


def _nested(checkpointer: Any) -> Callable[[Any, World], Any]:
    def build(saver: Any, world: World) -> Any:
        inner = StateGraph(Log)
        inner.add_node("read", noting(world, "read", n=7))
        inner.add_node("ask", asking(world, "ask"))
        middle = StateGraph(Log)
        middle.add_node("think", noting(world, "think"))
        middle.add_node("inner", chain(inner, "read", "ask").compile(checkpointer=checkpointer))
        outer = StateGraph(Log)
        outer.add_node("a", noting(world, "a"))
        outer.add_node("sub", chain(middle, "think", "inner").compile(checkpointer=checkpointer))
        outer.add_node("b", noting(world, "b"))
        return chain(outer, "a", "sub", "b").compile(checkpointer=saver)

    return build


class Fan(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    items: list[Any]
    of: str


def _fanned_out(target: Callable[[World], Any], stop: bool) -> Callable[[Any, World], Any]:
    def build(saver: Any, world: World) -> Any:
        builder = StateGraph(Fan)
        builder.add_node("plan", noting(world, "plan"))
        builder.add_node("work", target(world))
        builder.add_node("join", noting(world, "join"))
        builder.add_edge(START, "plan")
        builder.add_conditional_edges(
            "plan", lambda state: [Send("work", {"of": i}) for i in state["items"]], ["work"]
        )
        builder.add_edge("work", "join")
        return builder.compile(checkpointer=saver, interrupt_before=["work"] if stop else [])

    return build


def _worker(world: World) -> Any:
    def work(state: Fan) -> Fan:
        world.ran.append(f"work {state['of']}")
        return {"log": [f"did {state['of']}"]}

    return work


def _asking_worker(world: World) -> Any:
    def work(state: Fan) -> Fan:
        world.ran.append(f"work {state['of']}")
        said = interrupt({"of": state["of"]})
        return {"log": [f"{state['of']}: {said}"]}

    return work


def _failing(saver: Any, world: World) -> Any:
    def fragile(state: Log) -> Log:
        world.ran.append("fragile")
        if world.broken:
            time.sleep(0.5)  # so that the other branch is always done, and its writes are saved
            raise RuntimeError("it is broken")
        return {"log": ["fragile"]}

    builder = StateGraph(Log)
    builder.add_node("good", noting(world, "good", n=3))
    builder.add_node("fragile", fragile)
    builder.add_node("join", noting(world, "join"))
    for name in ("good", "fragile"):
        builder.add_edge(START, name)
    builder.add_edge(["good", "fragile"], "join")
    return builder.compile(checkpointer=saver)


def _broken(value: Any) -> Step:
    def step(graph: Any, config: Config, world: World) -> Any:
        world.broken = True
        try:
            return graph.invoke(value, config)
        except RuntimeError as error:
            return error
        finally:
            world.broken = False

    return step


def _commanded(saver: Any, world: World) -> Any:
    def choose(state: Log) -> Command[Any]:
        world.ran.append("choose")
        goto = "left" if state.get("n", 0) % 2 else ["right", Send("sent", {"log": [], "n": 40})]
        return Command(goto=goto, update={"log": ["chose"], "extra": ("a", 1)})

    builder = StateGraph(Log)
    builder.add_node("choose", choose, destinations=("left", "right", "sent"))
    for name in ("left", "right", "sent"):
        builder.add_node(name, noting(world, name))
    builder.add_edge(START, "choose")
    return builder.compile(checkpointer=saver, interrupt_before=["left", "right"])


class Chat(TypedDict, total=False):
    messages: Annotated[list[Any], add_messages]
    turn: int


def _chatting(saver: Any, world: World) -> Any:
    def model(state: Chat) -> Chat:
        world.ran.append("model")
        turn = state.get("turn", 0) + 1
        call = {"name": "look", "args": {"q": turn, "deep": [None, 1.5]}, "id": f"call-{turn}"}
        said = AIMessage(f"turn {turn}", id=f"ai-{turn}", tool_calls=[call])
        return {"messages": [said], "turn": turn}

    def tool(state: Chat) -> Chat:
        world.ran.append("tool")
        call = state["messages"][-1].tool_calls[0]
        found = ToolMessage("found", tool_call_id=call["id"], id=f"tool-{call['id']}")
        gone = [RemoveMessage(id=m.id) for m in state["messages"][:-4]]
        return {"messages": [found, *gone]}

    builder = StateGraph(Chat)
    builder.add_node("model", model)
    builder.add_node("tool", tool)
    return chain(builder, "model", "tool").compile(checkpointer=saver, interrupt_before=["tool"])


def _chat(word: str) -> Step:
    return say({"messages": [HumanMessage(word, id=f"human-{word}")]})


def gathered(state: list[Any], writes: Sequence[list[Any]]) -> list[Any]:
    return [*state, *(item for items in writes for item in items)]


class Gathering(TypedDict, total=False):
    items: Annotated[list[Any], DeltaChannel(gathered, snapshot_frequency=3)]
    n: int


def _delta(saver: Any, world: World) -> Any:
    def gather(state: Gathering) -> Gathering:
        world.ran.append("gather")
        return {"items": [{"at": len(state["items"]), "of": ("x", None)}], "n": len(state["items"])}

    builder = StateGraph(Gathering)
    builder.add_node("gather", gather)
    builder.add_node("more", gather)
    return chain(builder, "gather", "more").compile(checkpointer=saver, interrupt_before=["more"])


def _begin_delta(graph: Any, config: Config, world: World) -> Any:
    for n in range(5):
        graph.invoke({"items": [n]}, config)
        graph.invoke(None, config)
    return graph.invoke({"items": ["last"]}, config)


def _fork_delta(graph: Any, config: Config, world: World) -> Any:
    forked = graph.update_state(at(graph, config, "more"), {"items": ["forked"]})
    return graph.invoke(None, forked)


def _functional(saver: Any, world: World) -> Any:
    @task
    def fetch(n: int) -> dict[str, Any]:
        world.ran.append(f"fetch {n}")
        return {"n": n, "squared": n * n}

    @entrypoint(checkpointer=saver)
    def flow(inputs: list[int], *, previous: Any = None) -> Any:
        world.ran.append("flow")
        fetched = [future.result() for future in [fetch(n) for n in inputs]]
        said = interrupt({"of": "flow", "fetched": fetched})
        total = sum(f["squared"] for f in fetched) + (previous or {"total": 0})["total"]
        return entrypoint.final(value=[said, total], save={"total": total, "said": said})

    return flow


def _mutating(saver: Any, world: World) -> Any:
    def mutate(state: Log) -> Log:
        world.ran.append("mutate")
        state["extra"].append(len(state["extra"]))  # three contents under one version by the end
        return {"log": ["m"]}

    def renew(state: Log) -> Log:
        world.ran.append("renew")
        return {"log": ["r"], "extra": [*state["extra"], "renewed"]}

    builder = StateGraph(Log)
    for name, node in (("first", mutate), ("second", mutate), ("third", renew), ("last", renew)):
        builder.add_node(name, node)
    chain(builder, "first", "second", "third", "last")
    return builder.compile(checkpointer=saver, interrupt_before=["third"])


class Flags(TypedDict, total=False):
    yes: bool
    no: bool
    none: Any
    number: float
    text: str
    many: Annotated[list[Any], operator.add]


def _flagged(saver: Any, world: World) -> Any:
    def flip(state: Flags) -> Flags:
        world.ran.append("flip")
        flags: Flags = {"yes": not state["yes"], "no": not state["no"], "many": [state["yes"]]}
        return {**flags, "none": None if state["none"] else True, "text": state["text"] + "é"}

    builder = StateGraph(Flags)
    builder.add_node("flip", flip)
    builder.add_node("flop", flip)
    return chain(builder, "flip", "flop").compile(checkpointer=saver, interrupt_before=["flop"])


FLAGS: Flags = {"yes": True, "no": False, "none": True, "number": 2.5, "text": "t", "many": []}


def _waiting(saver: Any, world: World) -> Any:
    builder = StateGraph(Log)
    for name in ("short", "long", "longer", "join"):
        builder.add_node(name, noting(world, name))
    builder.add_node("last", noting(world, "last"), defer=True)
    for name in ("short", "long"):
        builder.add_edge(START, name)
    builder.add_edge("long", "longer")
    builder.add_edge(["short", "longer"], "join")
    builder.add_edge("short", "last")
    builder.add_edge("join", END)
    return builder.compile(checkpointer=saver, interrupt_before=["longer", "last"])


def _at_exit(graph: Any, config: Config, world: World) -> Any:
    return graph.invoke({"log": ["in"], "n": 1}, config, durability="exit")


FAN = {"log": ["in"], "items": ["x", "y", "z"]}

STORIES = [
    Story(
        "interrupted", _interrupted, fresh(), (say(Command(resume="yes")), fresh(), answer("ask"))
    ),
    Story("interrupted, saved at exit", _interrupted, _at_exit, (answer("ask"), fresh(), _at_exit)),
    Story(
        "asked twice by one node",
        _asked_twice,
        lambda g, c, w: [g.invoke({"log": ["in"]}, c), g.invoke(Command(resume="first"), c)],
        (say(Command(resume="second")), fresh(), say(Command(resume="first again"))),
    ),
    Story(
        "several interrupts at once",
        _asked_in_parallel,
        fresh(),
        (answer("left"), answer("right", "third"), fresh()),
    ),
    Story("interrupt_before", _static(["b"], []), fresh(), (go_on, fresh("again"), go_on)),
    Story("interrupt_after", _static([], ["a", "b"]), fresh(), (go_on, go_on, fresh("again"))),
    Story(
        "forked by update_state",
        _static([], []),
        _begin_fork,
        (go_on, _fork("a", "b"), _replay("c")),
    ),
    Story(
        "replayed from an old checkpoint",
        _static([], []),
        _begin_twice,
        (_replay("b"), _fork("b", "c"), fresh("third")),
    ),
    Story(
        "paused in a subgraph",
        _nested(None),
        fresh(),
        (answer("ask"), fresh("again"), say(Command(resume="plain"))),
    ),
    Story(
        "paused in a subgraph with a memory",
        _nested(True),
        lambda g, c, w: [
            g.invoke({"log": ["in"]}, c),
            g.invoke(Command(resume="first"), c),
            g.invoke({"log": ["again"]}, c),
        ],
        (answer("ask"), fresh("third"), answer("ask")),
    ),
    Story("fanned out", _fanned_out(_worker, stop=True), say(FAN), (go_on, say(FAN), go_on)),
    Story(
        "fanned out into interrupts",
        _fanned_out(_asking_worker, stop=False),
        say(FAN),
        (answer("y"), answer("x", "z"), say(FAN)),
    ),
    Story(
        "a parallel branch failed",
        _failing,
        _broken({"log": ["in"], "n": 1}),
        (_broken(None), go_on, fresh("again")),
    ),
    Story(
        "commanded",
        _commanded,
        fresh(),
        (
            go_on,
            say(Command(goto="right", update={"log": ["from outside"]})),
            say({"log": ["even"], "n": 2}),
        ),
    ),
    Story("chatting", _chatting, _chat("hello"), (go_on, _chat("more"), go_on)),
    Story(
        "gathering in a delta channel",
        _delta,
        _begin_delta,
        (go_on, say({"items": ["new"]}), _fork_delta),
        prunable=False,
    ),
    Story(
        "functional",
        _functional,
        say([1, 2, 3]),
        (say(Command(resume="ok")), say([4]), answer("flow")),
    ),
    Story(
        "mutated in place",
        _mutating,
        say({"log": ["in"], "extra": ["original"]}),
        (go_on, _replay("third"), _fork("second", "third")),
        native=False,
    ),
    Story("flags", _flagged, say(FLAGS), (go_on, say({"many": [1]}), go_on)),
    Story("waiting for a join", _waiting, fresh(), (go_on, go_on, fresh("again"))),
]
