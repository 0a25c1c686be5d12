"""Rows that PostgreSQL has no place for: all are found at once and named, and the rest can migrate."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import pytest

from include.checkpoint_migration.errors import Blocked
from tests.support.engine import Migration, rows
from tests.support.postgres import Database, TestServer
from tests.support.readers import Unrevived, differences, keys_of, postgres_side, sqlite_side
from tests.support.sqlite_sources import saved

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
EMPTY = {"checkpoints": [], "checkpoint_blobs": [], "checkpoint_writes": []}
SECRET = "what-somebody-told-a-machine"
NO_UTF8 = b"\xff\xfe"
CHECKPOINTS = (
    "thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata"
)
WRITES = "thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, value"


def whole(**more: Any) -> bytes:
    """A checkpoint as msgpack, that is right but for `more`."""
    return msgpack.packb(
        {
            "v": 4,
            "ts": "2025-01-01T00:00:00+00:00",
            "id": "1",
            "channel_values": {"talk": [SECRET]},
            "channel_versions": {"talk": "1.5"},
            "versions_seen": {"__input__": {}},
            "updated_channels": None,
            **more,
        }
    )


def in_state(value: bytes) -> bytes:
    """A checkpoint whose one channel holds these bytes of msgpack."""
    return whole(channel_values={"talk": "PLACE"}).replace(b"\xa5PLACE", value)


class Rows:
    """Puts one bad row into a database, under a thread named for what is wrong with it."""

    def __init__(self, conn: sqlite3.Connection, name: str) -> None:
        self.conn, self.thread = conn, f"bad: {name}"

    def checkpoint(self, **columns: Any) -> None:
        row = {"thread_id": self.thread, "checkpoint_ns": "", "checkpoint_id": "1"}
        row |= {"parent_checkpoint_id": None, "type": "msgpack", "checkpoint": whole()}
        row |= {"metadata": json.dumps({"said": SECRET}).encode(), **columns}
        self._insert("checkpoints", CHECKPOINTS, row)

    def write(self, **columns: Any) -> None:
        row = {"thread_id": self.thread, "checkpoint_ns": "", "checkpoint_id": "1"}
        row |= {"task_id": "task", "task_path": "", "idx": 0, "channel": "talk", "type": "msgpack"}
        row |= {"value": msgpack.packb([SECRET]), **columns}
        self._insert("writes", WRITES, row)

    def _insert(self, table: str, names: str, row: dict[str, Any]) -> None:
        marks = ("CAST(? AS TEXT)" if row[n] == NO_UTF8 else "?" for n in names.split(", "))
        self.conn.execute(
            f"INSERT INTO {table} ({names}) VALUES ({', '.join(marks)})",
            [row[name] for name in names.split(", ")],
        )


@dataclass(frozen=True)
class Homeless:
    """A bad row, and the blockers that must come of it: columns, each with a part of the reason."""

    put: Callable[[Rows], None]
    blockers: tuple[tuple[str, str], ...]


def checkpoint(column: str, why: str, **columns: Any) -> Homeless:
    return Homeless(lambda bad: bad.checkpoint(**columns), ((column, why),))


def write(column: str, why: str, **columns: Any) -> Homeless:
    return Homeless(lambda bad: bad.write(**columns), ((f"writes.{column}", why),))


def metadata(text: bytes | str, why: str) -> Homeless:
    return checkpoint("metadata", why, metadata=text if isinstance(text, bytes) else text.encode())


def _js(bad: Rows) -> None:
    fixture = (FIXTURES / "js-checkpoint-sqlite-1.0.4.sqlite").as_uri()
    with closing(sqlite3.connect(f"{fixture}?immutable=1", uri=True)) as conn:
        row = conn.execute("SELECT type, checkpoint, metadata FROM checkpoints LIMIT 1").fetchone()
    spelled_again = json.dumps(json.loads(row[1])).encode()
    bad.checkpoint(type=row[0], checkpoint=spelled_again, metadata=row[2])


def _everything(bad: Rows) -> None:
    bad.checkpoint(type="cbor", metadata=b"NaN", parent_checkpoint_id="a\0b")
    bad.write(channel="a\0b")
    bad.write(idx=1, value=None)


NUL, UTF8, NULL = "it holds NUL", "it is no UTF-8 text", "it is NULL"
DEEP = "nested deeper than the savers can read"
NUMBER = "a number beyond PostgreSQL's range"
SLASH = "it holds a backslash"
NO_MAP = "it is no msgpack map"

HOMELESS: dict[str, Homeless] = {
    # keys
    "NUL in the id": Homeless(
        lambda b: b.checkpoint(thread_id=f"{b.thread}\0"), (("thread_id", NUL),)
    ),
    **{
        f"{what} in {column}": checkpoint(column, why, **{column: value})
        for column in ("checkpoint_ns", "checkpoint_id", "parent_checkpoint_id")
        for what, value, why in (
            ("NUL", "a\0b", NUL),
            ("no UTF-8", NO_UTF8, UTF8),
            ("a BLOB", b"abc", UTF8),
        )
    },
    # the type and the whole
    "type NULL": checkpoint("type", NULL, type=None),
    "type unknown": checkpoint("type", "a type that is not known", type="cbor"),
    "type null": checkpoint("type", "a type that is not known", type="null"),
    "cipher unknown": checkpoint("type", "a cipher that is not supported", type="msgpack+rot13"),
    "pickle": checkpoint("type", "allow_pickle", type="pickle", checkpoint=b"\x80\x04N."),
    "checkpoint NULL": checkpoint("checkpoint", NULL, checkpoint=None),
    "no msgpack": checkpoint("checkpoint", NO_MAP, checkpoint=b"\xc1"),
    "a list": checkpoint("checkpoint", NO_MAP, checkpoint=b"\x90"),
    "cut": checkpoint("checkpoint", NO_MAP, checkpoint=whole()[:-1]),
    "something follows": checkpoint("checkpoint", NO_MAP, checkpoint=whole() + b"\xc0"),
    "no JSON": checkpoint("checkpoint", "no JSON object", type="json", checkpoint=b'{"v": 1'),
    # the envelope
    "odd key": checkpoint("checkpoint", "(key 'new')", checkpoint=whole(new=float("inf"))),
    "v 5": checkpoint("checkpoint", "its v is 5", checkpoint=whole(v=5)),
    "v text": checkpoint("checkpoint", "its v is no whole number", checkpoint=whole(v="4")),
    "v missing": checkpoint("checkpoint", "its v is no whole number", checkpoint=whole(v=None)),
    "no versions": checkpoint("checkpoint", "it has no", checkpoint=whole(channel_versions=None)),
    "a version that is a float": checkpoint(
        "checkpoint", "neither text nor integer", checkpoint=whole(channel_versions={"talk": 1.5})
    ),
    "versions_seen no map of maps": checkpoint(
        "checkpoint", "no map of maps", checkpoint=whole(versions_seen={"a": 1})
    ),
    "NaN in the envelope": checkpoint(
        "checkpoint", "what JSONB would change", checkpoint=whole(ts=float("nan"))
    ),
    "NUL in a node": checkpoint("checkpoint", NUL, checkpoint=whole(versions_seen={"a\0b": {}})),
    "NUL in a version": Homeless(
        lambda bad: bad.checkpoint(checkpoint=whole(channel_versions={"talk": "1\0"})),
        (("checkpoint", NUL), ("checkpoint", NUL)),  # of its blob, and of the envelope
    ),
    "NUL in a channel": Homeless(
        lambda bad: bad.checkpoint(
            checkpoint=whole(channel_values={"a\0b": SECRET}, channel_versions={"a\0b": "1.5"})
        ),
        (("checkpoint", NUL), ("checkpoint", NUL)),
    ),
    "a backslash in a channel": checkpoint(
        "checkpoint",
        SLASH,
        checkpoint=whole(channel_values={"a\\b": SECRET}, channel_versions={"a\\b": "1.5"}),
    ),
    "a value without a version": checkpoint(
        "checkpoint",
        "holds more than JSON can",
        checkpoint=whole(channel_values={"talk": [SECRET, b"bytes"]}, channel_versions={}),
    ),
    "sends at v 4": checkpoint(
        "checkpoint", "pending_sends at v 4", checkpoint=whole(pending_sends=[SECRET])
    ),
    "LangGraph.js spelled by another": Homeless(
        _js, (("checkpoint", "a spelling that is not its own"),)
    ),
    # bombs
    "state nested 100,000 deep": checkpoint(
        "checkpoint", DEEP, checkpoint=in_state(b"\x91" * 100_000 + b"\xc0")
    ),
    "envelope nested 100,000 deep": checkpoint(
        "checkpoint", DEEP, checkpoint=whole(ts="PLACE").replace(b"\xa5PLACE", b"\x91" * 100_000)
    ),
    "JSON nested 100,000 deep": checkpoint(
        "checkpoint", DEEP, type="json", checkpoint=b'{"channel_values": {"x": ' + b"[" * 100_000
    ),
    "a list of 4 billion": checkpoint(
        "checkpoint", NO_MAP, checkpoint=in_state(b"\xdd" + b"\xff" * 4)
    ),
    "a map of 4 billion": checkpoint("checkpoint", NO_MAP, checkpoint=b"\xdf" + b"\xff" * 4),
    "sends of 4 billion": checkpoint(
        "checkpoint",
        NO_MAP,
        checkpoint=whole(pending_sends="P").replace(b"\xa1P", b"\xdd" + b"\xff" * 4),
    ),
    "a channel without UTF-8": checkpoint(
        "checkpoint",
        "a lone surrogate",
        type="json",
        checkpoint=json.dumps(
            {"v": 4, "channel_values": {}, "channel_versions": {"\ud800": "1"}, "versions_seen": {}}
        ).encode(),
    ),
    "no values": checkpoint(
        "checkpoint", "it has no channel_values", checkpoint=msgpack.packb({"v": 4})
    ),
    "two kinds of versions": checkpoint(
        "checkpoint",
        "versions of two kinds",
        checkpoint=whole(v=3, channel_versions={"talk": "1.5", "n": 2}, pending_sends=[["a", 1]]),
    ),
    "a node without a name": checkpoint(
        "checkpoint", "a node's name is no text", checkpoint=whole(versions_seen={1: {}})
    ),
    "a number as a checkpoint": checkpoint("checkpoint", "it is a number", checkpoint=5),
    "a number as metadata": checkpoint("metadata", "it is a number", metadata=1.5),
    "a number as a value": write("value", "it is a number", value=7),
    # metadata
    "metadata NaN": metadata(f'{{"a": NaN, "b": "{SECRET}"}}', "NaN or Infinity"),
    "metadata Infinity": metadata('{"a": [-Infinity]}', "NaN or Infinity"),
    "metadata NUL": metadata(f'{{"a": "{SECRET}\\u0000"}}', NUL),
    "metadata NUL in a key": metadata(f'{{"{SECRET}\\u0000": 1}}', NUL),
    "metadata surrogate": metadata(f'{{"a": "{SECRET}\\ud800"}}', "a lone surrogate"),
    "metadata nested 20,000 deep": metadata("[" * 20_000 + "]" * 20_000, DEEP),
    "metadata 200,000 digits": metadata('{"a": ' + "9" * 200_000 + "}", NUMBER),
    "metadata 1e-20000": metadata('{"a": 1e-20000}', NUMBER),
    "metadata a long exponent": metadata('{"a": 1e-' + "9" * 5000 + "}", NUMBER),
    "metadata no UTF-8": metadata(b'{"a": "\xff"}', "it is not UTF-8"),
    "metadata no JSON": metadata(SECRET, "it is not JSON"),
    "metadata empty": metadata("", "it is not JSON"),
    # writes
    "write NULL": write("value", NULL, value=None),
    "write type NULL": write("type", NULL, type=None),
    **{
        f"write {what} in {column}": write(column, why, **{column: value})
        for column in ("task_id", "task_path", "channel", "type")
        for what, value, why in (("NUL", "a\0b", NUL), ("no UTF-8", NO_UTF8, UTF8))
    },
    **{
        f"write backslash in {column}": write(column, SLASH, **{column: "a\\b"})
        for column in ("task_id", "channel", "type")
    },
    "write idx too large": write("idx", "no 32-bit integer", idx=1 << 31),
    "write idx text": write("idx", "no 32-bit integer", idx="first"),
    "all at once": Homeless(
        _everything,
        (
            ("parent_checkpoint_id", NUL),
            ("writes.channel", NUL),
            ("writes.value", NULL),
            ("metadata", "NaN"),
            ("type", "not known"),
        ),
    ),
}


@dataclass(frozen=True)
class Refused:
    """The run that all of them stopped."""

    migration: Migration
    error: Blocked
    report: dict[str, Any]
    database: Database


@pytest.fixture(scope="module")
def refused(
    postgres_server: TestServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Refused]:
    """A real application's thread among all that has no place."""
    folder = tmp_path_factory.mktemp("blockers")
    source = saved(folder / "source.sqlite", "good", "42")
    with closing(sqlite3.connect(source, isolation_level=None)) as conn:
        for name, homeless in HOMELESS.items():
            homeless.put(Rows(conn, name))
    with postgres_server.database() as database:
        migration = Migration(database.dsn, source, folder / "exports", max_export_tasks=3)
        with pytest.raises(Blocked) as raised:
            migration.all()
        yield Refused(migration, raised.value, migration.report, database)


def test_every_one_is_found_in_one_run_and_named(refused: Refused) -> None:
    """The report lists thread, namespace, checkpoint, column and reason of each, and nothing else."""
    found: dict[str, list[tuple[str, str]]] = {}
    for blocker in refused.report["blockers"]:
        assert set(blocker) == {"thread_id", "checkpoint_ns", "checkpoint_id", "column", "why"}
        name = blocker["thread_id"].removeprefix("bad: ").rstrip("\0")
        found.setdefault(name, []).append((blocker["column"], blocker["why"]))
    assert found.keys() == HOMELESS.keys()
    for name, homeless in HOMELESS.items():
        assert [column for column, _ in found[name]] == [column for column, _ in homeless.blockers]
        for (_, why), (_, wanted) in zip(found[name], homeless.blockers, strict=True):
            assert wanted in why, name


def test_the_error_counts_them_and_says_what_to_do(refused: Refused) -> None:
    """It is terminal, names the first one, and points to the list and to the filter."""
    number = sum(len(homeless.blockers) for homeless in HOMELESS.values())
    assert refused.error.facts["blockers"] == number == len(refused.report["blockers"])
    assert not refused.error.transient
    assert refused.error.what.startswith(f"{number} values have no lossless place")
    assert "report.json" in refused.error.next
    assert refused.report["error"] == refused.error.as_dict()
    assert (refused.report["verdict"], refused.report["succeeded"]) == ("unproven", False)


def test_nothing_is_loaded(refused: Refused) -> None:
    """Neither the live tables nor any staging hold a row."""
    assert rows(refused.database.dsn) == EMPTY
    schemas = refused.database.rows("SELECT nspname FROM pg_namespace WHERE nspname ~ 'migration_'")
    assert schemas == []


def test_no_value_is_shown(refused: Refused) -> None:
    """Reasons name places, not contents: in reports, manifests, plan, log and error."""
    folder = refused.migration.folder
    told = [p.read_text() for p in folder.rglob("*") if p.suffix in (".json", ".html")]
    assert len(told) > 5
    for text in (*told, *refused.migration.log, str(refused.error), repr(refused.error.facts)):
        assert SECRET not in text


def test_without_their_threads_the_rest_migrates(
    refused: Refused, database: Database, tmp_path: Path
) -> None:
    """Excluding what was listed is enough."""
    excluded = {f"!{b['thread_id']}".replace("[", "[[]") for b in refused.report["blockers"]}
    source, params = refused.migration.source, {"threads": sorted(excluded)}
    report = Migration(database.dsn, source, tmp_path / "exports", params).all()
    assert report["verdict"] == "identical"
    assert {thread["thread_id"] for thread in report["threads"]["listed"]} == {"good", "42"}
    assert {row[0] for row in rows(database.dsn)["checkpoints"]} == {"good", "42"}


def test_a_thread_id_that_is_no_text_is_a_blocker(database: Database, tmp_path: Path) -> None:
    """Bytes that are no UTF-8, and a BLOB, are listed escaped, and a glob can exclude them."""
    source = saved(tmp_path / "source.sqlite", "good")
    with closing(sqlite3.connect(source, isolation_level=None)) as conn:
        Rows(conn, "").checkpoint(thread_id=NO_UTF8)
        Rows(conn, "").checkpoint(thread_id=b"a blob")
        Rows(conn, "").write(thread_id=b"a blob", checkpoint_id="2")
    migration = Migration(database.dsn, source, tmp_path / "exports")
    with pytest.raises(Blocked):
        migration.all()
    listed = [(b["thread_id"], b["column"]) for b in migration.report["blockers"]]
    assert sorted(listed) == [("\\xff\\xfe", "thread_id"), *[("a blob", "thread_id")] * 2]
    again = Migration(database.dsn, source, tmp_path / "e", {"threads": ["!a blob", "!\ufffd*"]})
    assert again.all()["verdict"] == "identical"


@pytest.mark.parametrize("kind", ["list", "map"])
@pytest.mark.parametrize("place", ["metadata", "sanitised metadata", "state", "envelope", "inline"])
def test_between_migrated_and_refused_there_is_nothing(
    database: Database, tmp_path: Path, place: str, kind: str
) -> None:
    """At each depth of nesting a row is a blocker or ends identical, never a crash or a difference."""
    source = saved(tmp_path / "source.sqlite", "good")
    depths = (50, 150, 250, 400, 480, 500, 700, 900, 950, 980, 995, 1000, 1020, 1030, 3000)
    with closing(sqlite3.connect(source, isolation_level=None)) as conn:
        for depth in depths:
            Rows(conn, str(depth)).checkpoint(**nested(place, kind, depth))
            if place == "sanitised metadata":
                Rows(conn, f"clean {depth}").checkpoint(**nested("metadata", kind, depth))
    params = {"on_blocker": "sanitize" if place == "sanitised metadata" else "fail"}
    migration = Migration(database.dsn, source, tmp_path / "e", params, max_export_tasks=1)
    with pytest.raises(Blocked):
        migration.all()
    blocked = {b["thread_id"] for b in migration.report["blockers"]}
    assert "bad: 50" not in blocked
    assert "bad: 3000" in blocked
    params |= {"threads": [f"!{thread}" for thread in blocked]}
    again = Migration(database.dsn, source, tmp_path / "e", params, max_export_tasks=1)
    assert again.all()["verdict"] == "identical"


def nested(place: str, kind: str, depth: int) -> dict[str, Any]:
    if "metadata" in place:
        dirt = b'"\\u0000"' if place.startswith("sanitised") else b"1"
        opening, closing_ = (b"[", b"]") if kind == "list" else (b'{"k":', b"}")
        return {"metadata": b'{"m":' + opening * depth + dirt + closing_ * depth + b"}"}
    value = (b"\x91" if kind == "list" else b"\x81\xa1k") * depth + b"\xc0"
    if place == "inline":
        blob = whole(channel_values={"talk": "PLACE"}, channel_versions={})
        return {"checkpoint": blob.replace(b"\xa5PLACE", value)}
    if place == "state":
        return {"checkpoint": in_state(value)}
    return {"checkpoint": whole(ts="PLACE").replace(b"\xa5PLACE", value)}


# --- sanitising ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("release", "number"), [("1.0.4", 3), ("2.0.6", 7)])
def test_old_metadata_is_sanitised_at_the_users_choice(
    database: Database, tmp_path: Path, release: str, number: int
) -> None:
    """The run ends identical, warns, and keeps every original byte for byte."""
    source, copy = tmp_path / "source.sqlite", tmp_path / "copy.sqlite"
    for path in (source, copy):
        shutil.copyfile(FIXTURES / f"checkpoint-sqlite-{release}.sqlite", path)
    params = {"on_blocker": "sanitize", "threads": ["inf", "nan", "nul", "meta", "simple"]}
    migration = Migration(database.dsn, source, tmp_path / "e", params, max_export_tasks=2)
    report = migration.all()
    assert report["verdict"] == "identical"
    (warning,) = [w for w in report["warnings"] if w["kind"] == "sanitized"]
    assert warning["count"] == number
    assert "checkpoint_migration.originals" in warning["message"]
    kept = {
        tuple(key): bytes(original)
        for *key, original in database.rows(
            "SELECT thread_id, checkpoint_ns, checkpoint_id, original"
            " FROM checkpoint_migration.originals WHERE column_name = 'metadata' AND run_key = %s",
            migration.run.settings.key,
        )
    }
    assert {key[0] for key in kept} == set(warning["threads"])
    with closing(sqlite3.connect(copy)) as conn:
        for key, original in kept.items():
            (metadata_,) = conn.execute(
                "SELECT metadata FROM checkpoints WHERE (thread_id, checkpoint_ns, checkpoint_id)"
                " = (?, ?, ?)",
                key,
            ).fetchone()
            assert original == metadata_
    keys = [key for key in keys_of(copy) if key[0] in params["threads"]]
    with (
        sqlite_side(copy, Unrevived()) as before,
        postgres_side(database.dsn, Unrevived()) as after,
    ):
        found = differences(before, after, keys)
        assert len(found) == len(kept) == number
        assert all(": metadata " in difference for difference in found)
        clean = after.get(next(key for key in kept if key[0] == "nan"))
        assert clean is not None
        assert json.dumps(clean.metadata, allow_nan=False)


def test_what_cannot_be_sanitised_stays_a_blocker(database: Database, tmp_path: Path) -> None:
    """Only the metadata of some rows can be mended; every other row still stops the run."""
    source = saved(tmp_path / "source.sqlite", "good")
    bad = {
        "NUL": metadata('{"a": "x\\u0000"}', ""),
        "two keys": metadata('{"a": 1, "a\\u0000": 2}', "two of its keys would become one"),
        "rounded": metadata('{"a": NaN, "b": 0.1234567890123456789}', "would be rounded"),
        "no JSON": metadata("{", "it is no JSON"),
        "digits": metadata('{"a": NaN, "b": ' + "9" * 200_000 + "}", "NaN"),
        "channel": HOMELESS["NUL in a channel"],
        "type": HOMELESS["type unknown"],
        "write": HOMELESS["write NULL"],
    }
    with closing(sqlite3.connect(source, isolation_level=None)) as conn:
        for name, homeless in bad.items():
            homeless.put(Rows(conn, name))
    params = {"on_blocker": "sanitize"}
    migration = Migration(database.dsn, source, tmp_path / "e", params, max_export_tasks=1)
    with pytest.raises(Blocked):
        migration.all()
    why = {b["thread_id"].removeprefix("bad: "): b["why"] for b in migration.report["blockers"]}
    assert why.keys() == bad.keys() - {"NUL"}
    for name, reason in why.items():
        assert bad[name].blockers[0][1] in reason
    assert rows(database.dsn) == EMPTY
    assert database.rows("SELECT * FROM checkpoint_migration.originals") == []
