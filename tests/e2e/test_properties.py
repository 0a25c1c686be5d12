"""Whatever history the real `SqliteSaver` has written, both savers read it alike afterwards."""

from __future__ import annotations

import itertools
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START

from include.checkpoint_migration.convert.jsonb import exact, refusal
from tests.support.engine import Migration
from tests.support.postgres import Database, TestServer
from tests.support.readers import (
    differences,
    keys_of,
    order_differences,
    postgres_side,
    serializer,
    spelled,
    sqlite_side,
    write_rows,
)
from tests.support.values import KINDS, texts, values

# A migration costs a second, most of it the same for one thread or for eight. So an example is
# several histories, a thread each: 200 of them in `make test`, 10,000 at night.
HISTORIES = 8
PROFILE = settings.default.max_examples
EXAMPLES = PROFILE // 4 if PROFILE <= 100 else PROFILE // HISTORIES


# --- histories ------------------------------------------------------------------------------------


@dataclass
class Step:
    """A checkpoint, or (without one) writes that stay orphans."""

    ns: str
    id: str
    parent: str | None
    checkpoint: dict[str, Any] | None
    metadata: dict[str, Any]
    writes: list[tuple[str, str, list[tuple[str, Any]]]] = field(default_factory=list)


allowed = texts.filter(lambda text: "\0" not in text and "\\" not in text)
channels = st.sampled_from(["messages", "n", "branch:to:a", START, "é ☃", "%s'\""]) | allowed
namespaces = st.sampled_from(["", "sub:1f1e5dc9", "sub:1f1e5dc9|inner:aa", "sub", "é"])
special = st.sampled_from(
    ["__interrupt__", "__error__", "__resume__", "__scheduled__", "__pregel_tasks", "__return__"]
)
plain = st.recursive(  # what JSONB holds exactly
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(-1e15, 1e15).filter(exact),
        allowed,
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(allowed, inner, max_size=1),
    max_leaves=4,
)
metadata = st.fixed_dictionaries(
    {"source": st.sampled_from(["loop", "input", "update"]), "step": st.integers(-1, 9)},
    optional={
        "parents": st.dictionaries(allowed, allowed, max_size=2),
        "é": plain | st.sampled_from([1e20, 1e23, -0.0, 1e-7, 10**30, [{"b": 1, "a": 2}]]),
    },
)
paths = st.sampled_from(["", "~__pregel_pull, a", "~__pregel_push, 0000000001, False", "é\\"])
write = st.tuples(
    st.sampled_from(["task-1", "task-2", "task-é"]),
    paths,
    st.lists(st.tuples(channels | special, values), min_size=1, max_size=3),
)
CHANGES = ("new", "in place", "new", "in place", "absent", "same value", "no value", "loose")


@st.composite
def histories(draw: st.DrawFn) -> list[Step]:
    """Checkpoints in some namespaces, each from nothing, from any earlier one or from a lost one.

    A version is the parent's and one, with a fraction of which there are few: forks meet.
    """
    names = draw(st.lists(channels, min_size=1, max_size=3, unique=True))
    places = draw(st.lists(namespaces, min_size=1, max_size=2, unique=True))
    steps: list[Step] = []
    for n in range(draw(st.integers(1, 5))):
        ns = draw(st.sampled_from(places))
        before = draw(st.sampled_from([None, *(s for s in steps if s.ns == ns and s.checkpoint)]))
        lost = "00000000-lost" if before is None and draw(st.booleans()) else None
        name = f"1f1e5dc9-{n:04}-6000-8000-000000000000"
        if draw(st.integers(0, 9)) == 9:
            found = draw(st.lists(write, min_size=1, max_size=2))
            steps.append(Step(ns, f"{name[:-1]}f", None, None, {}, found))
            continue
        old = before.checkpoint if before and before.checkpoint else EMPTY
        checkpoint = _checkpoint(draw, name, names, old)
        parent = before.id if before else lost
        steps.append(
            Step(ns, name, parent, checkpoint, draw(metadata), draw(st.lists(write, max_size=2)))
        )
    return steps


OLDER = f"{0:032}.{0.5:016}"  # than any that a checkpoint has
EMPTY: dict[str, Any] = {"channel_values": {}, "channel_versions": {}, "versions_seen": {}}


def _checkpoint(draw: st.DrawFn, id: str, names: list[str], old: dict[str, Any]) -> dict[str, Any]:
    held, versions = {**old["channel_values"]}, {**old["channel_versions"]}
    number = max((int(version[:32]) for version in versions.values()), default=0) + 1
    for name in draw(st.lists(st.sampled_from(names), max_size=3)):
        change = draw(st.sampled_from(CHANGES))
        if change in ("new", "same value", "no value"):
            versions[name] = f"{number:032}.{draw(st.sampled_from([0.5, 0.25])):016}"
        if change in ("absent", "no value"):
            held.pop(name, None)
        elif change == "loose" and name not in versions:
            held[name] = draw(plain)
        elif change == "new" or (change == "in place" and name in versions):
            held[name] = draw(values | st.just(_DeltaSnapshot(["x", 1])))
    seen = {node: {**entries} for node, entries in old["versions_seen"].items()}
    for node in draw(st.lists(st.sampled_from(["__input__", "a", "é"]), max_size=2)):
        seen[node] = {
            name: draw(st.sampled_from([version, OLDER]))
            for name, version in versions.items()
            if draw(st.booleans())
        }
    whole = {
        "v": 4,
        "ts": "2025-03-04T05:06:07.000008+00:00",
        "id": id,
        "channel_values": held,
        "channel_versions": versions,
        "versions_seen": seen,
    }
    updated = draw(st.sampled_from([None, "missing", sorted(held)]))
    return whole if updated == "missing" else {**whole, "updated_channels": updated}


def saved(path: Path, threads: dict[str, list[Step]]) -> Path:
    """Let the real saver write the histories, in the order in which they came about."""
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA synchronous=OFF")
        saver = SqliteSaver(conn)
        saver.setup()
        for thread_id, steps in threads.items():
            for step in steps:
                place = {"thread_id": thread_id, "checkpoint_ns": step.ns}
                if step.checkpoint is not None:
                    came_from = {"checkpoint_id": step.parent} if step.parent else {}
                    config: Any = {"configurable": {**place, **came_from}}
                    saver.put(config, step.checkpoint, step.metadata, {})  # type: ignore[arg-type]
                config = {"configurable": {**place, "checkpoint_id": step.id}}
                for task, task_path, found in step.writes:
                    saver.put_writes(config, found, task, task_path)
    return path


# --- the properties -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def target(postgres_server: TestServer) -> Iterator[Database]:
    """One database for all examples: thread ids are never used twice."""
    with postgres_server.database() as fresh:
        yield fresh


WRITTEN = (
    "SELECT thread_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, blob"
    " FROM checkpoint_writes WHERE thread_id = ANY(%s)"
)
_numbers = itertools.count()


@pytest.mark.slow
@settings(
    max_examples=EXAMPLES,
    print_blob=True,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # to shrink would outlast the timeout
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(st.tuples(allowed, histories()), min_size=HISTORIES, max_size=HISTORIES))
def test_both_savers_read_every_history_alike(
    target: Database,
    tmp_path_factory: pytest.TempPathFactory,
    drawn: list[tuple[str, list[Step]]],
) -> None:
    """Values, versions, parents, metadata, writes and order are the same on both sides."""
    folder = tmp_path_factory.mktemp("property")
    threads = {f"{next(_numbers)} {name}": steps for name, steps in drawn}
    source = saved(folder / "source.sqlite", threads)
    copy = Path(shutil.copyfile(source, folder / "copy.sqlite"))
    migration = Migration(
        target.dsn, source, folder / "exports", max_export_tasks=2, max_load_tasks=2
    )
    report = migration.all()
    assert report["verdict"] == "identical"
    with (
        sqlite_side(copy, serializer("raw")) as before,
        postgres_side(target.dsn, serializer("raw")) as after,
    ):
        keys = keys_of(copy)
        assert differences(before, after, keys) == []
        assert order_differences(before, after, keys) == []
    written = target.rows(WRITTEN, list(threads))
    assert sorted(written) == write_rows(copy)
    shutil.rmtree(folder)


numbers = st.sampled_from(
    ["0", "-0.0", "1.0", "1e15", "1e16", "9.5e15", "1e400", "-1e-400", "5e-324", "1" + "0" * 5000]
    + [
        "1e-17000",
        "1e131072",
        "0." + "1" * 17_000,
        "NaN",
        "Infinity",
        "-Infinity",
        "01",
        "1.",
        ".5",
    ]
)
strings = st.sampled_from(
    [r'"\u0000"', r'"\\u0000"', r'"\ud83d"', r'"\ud83d\udc0b"', r'"\x"', '"\t"', '"é"', '"a\x00"']
)
json_texts = st.recursive(
    st.one_of(
        numbers,
        strings,
        st.floats().map(json.dumps),
        st.text(max_size=4).map(json.dumps),
        st.sampled_from(["true", "null", "nul", "", "[" * 200 + "]" * 200]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[" + ",".join(items) + "]"),
        st.lists(st.tuples(strings, inner), max_size=2).map(
            lambda items: "{" + ", ".join(f"{k}: {v}" for k, v in items) + "}"
        ),
    ),
    max_leaves=5,
)
BEYOND_ONE_READER = {
    # PostgreSQL takes some of these, and Python's reader would then stumble over them.
    "it holds a number beyond PostgreSQL's range",
    "it is not JSON that PostgreSQL takes",
    "it is not JSON",
}


@settings(max_examples=max(200, PROFILE), print_blob=True)
@given(json_texts)
@example(r'{"a": "\u0000", "a": 0}')
@example(r'{"a": "\\\u0000"}')
@example(r'{"a": "\\u0000"}')
def test_what_is_not_refused_is_taken_by_a_real_server(target: Database, text: str) -> None:
    """`refusal` lets nothing through that JSONB refuses, and refuses for no reason but the server's.

    Of numbers it refuses more: those that Python could not read back.
    """
    with _conn(target) as conn:
        why = refusal(text.encode("utf-8", "surrogatepass"))
        taken = _round_trip(conn, text)
    if why is None:
        assert taken is not REFUSED
    elif taken is not REFUSED:
        assert why in BEYOND_ONE_READER
        assert any(char.isdigit() for char in text)


@settings(max_examples=max(200, PROFILE), print_blob=True)
@given(
    st.recursive(
        st.sampled_from([kind for kind in KINDS if type(kind) in (bool, int, float, str)])
        | st.floats()
        | st.integers(-(2**80), 2**80)
        | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=1)
        ),
        max_leaves=4,
    )
)
def test_exact_values_and_no_others_come_back_from_a_real_server(
    target: Database, value: Any
) -> None:
    """`exact` is true where JSONB gives the value back with its types, and false where it does not."""
    with _conn(target) as conn:
        text = msgspec.json.encode(value).decode() if exact(value) else json.dumps(value)
        back = _round_trip(conn, text)
    same = back is not REFUSED and spelled(back) == spelled(value)
    assert exact(value) is same


REFUSED = object()


def _conn(target: Database) -> psycopg.Connection[Any]:
    return psycopg.connect(target.dsn, autocommit=True)


def _round_trip(conn: psycopg.Connection[Any], text: str) -> Any:
    """What psycopg reads of the text as JSONB, or `REFUSED`."""
    try:
        return conn.execute("SELECT %s::text::jsonb", (text,)).fetchone()[0]  # type: ignore[index]
    except (psycopg.DataError, UnicodeEncodeError):
        return REFUSED
    except ValueError:  # Python's limit of digits
        return REFUSED
