"""LangGraph.js moved half-way: read equal and gone on with through its own savers, from npm."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from include.checkpoint_migration.errors import TargetNotReady
from tests.support.engine import Migration
from tests.support.javascript import Application, postgres, sqlite
from tests.support.postgres import Database, TestServer

FIXTURES = Path(__file__).parent.parent / "fixtures"
Shown = dict[str, dict[str, list[dict[str, Any]]]]
# of what its nodes do to their objects, LangGraph.js's PostgresSaver stores nothing later on
CARELESS = "careless"
TASKS = "__pregel_tasks"


@dataclass
class Moved:
    """An application half-way: the source, a control that stays on SQLite, the target, the report."""

    app: Application
    source: Path
    control: Path
    database: Database
    report: dict[str, Any]
    before: Shown
    after: Shown


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Application:
    return Application(tmp_path_factory.mktemp("node"))


@pytest.fixture(scope="module")
def half(app: Application, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("half") / "app.sqlite"
    app.half(*sqlite(path))
    return path


@pytest.fixture(scope="module")
def moved(
    app: Application,
    half: Path,
    postgres_server: TestServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Moved]:
    folder = tmp_path_factory.mktemp("moved")
    source, control = folder / "source.sqlite", folder / "control.sqlite"
    for copy in (source, control):
        shutil.copy(half, copy)
    with postgres_server.database() as database:
        before = app.show(*sqlite(control))
        report = Migration(database.dsn, source, folder / "exports").all()
        after = app.show(*postgres(database.dsn))
        yield Moved(app, source, control, database, report, before, after)


def readable(tuples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What an application reads of checkpoints: all but how versions are spelled.

    Of `v < 4`, SqliteSaver makes an empty list of sends where PostgresSaver makes none.
    """
    found = []
    for shown in tuples:
        values = dict(shown["values"])
        if shown["envelope"]["v"] < 4 and values.get(TASKS) == "[]":
            del values[TASKS]
        kept = {k: v for k, v in shown.items() if k not in ("versions", "seen")}
        found.append({**kept, "values": values, "writes": sorted(shown["writes"])})
    return found


def test_a_half_way_application_reads_equal(moved: Moved) -> None:
    """Every checkpoint of every thread: values, revived classes, parents, writes, what comes next."""
    assert moved.report["verdict"] == "identical"
    assert moved.report["source"]["format"] == "langgraph.js (json)"
    assert moved.before.keys() == moved.after.keys()
    for thread, before in moved.before.items():
        after = moved.after[thread]
        assert readable(before["tuples"]) == readable(after["tuples"]), thread
        assert before["states"] == after["states"], thread
        assert all(shown["same_by_id"] for shown in after["tuples"]), thread


def test_versions_stay_counts_and_share_no_content(moved: Moved) -> None:
    """A version is the count it was, 0 where there was none, with a fraction only in a collision."""
    split = set()
    for thread, before in moved.before.items():
        for was, now in zip(before["tuples"], moved.after[thread]["tuples"], strict=True):
            expected = {**dict.fromkeys(was["values"], 0), **was["versions"]}
            assert expected.keys() == now["versions"].keys()
            for channel, version in now["versions"].items():
                if version != expected[channel]:
                    split.add((thread, channel))
                    assert 0 < abs(version - expected[channel]) < 1
                    assert (version < 0) == (expected[channel] == 0)
    forked = {("forked", channel) for channel in ("log", "n", "branch:to:a", "branch:to:b")}
    assert split == forked | {(CARELESS, "extra"), (CARELESS, "never")}


def test_values_without_a_version_and_undefined_are_among_them(moved: Moved) -> None:
    """The sample holds what it is to prove: most checkpoints have values without a version."""
    tuples = [shown for thread in moved.before.values() for shown in thread["tuples"]]
    without = [s for s in tuples if s["values"].keys() - s["versions"].keys()]
    assert len(without) > len(tuples) // 2
    assert {s["values"].get("extra") for s in moved.after["undefined"]["tuples"]} >= {"undefined"}
    odd = moved.after["odd values"]["tuples"][0]["values"]["extra"]
    for piece in ("nothing: undefined", "Map(1)", "Set(2)", "Uint8Array(2)", "/a+/gi", "1e+21"):
        assert piece in odd


def test_graphs_go_on_as_if_they_had_stayed(moved: Moved) -> None:
    """Interrupts, sends, forks, messages, subgraphs: each thread ends as on the control, step by step."""
    moved.app.rest(*sqlite(moved.control))
    moved.app.rest(*postgres(moved.database.dsn))
    stayed = moved.app.show(*sqlite(moved.control))
    went = moved.app.show(*postgres(moved.database.dsn))
    for thread, there in stayed.items():
        here = went[thread]
        assert len(there["tuples"]) > len(moved.before[thread]["tuples"]), thread
        if thread == CARELESS:
            # what a node changed without a version no PostgresSaver of LangGraph.js stores
            pieces = [[(s["next"], s["step"]) for s in side["states"]] for side in (there, here)]
            assert pieces[0] == pieces[1]
            continue
        assert there["states"] == here["states"], thread
        fractions = [v for shown in here["tuples"] for v in shown["versions"].values() if v % 1]
        assert bool(fractions) == (thread == "forked")
    again = Migration(
        moved.database.dsn, moved.source, moved.source.parent / "exports", {"on_conflict": "fail"}
    ).all()
    assert again["verdict"] == "identical"


def test_a_second_run_after_more_steps_on_sqlite_adds_them(
    app: Application, half: Path, database: Database, tmp_path: Path
) -> None:
    """Catching up: versions of the first run stay what they were, and all reads equal again."""
    source, shown = tmp_path / "source.sqlite", tmp_path / "shown.sqlite"
    shutil.copy(half, source)
    Migration(database.dsn, source, tmp_path / "exports").all()
    app.rest(*sqlite(source))
    with closing(sqlite3.connect(source)) as conn, closing(sqlite3.connect(shown)) as copy:
        conn.backup(copy)
    assert Migration(database.dsn, source, tmp_path / "exports").all()["verdict"] == "identical"
    before, after = app.show(*sqlite(shown)), app.show(*postgres(database.dsn))
    for thread in before:
        assert readable(before[thread]["tuples"]) == readable(after[thread]["tuples"]), thread
        assert before[thread]["states"] == after[thread]["states"], thread


@pytest.mark.parametrize("name", ["js-checkpoint-sqlite-1.0.4.sqlite", "javascript/0.1.5.sqlite"])
def test_real_files_read_equal(
    app: Application, database: Database, tmp_path: Path, name: str
) -> None:
    """Files of an older and of today's release; bytes of a write come back whole from PostgreSQL alone."""
    source, shown = tmp_path / "source.sqlite", tmp_path / "shown.sqlite"
    for copy in (source, shown):
        shutil.copy(FIXTURES / name, copy)
        copy.chmod(0o644)
    report = Migration(database.dsn, source, tmp_path / "exports").all()
    assert report["verdict"] == "identical"
    before, after = app.show(*sqlite(shown)), app.show(*postgres(database.dsn))
    assert before.keys() == after.keys()
    different = []
    for thread, was in before.items():
        pairs = zip(readable(was["tuples"]), readable(after[thread]["tuples"]), strict=True)
        different += [
            (thread, key, one[key], other[key])
            for one, other in pairs
            for key in one
            if one[key] != other[key]
        ]
    # SqliteSaver of LangGraph.js casts a write's value to TEXT before it reads it
    whole = [found for found in different if "<Buffer 00 ff>" in str(found[3])]
    assert different == whole
    assert len(whole) == (name.startswith("js-"))


def test_threads_of_an_older_release_go_on(
    app: Application, database: Database, tmp_path: Path
) -> None:
    """Of `v` 1: an interrupt, and sends that both savers rebuild, end as on the control."""
    source, control = tmp_path / "source.sqlite", tmp_path / "control.sqlite"
    for copy in (source, control):
        shutil.copy(FIXTURES / "javascript" / "0.1.5.sqlite", copy)
        copy.chmod(0o644)
    assert Migration(database.dsn, source, tmp_path / "exports").all()["verdict"] == "identical"
    threads = ("asked", "sends")
    for where in (sqlite(control), postgres(database.dsn)):
        app.rest(*where, only=threads)
    stayed, went = app.show(*sqlite(control)), app.show(*postgres(database.dsn))
    for thread in threads:
        assert "next" in stayed[thread]["states"][0]
        assert stayed[thread]["states"] == went[thread]["states"], thread
        assert went[thread]["tuples"][0]["envelope"]["v"] == 4


def test_tables_that_langgraph_js_made_are_accepted(
    app: Application, half: Path, database: Database, tmp_path: Path
) -> None:
    """Its setup() makes the tables of an older version: they are brought up to date, or that is asked for."""
    app.show(*postgres(database.dsn))
    assert database.rows("SELECT max(v) FROM checkpoint_migrations") == [(4,)]
    source = tmp_path / "source.sqlite"
    shutil.copy(half, source)
    refused = Migration(database.dsn, source, tmp_path / "exports", {"create_tables": False})
    with pytest.raises(TargetNotReady, match="version 4"):
        refused.all()
    assert Migration(database.dsn, source, tmp_path / "exports").all()["verdict"] == "identical"
    app.rest(*postgres(database.dsn))
    assert database.rows("SELECT max(v) FROM checkpoint_migrations") == [(9,)]


def test_forks_on_postgresql_are_what_the_report_warns_of(
    app: Application, moved: Moved, database: Database
) -> None:
    """LangGraph.js's PostgresSaver keeps one value of each version, so its own forks read another's."""
    (warning,) = [w for w in moved.report["warnings"] if w["kind"] == "javascript_forks"]
    assert "latest checkpoint are not concerned" in warning["message"]
    app.half(*postgres(database.dsn))  # nothing was migrated here
    native = app.show(*postgres(database.dsn))
    differ = [t for t in native if native[t]["states"] != moved.before[t]["states"]]
    assert differ == [CARELESS, "forked"]
