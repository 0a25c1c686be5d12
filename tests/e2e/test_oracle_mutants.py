"""Whatever a conversion could get wrong, one thing at a time: the oracle finds all of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from include.checkpoint_migration.findings import Counts
from include.checkpoint_migration.settings import ThreadFilter
from include.checkpoint_migration.verify import verify_shard
from tests.support.oracle_rows import (
    RENAMED,
    TABLES,
    decrypt,
    saver_tables,
    the_shard,
    version,
)
from tests.support.oracle_sample import SAMPLE
from tests.support.postgres import Database, TestServer

COUNTS = Counts(len(SAMPLE.target), len(SAMPLE.writes), len(SAMPLE.blobs))


class Mutant(NamedTuple):
    """One wrong outcome of a conversion: what makes it, and the table and column where it shows."""

    name: str
    table: str
    column: str
    sql: str

    @property
    def keeps_counts(self) -> bool:
        return self.sql.startswith("UPDATE")


def row(thread: str, id: str, ns: str = "") -> str:
    return f"thread_id = '{thread}' AND checkpoint_ns = '{ns}' AND checkpoint_id = '{id}'"


def blob(channel: str, of: str, thread: str = "plain", ns: str = "") -> str:
    place = f"thread_id = '{thread}' AND checkpoint_ns = '{ns}'"
    return f"{place} AND channel = '{channel}' AND version = '{of}'"


def checkpoint(change: str, where: str) -> str:
    return f"UPDATE checkpoints SET checkpoint = {change} WHERE {where}"


def put(path: str, value: str, where: str) -> str:
    return checkpoint(f"jsonb_set(checkpoint, '{{{path}}}', '{value}')", where)


def drop(path: str, where: str) -> str:
    return checkpoint(f"checkpoint #- '{{{path}}}'", where)


def reword(old: str, new: str, where: str) -> str:
    return checkpoint(f"replace(checkpoint::text, '{old}', '{new}')::jsonb", where)


def metadata(path: str, value: str, where: str) -> str:
    return update("checkpoints", f"metadata = jsonb_set(metadata, '{{{path}}}', '{value}')", where)


def update(table: str, change: str, where: str) -> str:
    return f"UPDATE {table} SET {change} WHERE {where}"


def delete(table: str, where: str) -> str:
    return f"DELETE FROM {table} WHERE {where}"


def swap(table: str, column: str, one: str, other: str, where: str) -> str:
    """Two rows change places, which a unique key allows in three steps."""
    return "; ".join(
        update(table, f"{column} = '{new}'", f"{where} AND {column} = '{old}'")
        for old, new in ((one, "999"), (other, one), ("999", other))
    )


def add(table: str, where: str, **changed: str) -> str:
    """A copy of a row with other values."""
    columns = {
        "checkpoints": "parent_checkpoint_id type checkpoint metadata",
        "checkpoint_blobs": "type blob",
        "checkpoint_writes": "channel type blob task_path",
    }[table]
    names = TABLES[table].split() + columns.split()
    values = ", ".join(changed.get(name, name) for name in names)
    return f"INSERT INTO {table} ({', '.join(names)}) SELECT {values} FROM {table} WHERE {where}"


def flip(byte: int) -> str:
    return f"blob = set_byte(blob, {byte}, get_byte(blob, {byte}) # 1)"


P1, P2, CLASH2 = row("plain", "1"), row("plain", "2"), row("clash", "2")
ABSENT, WAS_TRUE = row("clash", "3"), row("clash", "4")
WHOLE1, WHOLE2, THIRD1 = row("whole", "1"), row("whole", "2"), row("third", "1")
M2, COUNT1 = blob("messages", version(2)), blob("count", version(1))
SNAP = "thread_id = 'delta'"
COUNT, FIRST = "channel = 'count'", f"thread_id = 'plain' AND version = '{version(1)}'"
SENDS = "thread_id = 'third' AND channel = '__pregel_tasks'"
ONE = "checkpoint_id = '1'"
T1, T2 = "task_id = 'task-1'", "task_id = 'task-2'"
OTHER_STATE = blob("state", version(3) + RENAMED, "clash")
V1, V2, V3 = (f'"{version(n)}"' for n in (1, 2, 3))
OLD_B = "channel_versions,branch:to:b"
SHARED = ".00000000000000000042"
C, B, W = TABLES

ROWS = [
    ("a checkpoint is lost", C, "", delete(C, P2)),
    ("the first checkpoint is lost", C, "", delete(C, row("clash", "1"))),
    ("the last checkpoint is lost", C, "", delete(C, WHOLE2)),
    ("a checkpoint is doubled", C, "", add(C, P2, checkpoint_id="'3'")),
    ("a checkpoint trails behind all", C, "", add(C, P2, thread_id="'zz'")),
    ("another namespace", C, "", update(C, "checkpoint_ns = 'sub:2'", "checkpoint_ns = 'sub:1'")),
    ("another thread", C, "", update(C, "thread_id = 'Plain'", P2)),
    ("two checkpoints are swapped", C, "checkpoint", swap(C, "checkpoint_id", "1", "2", SNAP)),
    ("a parent is lost", C, "parent_checkpoint_id", update(C, "parent_checkpoint_id = NULL", P2)),
    ("its own parent", C, "parent_checkpoint_id", update(C, "parent_checkpoint_id = '2'", P2)),
    ("an empty parent", C, "parent_checkpoint_id", update(C, "parent_checkpoint_id = ''", P1)),
    ("the type column is set", C, "type", update(C, "type = 'msgpack'", P1)),
    ("metadata lost a key", C, "metadata", update(C, "metadata = metadata - 'deep'", P2)),
    ("metadata has a key of the config", C, "metadata", metadata("thread_id", '"plain"', P1)),
    ("metadata: true became 1", C, "metadata", metadata("deep,a,0", "1", P2)),
    ("metadata: 1 became true", C, "metadata", metadata("deep,a,1", "true", P2)),
    ("metadata: 1 became a text", C, "metadata", metadata("deep,a,1", '"1"', P2)),
    ("metadata: a digit", C, "metadata", metadata("big", "100000000000000000001", P2)),
]
ENVELOPES = [
    ("v changed", put("v", "3", P1)),
    ("v became a float", put("v", "4.0", P1)),
    ("v 3 stayed 3", put("v", "3", THIRD1)),
    ("v 2 became 4", put("v", "4", row("older", "2"))),
    ("v 1 became 2", put("v", "2", row("older", "1"))),
    ("a sibling may gain sends", put("v", "2", row("older", "4"))),
    ("an old channel is not renamed", reword("branch:to:a", "start:a", row("older", "4"))),
    ("an old channel led elsewhere", reword("branch:to:b", "branch:to:c", row("older", "4"))),
    ("two old channels have the lesser version", put(OLD_B, V1, row("older", "4"))),
    ("the id changed", put("id", '"2"', P1)),
    ("the time changed", put("ts", '"2025-03-04T05:06:07.000009+00:00"', P1)),
    ("updated_channels is reordered", put("updated_channels", '["messages", "count"]', P1)),
    ("updated_channels went from null to empty", put("updated_channels", "[]", P2)),
    ("updated_channels is lost", drop("updated_channels", P1)),
    ("an unknown field is lost", drop("note", P2)),
    ("a field is new", put("pending_sends", "[]", P1)),
    ("a number in an unknown field became a float", put("note,kept,0", "1.0", P2)),
    ("channel_versions is lost", drop("channel_versions", P1)),
    ("channel_versions is a list", put("channel_versions", "[]", P1)),
    ("a channel lost its version", drop("channel_versions,gone", P1)),
    ("a value without a version got one", put("channel_versions,loose", V2, P2)),
    ("an older version is claimed", put("channel_versions,messages", V1, P2)),
    ("a version is cut", put("channel_versions,gone", V1[:-3] + '"', P1)),
    ("a version is renamed by letters", put("channel_versions,gone", V1[:-1] + '.12a"', P1)),
    ("a version is renamed without a dot", put("channel_versions,gone", V1[:-1] + '12"', P1)),
    ("versions_seen lost a node", drop("versions_seen,__input__", P1)),
    ("versions_seen has one node more", put("versions_seen,agent", "{}", P1)),
    ("versions_seen lost a channel", drop("versions_seen,agent,topic", P2)),
    ("versions_seen has a channel more", put("versions_seen,agent,count", V2, P2)),
    ("versions_seen has an older version", put("versions_seen,agent,messages", V1, P2)),
    ("versions_seen has no map", put("versions_seen,agent", "1", P2)),
    ("versions_seen lacks a renamed version", put("versions_seen,agent,state", V3, CLASH2)),
    (
        "a rename reached another version's entry",
        put("versions_seen,old,state", f'"{version(2)}{RENAMED}"', CLASH2),
    ),
    ("an integer version is not padded", put("channel_versions,a", '"9"', WHOLE1)),
    ("an integer version stayed in a Python thread", put("channel_versions,a", "9", WHOLE1)),
    ("an integer seen is not padded", put("versions_seen,agent,a", "9", WHOLE2)),
    ("True is not inline", drop("channel_values,flag", P1)),
    ("True became 1", put("channel_values,flag", "1", P1)),
    ("True became false", put("channel_values,flag", "false", P1)),
    ("True of a JSON source is lost", drop("channel_values,t", row("json é", "1"))),
    ("a value stands inline too", put("channel_values,count", "1", P1)),
    ("an inline value is new", put("channel_values,gone", "true", P1)),
    ("a value without a version is lost", drop("channel_values,loose", P2)),
    ("a value without a version changed type", put("channel_values,loose,0", "1.0", P2)),
    ("a value without a version has true for 1", put("channel_values,loose,0", "true", P2)),
    ("a snapshot lost its marker", drop("channel_values,log", row("delta", "1"))),
    ("pending sends have a small version", put("channel_versions,__pregel_tasks", V1, THIRD1)),
    ("pending sends have no version", drop("channel_versions,__pregel_tasks", THIRD1)),
]
BLOBS = [
    ("a blob is lost", "blob", delete(B, M2)),
    ("a byte of a blob changed", "blob", update(B, flip(7), M2)),
    ("a blob is cut", "blob", update(B, "blob = substr(blob, 1, length(blob) - 1)", M2)),
    ("a blob has a byte more", "blob", update(B, r"blob = blob || '\x00'", M2)),
    ("a blob is packed in another way", "blob", update(B, r"blob = '\xcc01'", COUNT1)),
    ("a blob is NULL", "blob", update(B, "blob = NULL", M2)),
    ("a blob is marked empty", "type", update(B, "type = 'empty'", M2)),
    ("a blob has another type", "type", update(B, "type = 'json'", SNAP)),
    ("two channels are swapped", "blob", swap(B, "channel", "topic", "count", FIRST)),
    ("two versions are swapped", "blob", swap(B, "version", version(1), version(2), COUNT)),
    (
        "a blob is in another namespace",
        "blob",
        update(B, "checkpoint_ns = 's'", "checkpoint_ns = 'sub:1'"),
    ),
    (
        "a collision shares one content",
        "blob",
        update(
            B,
            f"blob = (SELECT blob FROM {B} WHERE {blob('state', version(3), 'clash')})",
            OTHER_STATE,
        ),
    ),
    ("a collision is not renamed", "blob", reword(RENAMED, "", CLASH2)),
    ("an absent value reads as another's", "blob", reword(SHARED, "", ABSENT)),
    ("True reads as another's value", "blob", reword(SHARED, "", WAS_TRUE)),
    ("True has a blob", "blob", add(B, COUNT1, channel="'flag'", blob=r"'\xc3'")),
    ("a snapshot lost its blob", "blob", delete(B, SNAP)),
    ("a value where the source has none", "blob", add(B, COUNT1, channel="'gone'")),
    ("a blob is unreferenced", "", add(B, M2, version=f"'{version(7)}'")),
    ("a blob of a thread without checkpoints", "", add(B, M2, thread_id="'orphans'")),
    ("a blob trails behind all", "", add(B, M2, thread_id="'zz'")),
    ("a blob has a version of its own", "", update(B, f"version = '{version(8)}'", M2)),
    ("pending sends are lost", "blob", delete(B, SENDS)),
    ("pending sends changed", "blob", update(B, r"blob = '\x90'", SENDS)),
    (
        "an encrypted value is in clear",
        "type",
        update(B, "type = 'msgpack'", "thread_id = 'secret'"),
    ),
    ("an encrypted value changed", "blob", update(B, flip(40), "thread_id = 'secret'")),
]
WRITES = [
    ("a write is lost", "", delete(W, T1)),
    ("an orphan write is lost", "", delete(W, "checkpoint_id = 'none'")),
    ("the last write is lost", "", delete(W, "checkpoint_id = 'nowhere'")),
    ("a write is doubled", "", add(W, T1, idx="idx + 10")),
    ("a write trails behind all", "", add(W, T1, thread_id="'zz'")),
    ("a write has another idx", "", update(W, "idx = 0", T1)),
    ("writes are renumbered", "", update(W, "idx = idx - 2", T2)),
    ("two writes of a task change places", "blob", swap(W, "idx", "2", "3", T2)),
    ("two tasks are swapped", "", swap(W, "task_id", "task-0", "task-1", ONE)),
    ("a write lost its task path", "task_path", update(W, "task_path = ''", T1)),
    ("a write is of another channel", "channel", update(W, "channel = 'topic'", T1)),
    ("a write has another type", "type", update(W, "type = 'json'", T1)),
    ("a write lost its type", "type", update(W, "type = NULL", T1)),
    ("a byte of a write changed", "blob", update(W, flip(3), T1)),
    ("a write belongs to another checkpoint", "", update(W, "checkpoint_id = '2'", T1)),
    ("a write belongs to another task", "", update(W, "task_id = 'task-3'", T1)),
    (
        "an orphan write found a home",
        "",
        update(W, "checkpoint_id = '2'", "checkpoint_id = 'nowhere'"),
    ),
]
MUTANTS = [
    *(Mutant(*mutant) for mutant in ROWS),
    *(Mutant(name, C, "checkpoint", sql) for name, sql in ENVELOPES),
    *(Mutant(name, B, column, sql) for name, column, sql in BLOBS),
    *(Mutant(name, W, column, sql) for name, column, sql in WRITES),
]


@pytest.fixture(scope="module")
def target(postgres_server: TestServer) -> Iterator[Database]:
    with saver_tables(postgres_server) as database:
        yield database


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    conn = SAMPLE.save(tmp_path_factory.mktemp("oracle") / "source.sqlite")
    yield conn
    conn.close()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_caught(frozen: sqlite3.Connection, target: Database, mutant: Mutant) -> None:
    """What a conversion gets wrong is found, in the table and column where it is."""
    with target.connect() as conn:
        SAMPLE.load(conn)
        for statement in mutant.sql.split("; "):
            assert conn.execute(statement.encode()).rowcount >= 1
        verdict = verify_shard(frozen, conn, "public", the_shard(), ThreadFilter(), decrypt=decrypt)
    places: set[Any] = {(found.table, found.column) for found in verdict.differences}
    assert (mutant.table, mutant.column) in places, verdict.differences
    assert verdict.found == len(verdict.differences)
    assert (verdict.counts == COUNTS) == mutant.keeps_counts


def test_two_thirds_of_the_mutants_keep_all_counts() -> None:
    """Most of what the oracle is tried on is what counting rows would never show."""
    assert sum(mutant.keeps_counts for mutant in MUTANTS) * 3 >= len(MUTANTS) * 2
