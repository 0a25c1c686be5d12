"""Rows of LangGraph.js in PostgreSQL: what becomes of them, what has no place, what the oracle finds."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from include.checkpoint_migration.errors import Blocked
from include.checkpoint_migration.settings import ThreadFilter
from include.checkpoint_migration.source import open_frozen
from include.checkpoint_migration.verify import verify_shard
from tests.support.engine import Migration, rows
from tests.support.oracle_rows import the_shard
from tests.support.postgres import Database, TestServer
from tests.support.sqlite_sources import FIXTURES, saved

JS = FIXTURES / "js-checkpoint-sqlite-1.0.4.sqlite"
INSERT = "INSERT INTO checkpoints VALUES (?, '', ?, ?, 'json', ?, ?)"


def javascript(
    id: str,
    values: dict[str, Any],
    versions: dict[str, Any],
    seen: dict[str, dict[str, Any]] | None = None,
    **more: Any,
) -> bytes:
    """A checkpoint as JSON.stringify has it."""
    fields = {"v": 4, "id": id, "ts": "2026-11-21T19:04:42.661Z", "channel_values": values}
    fields |= {"channel_versions": versions, "versions_seen": seen or {}, **more}
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()


COLLIDING = [
    # three contents of one version, and one without; two of what was never written
    ("1", {"log": ["é"], "never": []}, {"log": 3}, {"a": {"log": 3}}),
    ("2", {"log": ["b"], "never": [1]}, {"log": 3}, {"a": {"log": 3}, "b": {"log": 2}}),
    ("3", {"log": ["c"], "never": []}, {"log": 3}, {"a": {"log": 2}}),
    ("4", {"never": [1], "yes": True}, {"log": 3, "yes": 4}, {"a": {"log": 3}}),
]


def write_colliding(path: Path) -> Path:
    shutil.copy(JS, path)
    path.chmod(0o644)
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        for step, *parts in COLLIDING:
            parent = str(int(step) - 1) if step > "1" else None
            blob = javascript(step, *parts)
            conn.execute(INSERT, ("collide", step, parent, blob, b'{"source":"loop","step":1}'))
    return path


@dataclass
class Migrated:
    database: Database
    frozen: Path
    report: dict[str, Any]


@pytest.fixture(scope="module")
def migrated(
    postgres_server: TestServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Migrated]:
    folder = tmp_path_factory.mktemp("rows")
    with postgres_server.database() as database:
        source = write_colliding(folder / "source.sqlite")
        migration = Migration(database.dsn, source, folder / "e", {"keep_exports": True})
        report = migration.all()
        yield Migrated(database, migration.folder / "source.sqlite", report)


def envelopes(dsn: str, thread: str) -> dict[str, dict[str, Any]]:
    found = rows(dsn)["checkpoints"]
    return {row[2]: json.loads(row[5]) for row in found if row[0] == thread}


def test_every_value_is_a_blob_under_a_number(migrated: Migrated) -> None:
    """No value is inline, `v` and counts stay, and the bytes are those of the source."""
    assert migrated.report["verdict"] == "identical"
    assert migrated.report["source"]["format"] == "langgraph.js (json)"
    assert migrated.report["counts"]["checkpoints"]["live"] == 45 + len(COLLIDING)
    found = rows(migrated.database.dsn)
    assert not any("channel_values" in json.loads(row[5]) for row in found["checkpoints"])
    blobs = {row[:4]: row[4:] for row in found["checkpoint_blobs"]}
    assert blobs["simple", "", "__pregel_tasks", "0"] == ("json", b"[]")
    assert blobs["simple", "", "log", "2"] == ("json", b'["in"]')
    assert blobs["collide", "", "log", "3"] == ("json", '["é"]'.encode())
    assert blobs["collide", "", "yes", "4"] == ("json", b"true")
    assert {kind for kind, _ in blobs.values()} == {"json"}


def test_of_several_contents_one_keeps_the_count(migrated: Migrated) -> None:
    """The others get a fraction of 15 digits, in `versions_seen` too where just that one was seen."""
    found = envelopes(migrated.database.dsn, "collide")
    versions = {step: found[step]["channel_versions"] for step in found}
    assert (versions["1"]["log"], versions["1"]["never"]) == (3, 0)
    own = [versions[step]["log"] for step in ("2", "3", "4")]
    assert len({3, *own}) == 4
    assert all(3 < version < 4 and len(repr(version)) == 16 for version in own)
    assert -1 < versions["2"]["never"] == versions["4"]["never"] < 0 == versions["3"]["never"]
    assert found["2"]["versions_seen"] == {"a": {"log": own[0]}, "b": {"log": 2}}
    assert found["3"]["versions_seen"] == {"a": {"log": 2}}
    assert found["4"]["versions_seen"] == {"a": {"log": own[2]}}


def test_number_ids_and_forks_are_warned_of(database: Database, tmp_path: Path) -> None:
    """`thread_id: 1` is '1.0' in its SQLite files; the text '1' is not taken for a number of Python."""
    source = write_colliding(tmp_path / "source.sqlite")
    with closing(sqlite3.connect(source, isolation_level=None)) as conn:
        conn.execute("UPDATE checkpoints SET thread_id = '1.0' WHERE thread_id = 'simple'")
        conn.execute("UPDATE checkpoints SET thread_id = '1' WHERE thread_id = 'nan'")
        conn.execute("DELETE FROM writes")
    report = Migration(database.dsn, source, tmp_path / "exports").all()
    warnings = {w["kind"]: w for w in report["warnings"]}
    assert warnings["javascript_numbers"]["threads"] == ["1.0"]
    assert {"integer_ids", "unwritable"}.isdisjoint(warnings)
    assert "javascript_forks" in warnings


def test_threads_of_both_languages_migrate_each_to_its_own_layout(
    database: Database, tmp_path: Path
) -> None:
    """One file, one run: Python's threads as ever, those of LangGraph.js beside them."""
    source = saved(tmp_path / "a.sqlite", "python-1", "python-2")
    with closing(sqlite3.connect(source, isolation_level=None)) as conn:
        conn.execute("ATTACH ? AS js", (str(JS),))
        conn.execute("INSERT INTO checkpoints SELECT * FROM js.checkpoints")
    report = Migration(database.dsn, source, tmp_path / "exports").all()
    assert report["verdict"] == "identical"
    assert report["source"]["format"].startswith("langgraph.js (json) beside")
    kinds = {
        thread: {
            type(v)
            for e in envelopes(database.dsn, thread).values()
            for v in e["channel_versions"].values()
        }
        for thread in ("python-1", "simple")
    }
    assert kinds == {"python-1": {str}, "simple": {int}}


HOMELESS = {
    "a version that is no count": (javascript("1", {"a": 1}, {"a": 1.5}), "neither text nor integer"),
    "a text as a version": (javascript("1", {"a": 1}, {"a": "1"}), "is no count (channel 'a')"),
    "a count below 0": (javascript("1", {"a": 1}, {"a": -1}), "is no count (channel 'a')"),
    "a count too large for a fraction": (javascript("1", {"a": 1}, {"a": 10**9}), "is no count"),
    "a count seen too large": (javascript("1", {}, {"a": 1}, {"n": {"a": 10**9}}), "is no count"),
    "values and not one version": (javascript("1", {"a": 1}, {}), "not one version"),
    "a v to come": (javascript("1", {}, {}, v=5), "its v is 5"),
    "sends of its own": (javascript("1", {}, {"a": 1}, v=1, pending_sends=[{}]), "pending_sends"),
}  # fmt: skip


def test_what_its_reader_could_not_read_is_a_blocker(database: Database, tmp_path: Path) -> None:
    """Each named with its place; without these threads the others migrate."""
    source = tmp_path / "source.sqlite"
    shutil.copy(JS, source)
    source.chmod(0o644)
    bumped = {"__snapshot_bumps__": {"n|log": 3}, "n": {"log": 3}}
    with closing(sqlite3.connect(source, isolation_level=None)) as conn:
        for thread, (blob, _) in HOMELESS.items():
            conn.execute(INSERT, (f"bad {thread}", "1", None, blob, b"{}"))
        for step, value in (("1", "a"), ("2", "b")):
            blob = javascript(step, {"log": value}, {"log": 3}, bumped)
            conn.execute(INSERT, ("bad bumps", step, None, blob, b"{}"))
    migration = Migration(database.dsn, source, tmp_path / "exports")
    with pytest.raises(Blocked):
        migration.all()
    listed = {b["thread_id"]: b["why"] for b in migration.report["blockers"]}
    assert listed.keys() == {"bad bumps", *(f"bad {thread}" for thread in HOMELESS)}
    for thread, (_, why) in HOMELESS.items():
        assert why in listed[f"bad {thread}"]
    assert "DeltaChannel" in listed["bad bumps"]
    params = {"threads": ["!bad *"]}
    assert Migration(database.dsn, source, tmp_path / "e", params).all()["verdict"] == "identical"


def at(id: str) -> str:
    return f"thread_id = 'collide' AND checkpoint_id = '{id}'"


def put(path: str, value: str, where: str) -> str:
    change = f"jsonb_set(checkpoint, '{{{path}}}', '{value}')"
    return f"UPDATE checkpoints SET checkpoint = {change} WHERE {where}"


def move(version: str, id: str, channel: str = "log") -> str:
    """Give a channel of a checkpoint, with its blob, another version."""
    old = (
        f"(SELECT checkpoint -> 'channel_versions' ->> '{channel}' FROM checkpoints WHERE {at(id)})"
    )
    blob = f"thread_id = 'collide' AND channel = '{channel}' AND version = {old}"
    return (
        f"UPDATE checkpoint_blobs SET version = '{version}' WHERE {blob};"
        f"{put(f'channel_versions,{channel}', version, at(id))}"
    )


YES = "thread_id = 'collide' AND channel = 'yes'"
B = "checkpoint_blobs"
MUTANTS = {
    "v became another": ("checkpoint", put("v", "3", at("1"))),
    "the time became another": ("checkpoint", put("ts", '"2026-11-21T19:04:42.662Z"', at("1"))),
    "a value is inline": ("checkpoint", put("channel_values", '{"yes": true}', at("4"))),
    "a true without its blob": ("blob", f"DELETE FROM {B} WHERE {YES}"),
    "a version became a text": ("checkpoint", put("channel_versions,yes", '"4"', at("4"))),
    "a version as Python pads it": (
        "checkpoint", put("channel_versions,yes", f'"{4:032}.{0.0:016}"', at("4")),
    ),
    "a value without a version has none": (
        "checkpoint",
        f"UPDATE checkpoints SET checkpoint = checkpoint #- '{{channel_versions,never}}' WHERE {at('1')}",
    ),
    "what was never written looks written": ("checkpoint", move("0.5", "2", "never")),
    "a count became another": ("checkpoint", move("5", "4", "yes")),
    "a fraction below the count": ("checkpoint", move("2.75", "2")),
    "a fraction that JavaScript spells otherwise": ("checkpoint", move("3.50", "2")),
    "a fraction of too many digits": ("checkpoint", move("3.12345678901234567891", "2")),
    "a fork reads its sibling's content": ("blob", put("channel_versions,log", "3", at("2"))),
    "an absent value came back": ("blob", put("channel_versions,log", "3", at("4"))),
    "a node that had seen the version looks triggered": (
        "checkpoint", put("versions_seen,a,log", "3", at("2")),
    ),
    "a node has seen more than it had": ("checkpoint", put("versions_seen,b,log", "3", at("2"))),
    "a node is lost": (
        "checkpoint",
        f"UPDATE checkpoints SET checkpoint = checkpoint #- '{{versions_seen,b}}' WHERE {at('2')}",
    ),
    "JSON of the same value in other bytes": (
        "blob", f"UPDATE {B} SET blob = 'true '::bytea WHERE {YES}",
    ),
    "a blob of another type": ("type", f"UPDATE {B} SET type = 'bytes' WHERE {YES}"),
    "a blob nobody reads": (
        "", f"INSERT INTO {B} SELECT thread_id, '', channel, '4.5', type, blob FROM {B} WHERE {YES}",
    ),
}  # fmt: skip


def differences(migrated: Migrated, spoil: str | None) -> list[tuple[str, str]]:
    with (
        closing(open_frozen(migrated.frozen)) as frozen,
        migrated.database.connect(autocommit=False) as conn,
    ):
        conn.execute("SET search_path = public")
        if spoil is not None:
            assert conn.execute(spoil.encode()).rowcount == 1
        verdict = verify_shard(frozen, conn, "public", the_shard(), ThreadFilter())
        conn.rollback()
    return [(found.table, found.column) for found in verdict.differences]


def test_the_oracle_finds_nothing_in_what_was_migrated(migrated: Migrated) -> None:
    """Without a mutant there is no difference."""
    assert differences(migrated, None) == []


@pytest.mark.parametrize("name", MUTANTS)
def test_the_oracle_finds(migrated: Migrated, name: str) -> None:
    """Whatever a conversion of these rows could get wrong, one thing at a time."""
    column, spoil = MUTANTS[name]
    assert column in {found for _, found in differences(migrated, spoil)}
