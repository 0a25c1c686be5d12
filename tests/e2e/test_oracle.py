"""The oracle finds equal sides equal and nothing else, keeps to its shard, and survives bombs."""

from __future__ import annotations

import sqlite3
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from include.checkpoint_migration.errors import KeyNeeded
from include.checkpoint_migration.findings import Counts, ShardVerdict
from include.checkpoint_migration.model import Shard
from include.checkpoint_migration.settings import ThreadFilter
from include.checkpoint_migration.verify import verify_shard
from tests.support.oracle_rows import (
    KEY,
    TABLES,
    Sample,
    decrypt,
    pack,
    saver_tables,
    the_shard,
    version,
)
from tests.support.oracle_sample import SAMPLE
from tests.support.postgres import Database, TestServer

COUNTS = Counts(len(SAMPLE.target), len(SAMPLE.writes), len(SAMPLE.blobs))


def verdict_of(
    frozen: sqlite3.Connection, database: Database, shard: Shard | None = None, **options: Any
) -> ShardVerdict:
    options = {"decrypt": decrypt, **options}
    with database.connect() as conn:
        return verify_shard(frozen, conn, "public", shard or the_shard(), ThreadFilter(), **options)


@pytest.fixture(scope="module")
def target(postgres_server: TestServer) -> Iterator[Database]:
    with saver_tables(postgres_server) as database:
        yield database


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    conn = SAMPLE.save(tmp_path_factory.mktemp("oracle") / "source.sqlite")
    yield conn
    conn.close()


@pytest.fixture
def loaded(target: Database) -> Database:
    """The target holding what a right conversion of the sample gives."""
    with target.connect() as conn:
        SAMPLE.load(conn)
    return target


def test_equal_sides_have_no_difference(frozen: sqlite3.Connection, loaded: Database) -> None:
    """A target that holds what the source holds is found equal, each of its rows counted once."""
    seen: list[int] = []
    verdict = verdict_of(frozen, loaded, progress=seen.append)
    assert verdict == ShardVerdict(0, COUNTS, 0, ())
    assert sum(seen) == COUNTS.checkpoints


def test_differences_name_their_row(frozen: sqlite3.Connection, loaded: Database) -> None:
    """A difference says in which thread, namespace and checkpoint it is."""
    loaded.execute(
        "UPDATE checkpoint_blobs SET blob = '' WHERE version = %s AND channel = 'messages'",
        version(2),
    )
    [found] = verdict_of(frozen, loaded).differences
    assert (found.thread_id, found.checkpoint_ns, found.checkpoint_id) == ("plain", "", "2")
    assert found.why == "channel 'messages' has other bytes"


def test_differences_are_limited_and_all_counted(
    frozen: sqlite3.Connection, loaded: Database
) -> None:
    """An empty target lists a few missing rows, and counts every one."""
    loaded.execute("TRUNCATE checkpoints, checkpoint_blobs, checkpoint_writes")
    verdict = verdict_of(frozen, loaded, limit=3)
    assert len(verdict.differences) == 3
    assert verdict.found == COUNTS.checkpoints + COUNTS.writes
    assert verdict.counts == Counts(0, 0, 0)


def test_empty_sides_are_equal(tmp_path: Path, target: Database) -> None:
    """Nothing equals nothing."""
    empty = Sample()
    with target.connect() as conn:
        empty.load(conn)
    assert verdict_of(empty.save(tmp_path / "s"), target) == ShardVerdict(0, Counts(0, 0, 0), 0)


def test_shard_judges_its_own_threads_alone(frozen: sqlite3.Connection, loaded: Database) -> None:
    """What lies outside of a shard's range, on either side, is another shard's to judge."""
    loaded.execute("DELETE FROM checkpoints WHERE thread_id = 'delta'")
    loaded.execute("DELETE FROM checkpoint_blobs WHERE thread_id = 'delta'")
    assert verdict_of(frozen, loaded, the_shard(b"e")).found == 0
    assert verdict_of(frozen, loaded, the_shard(b"", b"clash")).found == 0
    assert verdict_of(frozen, loaded, the_shard(b"delta", b"delta")).found == 2


def test_bounds_that_postgres_cannot_hold_still_bound(
    frozen: sqlite3.Connection, loaded: Database
) -> None:
    """Bounds with NUL or broken UTF-8 take their own rows, no others."""
    for first, last, found in [
        (b"clash\0", b"delta\xff", 2),  # js comes later, clash before
        (b"delta\0", b"js\xff", 0),
        (b"\xff", b"\xff\xff", 0),
    ]:
        loaded.execute("DELETE FROM checkpoints WHERE thread_id = 'delta'")
        verdict = verdict_of(frozen, loaded, the_shard(first, last))
        missing = [d for d in verdict.differences if d.table == "checkpoints"]
        assert len(missing) == found


def test_rows_of_threads_not_taken_are_differences(
    frozen: sqlite3.Connection, loaded: Database
) -> None:
    """Staging must not hold a thread that the run did not take."""
    with loaded.connect() as conn:
        verdict = verify_shard(
            frozen, conn, "public", the_shard(), ThreadFilter(("!delta",)), decrypt=decrypt
        )
    assert {(d.thread_id, d.table) for d in verdict.differences} == {
        ("delta", "checkpoints"),
        ("delta", "checkpoint_blobs"),
    }


@pytest.mark.parametrize("collation", ["", ' COLLATE "C"'])
def test_order_and_lookups_use_the_indexes_there_are(
    frozen: sqlite3.Connection, loaded: Database, collation: str
) -> None:
    """With staging's indexes or the saver's, the verdict is the same."""
    with loaded.connect() as conn:
        conn.execute("DROP SCHEMA IF EXISTS staging CASCADE")
        conn.execute("CREATE SCHEMA staging")
        for name, key in TABLES.items():
            columns = ", ".join(c if c == "idx" else c + collation for c in key.split())
            conn.execute(f"CREATE TABLE staging.{name} (LIKE {name} INCLUDING DEFAULTS)".encode())
            conn.execute(f"CREATE UNIQUE INDEX ON staging.{name} ({columns})".encode())
        SAMPLE.load(conn, "staging")
        verdict = verify_shard(
            frozen, conn, "staging", the_shard(), ThreadFilter(), decrypt=decrypt
        )
    assert verdict == ShardVerdict(0, COUNTS, 0)


def test_other_connections_are_not_disturbed(frozen: sqlite3.Connection, loaded: Database) -> None:
    """A connection is given back as it was: idle, its settings and isolation its own."""
    with loaded.connect(autocommit=False) as conn:
        assert (
            verify_shard(frozen, conn, "public", the_shard(), ThreadFilter(), decrypt=decrypt).found
            == 0
        )
        assert conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        assert conn.execute("SHOW enable_seqscan").fetchone() == ("on",)
        assert conn.execute("SHOW transaction_isolation").fetchone() == ("read committed",)
        conn.execute("DELETE FROM checkpoints")


def test_encrypted_rows_need_their_key(frozen: sqlite3.Connection, loaded: Database) -> None:
    """Without the key nothing is called equal or different: it is an error."""
    with pytest.raises(KeyNeeded):
        verdict_of(frozen, loaded, decrypt=None)


def test_wrong_key_is_a_difference(frozen: sqlite3.Connection, loaded: Database) -> None:
    """A value that does not decrypt is not equal to anything."""
    other = EncryptedSerializer.from_pycryptodome_aes(key=KEY[::-1]).cipher
    verdict = verdict_of(frozen, loaded, decrypt=lambda _, data: other.decrypt("aes", data))
    assert {d.thread_id for d in verdict.differences} == {"secret"}


SANITISED: list[tuple[str, str, bool]] = [
    ('{"a": "x\\u0000y", "b\\u0000": 1}', '{"a": "xy", "b": 1}', True),
    ('{"a": "\\ud800z"}', '{"a": "\ufffdz"}', True),
    ('{"a": [NaN, -Infinity, 1]}', '{"a": [null, null, 1]}', True),
    ('{"a": "x\\u0000y"}', '{"a": "x y"}', False),
    ('{"a": NaN, "b": 1}', '{"a": null, "b": 2}', False),
]


@pytest.mark.parametrize(("metadata", "kept", "right"), SANITISED)
def test_sanitised_metadata_is_proven_with_its_original(
    tmp_path: Path, target: Database, metadata: str, kept: str, right: bool
) -> None:
    """Metadata may differ only as documented, and only where the ledger keeps the original."""
    sample = Sample()
    sample.checkpoint("t", "1", {}, {}, metadata=metadata)
    sample.target = [(*sample.target[0][:-1], kept)]
    with target.connect() as conn:
        sample.load(conn)
    frozen = sample.save(tmp_path / "s")
    place = ("t", "", "1")
    assert verdict_of(frozen, target).found == 1
    assert verdict_of(frozen, target, originals={place: b"{}"}).found == 1
    assert (verdict_of(frozen, target, originals={place: metadata.encode()}).found == 0) is right


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\x90"


BOMBS: dict[str, Callable[[], bytes]] = {
    "a value nested 100,000 deep": lambda: b"\x81\xaechannel_values\x81\xa1a" + nested(100_000),
    "a field nested 100,000 deep": lambda: b"\x81\xa1a" + nested(100_000),
    "a map that claims four billion entries": lambda: b"\xdf\xff\xff\xff\xff",
    "an array that claims two billion": lambda: b"\x81\xa1a\xdd\x7f\xff\xff\xff",
    "cut": lambda: SAMPLE.source[0][5][:-9],
    "followed by more": lambda: SAMPLE.source[0][5] + b"\x00",
    "not msgpack": lambda: b"\xc1",
    "empty": lambda: b"",
}


@pytest.mark.parametrize("kind", ["msgpack", "json"])
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_source_that_cannot_be_read_is_a_difference(
    tmp_path: Path, target: Database, bomb: Callable[[], bytes], kind: str
) -> None:
    """Bytes made to break a reader are a difference of that row; the others are judged."""
    sample = Sample()
    sample.checkpoint("t", "1", {"a": pack(1)}, {"a": version(1)})
    sample.checkpoint("t", "2", {"a": pack(1)}, {"a": version(1)})
    data = bomb()
    if kind == "json":
        data = b'{"v": 4, "channel_values": {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}"
    sample.source[0] = (*sample.source[0][:4], kind, data, b"{}")
    sample.target[0] = (*sample.target[0][:-1], "{}")
    with target.connect() as conn:
        sample.load(conn)
    verdict = verdict_of(sample.save(tmp_path / "s"), target)
    assert [(d.checkpoint_id, d.column) for d in verdict.differences] == [("1", "checkpoint")]


def test_groups_of_any_size_see_the_same(
    tmp_path: Path, target: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where rows are missing across the borders of groups, both sides are still paired right."""
    sample = Sample()
    for n in range(60):
        value = {"a": pack("x" * 400)}
        sample.checkpoint(f"t{n // 20}", f"{n:03}", value, {"a": version(n // 4)})
        sample.write(f"t{n // 20}", f"{n:03}", "task", 0, "a", pack(n))
    frozen = sample.save(tmp_path / "s")
    with target.connect() as conn:
        sample.load(conn)
    gone = [f"{n:03}" for n in (0, 1, 19, 20, 21, 22, 40, 59)]
    later = [f"{n:03}x" for n in range(0, 60, 7)]
    target.execute("DELETE FROM checkpoints WHERE checkpoint_id = ANY(%s)", gone)
    target.execute(
        "INSERT INTO checkpoints SELECT thread_id, '', checkpoint_id || 'x', NULL, NULL,"
        " checkpoint, metadata FROM checkpoints WHERE checkpoint_id || 'x' = ANY(%s)",
        later,
    )
    module = "include.checkpoint_migration.verify.pairs"
    for rows, size in [(1, 1 << 20), (2, 1 << 20), (7, 1 << 20), (200, 500), (200, 1 << 20)]:
        monkeypatch.setattr(f"{module}.GROUP_ROWS", rows)
        monkeypatch.setattr(f"{module}.GROUP_BYTES", size)
        verdict = verdict_of(frozen, target)
        missing = [d.checkpoint_id for d in verdict.differences if d.why == "the row is missing"]
        extra = [
            d.checkpoint_id for d in verdict.differences if d.why == "the source has no such row"
        ]
        assert missing == gone
        assert extra == [name for name in later if name[:3] not in gone]


def test_memory_holds_a_group_and_not_the_shard(
    tmp_path: Path, target: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty rows of a megabyte are compared a few at a time: a group of two, with its blobs, is in each
    hand, which read, hand over and compare.
    """
    sample = Sample()
    for n in range(40):
        value = bytes([n]) * (1 << 20)
        sample.checkpoint("t", f"{n:02}", {"a": pack(value)}, {"a": version(n)})
        sample.write("t", f"{n:02}", "task", 0, "a", value)
    frozen = sample.save(tmp_path / "s")
    with target.connect() as conn:
        sample.load(conn)
    del sample
    monkeypatch.setattr("include.checkpoint_migration.verify.pairs.GROUP_BYTES", 2 << 20)
    tracemalloc.start()
    try:
        verdict = verdict_of(frozen, target)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert verdict == ShardVerdict(0, Counts(40, 40, 40), 0)
    assert peak < 20 << 20
