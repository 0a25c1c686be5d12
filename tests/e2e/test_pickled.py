"""What a database names is not run: pickles stay closed unless the user opens them, classes always."""

from __future__ import annotations

import json
import pickle
import shutil
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from include.checkpoint_migration.errors import Blocked
from tests.support.engine import Migration, rows
from tests.support.graphs import config_of
from tests.support.postgres import Database, TestServer
from tests.support.readers import (
    Side,
    keys_of,
    order_differences,
    postgres_side,
    sqlite_side,
    write_rows,
)
from tests.support.sqlite_sources import empty

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "checkpoint-sqlite-3.1.2.sqlite"
EMPTY = {"checkpoints": [], "checkpoint_blobs": [], "checkpoint_writes": []}
PICKLE = "00000000-pickle"


def unpickling() -> JsonPlusSerializer:
    return JsonPlusSerializer(pickle_fallback=True)


class Canary:
    """Whoever unpickles it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the fixture of today's release."""
    return Path(shutil.copyfile(FIXTURE, tmp_path / "source.sqlite"))


def with_row(path: Path, table: str, **columns: Any) -> None:
    names = ", ".join(columns)
    marks = ", ".join("?" * len(columns))
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(columns.values()))


def pickled_checkpoint(path: Path, blob: bytes, thread: str = "hostile") -> None:
    with_row(
        path,
        "checkpoints",
        thread_id=thread,
        checkpoint_ns="",
        checkpoint_id=PICKLE,
        type="pickle",
        checkpoint=blob,
        metadata=b"{}",
    )


def pickled_write(path: Path, blob: bytes, thread: str = "simple") -> None:
    with_row(
        path,
        "writes",
        thread_id=thread,
        checkpoint_ns="",
        checkpoint_id=PICKLE,
        task_id="task",
        task_path="",
        idx=0,
        channel="extra",
        type="pickle",
        value=blob,
    )


# --- by default ---------------------------------------------------------------------------------


def test_pickled_checkpoints_are_blockers_and_nothing_is_unpickled(
    database: Database, source: Path, tmp_path: Path
) -> None:
    """All of them are listed, none is run, in whatever step, and no row is live."""
    trap = tmp_path / "sprung"
    pickled_checkpoint(source, pickle.dumps({"v": 4, "channel_values": {"x": Canary(trap)}}))
    pickled_write(source, pickle.dumps(Canary(trap)))
    params = {"threads": ["pickle", "hostile", "simple"]}
    migration = Migration(database.dsn, source, tmp_path / "e", params, max_export_tasks=1)
    with pytest.raises(Blocked) as raised:
        migration.all()
    assert raised.value.facts["blockers"] == 5
    blockers = migration.report["blockers"]
    listed = {(b["thread_id"], b["checkpoint_id"], b["column"]) for b in blockers}
    wanted = {(k[0], k[2], "type") for k in keys_of(source) if k[0] in ("pickle", "hostile")}
    assert listed == wanted
    assert all("allow_pickle" in blocker["why"] for blocker in blockers)
    assert rows(database.dsn) == EMPTY
    assert not trap.exists()


def test_pickled_writes_are_copied_unopened(
    database: Database, source: Path, tmp_path: Path
) -> None:
    """The other threads migrate to `identical`, pickled writes byte for byte, and nothing is run."""
    trap = tmp_path / "sprung"
    blob = pickle.dumps(Canary(trap))
    pickled_write(source, blob)
    pickled_write(source, b"no pickle at all", thread="sends")
    params = {"threads": ["simple", "sends"]}
    migration = Migration(database.dsn, source, tmp_path / "e", params, max_export_tasks=1)
    report = migration.all()
    assert report["verdict"] == "identical"
    kept = [row for row in rows(database.dsn)["checkpoint_writes"] if row[7] == "pickle"]
    assert [(row[0], bytes(row[8])) for row in kept] == [
        ("sends", b"no pickle at all"),
        ("simple", blob),
    ]
    assert not trap.exists()
    pickle.loads(blob)
    assert trap.exists()  # the trap would have sprung


# --- at the user's choice -----------------------------------------------------------------------


@dataclass(frozen=True)
class Moved:
    """The pickled thread, migrated twice. `source` may be opened by `SqliteSaver`."""

    source: Path
    database: Database
    reports: list[dict[str, Any]]


@pytest.fixture(scope="module")
def moved(postgres_server: TestServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moved]:
    """The fixture's DataFrame, and values of a graph of our own, under `allow_pickle`."""
    folder = tmp_path_factory.mktemp("pickled")
    source, copy = folder / "source.sqlite", folder / "copy.sqlite"
    shutil.copyfile(FIXTURE, source)
    with SqliteSaver.from_conn_string(str(source)) as saver:
        saver.serde = unpickling()
        frames(saver).invoke({"items": {"b", "a"}}, config_of("frames"))
    shutil.copyfile(source, copy)
    params = {"threads": ["pickle", "frames"], "allow_pickle": True}
    with postgres_server.database() as target:
        runs = [Migration(target.dsn, source, folder / name, params) for name in ("1", "2")]
        yield Moved(copy, target, [run.all() for run in runs])


def frames(saver: Any) -> Any:
    """A graph whose state holds DataFrames, plain values, and exactly True."""
    import pandas as pd

    def first(state: Frames) -> Frames:
        return {"table": pd.DataFrame({"n": [1, 2], "t": ["x", None]}), "done": True, "n": 1.5}

    def second(state: Frames) -> Frames:
        return {"table": pd.concat([state["table"], state["table"]]), "n": state["n"] + 1}

    builder = StateGraph(Frames)
    builder.add_node("first", first)
    builder.add_node("second", second)
    builder.add_edge(START, "first")
    builder.add_edge("first", "second")
    builder.add_edge("second", END)
    return builder.compile(checkpointer=saver, interrupt_before=["second"])


class Frames(TypedDict, total=False):
    items: set[str]
    table: Any
    done: bool
    n: float


def picture(side: Side, key: Any) -> Any:
    """All of a checkpoint, with the versions as the application wrote them.

    A set has no order, so one value may be pickled in two ways, which then are two versions.
    """
    found = side.get(key)
    assert found is not None
    checkpoint: dict[str, Any] = {**found.checkpoint}
    values = {name: spelled(value) for name, value in checkpoint.pop("channel_values").items()}
    entries = {"": checkpoint.pop("channel_versions"), **checkpoint.pop("versions_seen")}
    plain = {n: {c: v.split(".")[:3] for c, v in seen.items()} for n, seen in entries.items()}
    writes = [(task, channel, spelled(v)) for task, channel, v in found.pending_writes or ()]
    return found.config, found.parent_config, found.metadata, checkpoint, values, plain, writes


def spelled(value: Any) -> Any:
    """A DataFrame with its types; anything else with its type."""
    import pandas as pd

    if isinstance(value, pd.DataFrame):
        return repr(value.to_dict("split")), [str(kind) for kind in value.dtypes]
    if isinstance(value, dict):
        return {name: spelled(part) for name, part in value.items()}
    return type(value), value


def test_pickled_threads_read_equal(moved: Moved) -> None:
    """Both savers with `pickle_fallback` read the same values, types, parents, metadata, writes."""
    keys = [key for key in keys_of(moved.source) if key[0] in ("pickle", "frames")]
    assert moved.reports[0]["verdict"] == "identical"
    assert moved.reports[0]["counts"]["checkpoints"]["live"] == len(keys) == 4 + 3
    with (
        sqlite_side(moved.source, unpickling()) as before,
        postgres_side(moved.database.dsn, unpickling()) as after,
    ):
        for key in keys:
            assert picture(after, key) == picture(before, key)
        assert order_differences(before, after, keys) == []


def test_pickled_values_are_blobs_of_type_pickle_and_true_is_inline(moved: Moved) -> None:
    """No value but exactly True stands in JSONB."""
    live = rows(moved.database.dsn)
    kinds = {(row[0], row[2]): row[4] for row in live["checkpoint_blobs"]}
    assert {kinds["pickle", name] for name in ("extra", "log", "n")} == {"pickle"}
    assert ("frames", "done") not in kinds
    inline = [json.loads(row[5])["channel_values"] for row in live["checkpoints"]]
    assert {name for values in inline for name in values} == {"done"}
    assert all(values in ({}, {"done": True}) for values in inline)


def test_pickled_writes_stay_the_same_bytes(moved: Moved) -> None:
    """Even when checkpoints may be opened, writes are copied as they are."""
    expected = [row for row in write_rows(moved.source) if row[0] in ("pickle", "frames")]
    found = [(*row[:8], bytes(row[8])) for row in rows(moved.database.dsn)["checkpoint_writes"]]
    assert sorted(found) == expected
    assert "pickle" in {row[7] for row in expected}


def test_a_second_run_finds_all_identical(moved: Moved) -> None:
    """Pickling the same values again gives the same bytes."""
    assert moved.reports[1]["verdict"] == "identical"
    assert moved.reports[1]["counts"]["blobs"] == moved.reports[0]["counts"]["blobs"]


def test_the_report_warns_of_pickles(moved: Moved) -> None:
    """It names the threads, and says what the read-back did not run."""
    kinds = {warning["kind"]: warning for warning in moved.reports[0]["warnings"]}
    assert set(kinds["pickled"]["threads"]) == {"pickle", "frames"}
    assert kinds["unread"]["count"] >= 1
    assert "pickle_fallback" in kinds["pickled"]["message"]


def test_a_pickled_thread_goes_on(
    moved: Moved, postgres_server: TestServer, tmp_path: Path
) -> None:
    """The interrupted graph ends on PostgreSQL as on SQLite; in a copy, for other tests look at it too."""
    stayed = Path(shutil.copyfile(moved.source, tmp_path / "stayed.sqlite"))
    config = config_of("frames")
    with (
        postgres_server.database(template=moved.database.name) as database,
        SqliteSaver.from_conn_string(str(stayed)) as sqlite,
        PostgresSaver.from_conn_string(database.dsn) as postgres,
    ):
        sqlite.serde, postgres.serde = unpickling(), unpickling()
        before, after = frames(sqlite), frames(postgres)
        for value in (None, {"items": {"c"}}, None):
            left, right = before.invoke(value, config), after.invoke(value, config)
            assert spelled(right) == spelled(left)
        assert after.get_state(config).next == before.get_state(config).next


def whole(**more: Any) -> dict[str, Any]:
    versions = {"channel_versions": {"x": "1.5"}, "versions_seen": {}}
    return {"v": 4, "ts": "", "id": PICKLE, "channel_values": {"x": 1}, **versions, **more}


class Unpicklable:
    """It was pickled once, and cannot be again."""

    def __reduce__(self) -> Any:
        return threading.Lock, ()


HERE = "it cannot be unpickled on this worker"
NOT_REVIVED: dict[str, tuple[bytes, str]] = {
    "no module": (b"cno.such.module\nThing\n.", f"{HERE} (ModuleNotFoundError)"),
    "no class": (b"cpickle\nNoSuchName\n.", f"{HERE} (AttributeError)"),
    "cut": (pickle.dumps(whole())[:-9], f"{HERE} (UnpicklingError)"),
    "empty": (b"", f"{HERE} (EOFError)"),
    "no dict": (pickle.dumps(["no", "dict"]), "it is no pickled checkpoint"),
    "no values": (pickle.dumps({"v": 4}), "it has no map of channel_values"),
    "no versions": (
        pickle.dumps({"v": 4, "channel_values": {}}),
        "it has no channel_versions or versions_seen",
    ),
    "no map": (pickle.dumps(whole(channel_values=1)), "it has no map of channel_values"),
    "no version": (
        pickle.dumps(whole(channel_versions={})),
        "a pickled value belongs to a channel without a version (channel 'x')",
    ),
    "sends": (
        pickle.dumps(whole(v=3, pending_sends=[1])),
        "it is pickled and carries pending_sends",
    ),
    "not again": (
        pickle.dumps(whole(channel_values={"x": Unpicklable()})),
        "a value cannot be pickled by itself (TypeError)",
    ),
    "odd envelope": (
        pickle.dumps(whole(ts={1, 2})),
        "its envelope holds what JSONB would change (key 'ts')",
    ),
}


def test_a_pickle_that_cannot_be_revived_here_is_a_blocker(
    database: Database, source: Path, tmp_path: Path
) -> None:
    """A class that this worker lacks, or another content, is named; nothing is loaded."""
    for name, (blob, _) in NOT_REVIVED.items():
        pickled_checkpoint(source, blob, thread=f"hostile: {name}")
    params = {"threads": ["hostile: *", "simple"], "allow_pickle": True}
    migration = Migration(database.dsn, source, tmp_path / "e", params, max_export_tasks=1)
    with pytest.raises(Blocked):
        migration.all()
    why = {b["thread_id"].removeprefix("hostile: "): b["why"] for b in migration.report["blockers"]}
    assert why == {name: reason for name, (_, reason) in NOT_REVIVED.items()}
    assert {b["checkpoint_id"] for b in migration.report["blockers"]} == {PICKLE}
    assert rows(database.dsn) == EMPTY


# --- classes that msgpack names -----------------------------------------------------------------

TRAP = """
import pathlib
HERE = pathlib.Path(__file__).parent
(HERE / "imported").touch()
class Trap:
    def __init__(self, *args, **kwargs):
        (HERE / "called").touch()
    @classmethod
    def model_construct(cls, **kwargs):
        (HERE / "called").touch()
def trap(*args, **kwargs):
    (HERE / "called").touch()
"""


def exts(module: str) -> dict[str, bytes]:
    """A value for each way in which msgpack names a class or a function."""
    import ormsgpack

    def ext(code: int, *parts: Any) -> bytes:
        return ormsgpack.packb(ormsgpack.Ext(code, ormsgpack.packb(parts)))

    return {
        "called with one argument": ext(0, module, "Trap", 1),
        "called with arguments": ext(1, module, "Trap", (1, 2)),
        "called with keywords": ext(2, module, "Trap", {"a": 1}),
        "its method called": ext(3, module, "Trap", (), {}, "model_construct"),
        "an old model": ext(4, module, "Trap", {"a": 1}, "model_construct"),
        "a model": ext(5, module, "Trap", {"a": 1}, "model_construct"),
        "a function": ext(0, module, "trap", 1),
    }


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """A module that can be imported here, and tells that it was."""
    folder = tmp_path / "trap"
    folder.mkdir()
    name = f"trap_of_{tmp_path.name.replace('-', '_')}"
    (folder / f"{name}.py").write_text(TRAP)
    monkeypatch.syspath_prepend(str(folder))
    yield name, folder
    sys.modules.pop(name, None)


def sprung(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} & {"imported", "called"}


def test_classes_that_msgpack_names_are_never_imported_or_called(
    database: Database, tmp_path: Path, trap: tuple[str, Path]
) -> None:
    """A whole run over checkpoints and writes that name a trap leaves it unsprung."""
    module, folder = trap
    source = tmp_path / "source.sqlite"
    packer = JsonPlusSerializer()
    with closing(empty(source)) as conn:
        for n, (thread, value) in enumerate(exts(module).items()):
            whole = {
                "v": 4,
                "ts": "2025-01-01T00:00:00+00:00",
                "id": f"{n}",
                "channel_values": {"x": "PLACE"},
                "channel_versions": {"x": "1.5"},
                "versions_seen": {},
            }
            blob = packer.dumps_typed(whole)[1].replace(b"\xa5PLACE", value)
            conn.execute(
                "INSERT INTO checkpoints VALUES (?, '', ?, NULL, 'msgpack', ?, '{}')",
                (thread, f"{n}", blob),
            )
            conn.execute(
                "INSERT INTO writes (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx,"
                " channel, type, value) VALUES (?, '', ?, 't', '', 0, 'x', 'msgpack', ?)",
                (thread, f"{n}", value),
            )
    migration = Migration(database.dsn, source, tmp_path / "e", max_export_tasks=2)
    report = migration.all()
    assert report["verdict"] == "identical"
    assert report["counts"]["blobs"]["live"] == len(exts(module))
    assert module not in sys.modules
    assert sprung(folder) == set()
    named = {
        w["message"].split("'")[1] for w in report["warnings"] if w["kind"] == "strict_msgpack"
    }
    assert named == {f"{module}.Trap", f"{module}.trap"}
    packer.loads_typed(("msgpack", exts(module)["called with one argument"]))
    assert sprung(folder) == {"imported", "called"}  # the trap works
