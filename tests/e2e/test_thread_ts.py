"""Databases of langgraph up to 0.1 (`thread_ts`) migrate; their own releases are the judges.

`tests/fixtures/thread_ts` holds a database of each generation and what its release read in it.
"""

from __future__ import annotations

import json
import pickle
import re
import shutil
import sqlite3
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base.id import UUID, uuid6
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from include.checkpoint_migration.convert import older, older_pickles
from include.checkpoint_migration.errors import (
    Blocked,
    SourceDrifted,
    SourceHasNoTables,
    VerificationFailed,
)
from include.checkpoint_migration.export import conversion, places, shard
from tests.support.engine import Migration, rows
from tests.support.postgres import Database
from tests.support.thread_ts import (
    PICKLED,
    RELEASES,
    by_hand,
    checkpoint,
    copied,
    params_of,
    recorded,
    saver,
    write,
)

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
TASKS = "__pregel_tasks"
FORMATS = {
    "0.0.38": "langgraph up to 0.1, thread_ts (timestamps; no writes; pickle)",
    "0.0.44": "langgraph up to 0.1, thread_ts (timestamps; no writes; json)",
    "0.0.49": "langgraph up to 0.1, thread_ts (timestamps; no writes; json)",
    "0.0.55": "langgraph up to 0.1, thread_ts (ids; no writes; json)",
    "0.0.69": "langgraph up to 0.1, thread_ts (ids; no writes; json)",
    "0.1.19": "langgraph up to 0.1, thread_ts (ids; writes; json)",
}


OF_A_COLLISION = re.compile(
    r"\.\d{20}$"
)  # what a content gets that does not keep the plain version


def plain_versions(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Versions as texts, whichever content kept the plain one, and without what stands for sends."""
    versions = checkpoint["channel_versions"]
    seen = checkpoint["versions_seen"]
    return {
        "channel_versions": {c: plain_version(v) for c, v in versions.items() if c != TASKS},
        "versions_seen": {
            node: {c: plain_version(v) for c, v in entries.items()}
            for node, entries in seen.items()
        },
    }


def plain_version(version: Any) -> str:
    return OF_A_COLLISION.sub("", padded(version))


def padded(version: Any) -> str:
    return f"{version:032}.{0.0:016}" if isinstance(version, int) else version


def time_of(checkpoint_id: str) -> datetime:
    """The instant that a uuid6 tells."""
    micros = (UUID(checkpoint_id).time - 0x01B21DD213814000) // 10
    return datetime.fromtimestamp(micros // 10**6, UTC).replace(microsecond=micros % 10**6)


def spelled(write_: Any) -> str:
    return json.dumps(write_, sort_keys=True)


def told(found: Any, ids: dict[str, str], revived: Callable[[Any], Any]) -> dict[str, Any]:
    """A checkpoint read on PostgreSQL as the record has it, by the `thread_ts` that it had."""
    moments = {new: old for old, new in ids.items()}
    whole = {**found.checkpoint, "channel_values": {**found.checkpoint["channel_values"]}}
    whole |= plain_versions(whole)
    sends = whole["channel_values"].pop(TASKS, [])
    whole["pending_sends"] = write.plain(sends)
    parent = found.parent_config
    return {
        "thread_ts": moments[found.config["configurable"]["checkpoint_id"]],
        "parent_ts": moments[parent["configurable"]["checkpoint_id"]] if parent else None,
        "checkpoint": write.plain(whole),
        "metadata": write.plain(revived(("json", json.dumps(found.metadata).encode()))),
        "pending_writes": sorted(map(spelled, write.plain(found.pending_writes))),
    }


def expected(then: dict[str, Any], ids: dict[str, str]) -> dict[str, Any]:
    """A checkpoint of the record as it has to be now."""
    whole = then["checkpoint"]
    now = {
        **whole,
        "id": whole.get("id", ids[then["thread_ts"]]),
        "pending_sends": whole.get("pending_sends", []),
        **plain_versions(whole),
    }
    metadata = then["metadata"] or {"step": -2}
    writes = sorted(map(spelled, then["pending_writes"]))
    return {**then, "checkpoint": now, "metadata": metadata, "pending_writes": writes}


@pytest.mark.parametrize("release", RELEASES)
def test_what_a_release_reads_in_its_database_is_what_today_reads_on_postgres(
    release: str, run_on: Callable[..., Migration], database: Database, tmp_path: Path
) -> None:
    """Every checkpoint with its parent, metadata and writes, in that order; a second run finds them."""
    source, record = copied(release, tmp_path), recorded(release)
    report = run_on(source, params_of(release)).all()
    assert (report["verdict"], report["differences"]) == ("identical", [])
    assert report["source"]["format"] == FORMATS[release]
    assert report["counts"]["checkpoints"]["live"] == sum(
        len(listed) for listed in record["threads"].values()
    )
    with saver(database.dsn) as today:
        for thread, listed in record["threads"].items():
            found = list(today.list(write.config_of(thread)))
            new = [each.config["configurable"]["checkpoint_id"] for each in found]
            ids = dict(zip((then["thread_ts"] for then in listed), new, strict=True))
            assert new == sorted(new, reverse=True)
            for moment, checkpoint_id in ids.items():
                made = UUID(checkpoint_id)
                assert (made.version, made.variant) == (6, "specified in RFC 4122")
                if moment != checkpoint_id:
                    assert time_of(checkpoint_id) == datetime.fromisoformat(moment)
            revived = today.serde.loads_typed  # that saver revived messages in metadata too
            now = [told(each, ids, revived) for each in found]
            assert now == [expected(each, ids) for each in listed]
            latest = today.get_tuple(write.config_of(thread))
            assert latest.config["configurable"]["checkpoint_id"] == ids[record["latest"][thread]]
    live = rows(database.dsn)
    assert run_on(source, params_of(release)).all()["verdict"] == "identical"
    assert rows(database.dsn) == live


def went_on(today: Any, thread: str) -> list[Any]:
    """What `write.went_on` recorded, by today's release."""
    graph = write.chain(first=write.first, second=write.second).compile(checkpointer=today)
    config, turns = write.config_of(thread), range(write.TURNS)
    if thread == "chat":
        talk = write.chat_graph().compile(checkpointer=today)
        said = [[write.HumanMessage(content=f"{n}", id=f"h{n}")] for n in turns]
        return [write.plain(talk.invoke({"messages": each}, config)) for each in said]
    if thread == "sends":
        fanned = write.sends_graph().compile(checkpointer=today)
        return [write.plain(fanned.invoke(None, config))]
    if thread == "interrupted":
        return [write.plain(graph.invoke(None, config))]
    return [write.plain(graph.invoke(write.started(f"again {n}"), config)) for n in turns]


@pytest.mark.parametrize("release", RELEASES)
def test_todays_graph_goes_on_as_the_release_itself_did(
    release: str, run_on: Callable[..., Migration], database: Database, tmp_path: Path
) -> None:
    """Four turns more grow the state as on the control, and each turn's last checkpoint is the latest."""
    run_on(copied(release, tmp_path), params_of(release)).all()
    with saver(database.dsn) as today:
        for thread, control in recorded(release)["went_on"].items():
            config = write.config_of(thread)
            before = [c.config["configurable"]["checkpoint_id"] for c in today.list(config)]
            assert went_on(today, thread) == control
            after = [c.config["configurable"]["checkpoint_id"] for c in today.list(config)]
            added = len(after) - len(before)
            assert added >= len(control)
            assert after[added:] == before
            assert today.get_tuple(config).config["configurable"]["checkpoint_id"] == after[0]


def test_the_sample_of_0_1_19_migrates_with_its_two_nan(
    run_on: Callable[..., Migration], tmp_path: Path
) -> None:
    """NaN in metadata is a blocker as everywhere, and sanitising finds a place for both rows."""
    source = Path(shutil.copyfile(FIXTURES / "langgraph-0.1.19.sqlite", tmp_path / "source.sqlite"))
    blocked = run_on(source)
    with pytest.raises(Blocked):
        blocked.all()
    assert [b["column"] for b in blocked.report["blockers"]] == ["metadata", "metadata"]
    report = run_on(source, {"on_blocker": "sanitize"}).all()
    assert report["verdict"] == "identical"
    counts = report["counts"]
    assert (counts["checkpoints"]["live"], counts["writes"]["live"]) == (42, 95)


@pytest.mark.parametrize("release", ["0.0.44", "0.1.19"])
def test_a_place_that_is_read_twice_is_the_same(
    release: str,
    run_on: Callable[..., Migration],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thread too large for memory is read by its ids, whatever these were in the database."""
    monkeypatch.setattr(places, "KEPT_BYTES", 1)
    assert run_on(copied(release, tmp_path)).all()["verdict"] == "identical"


# --- times ----------------------------------------------------------------------------------------

ISO = "2024-06-10T12:00:00"


def live_ids(database: Database) -> list[tuple[str, str | None]]:
    return [(row[2], row[3]) for row in rows(database.dsn)["checkpoints"]]


def test_times_become_ids_in_their_order_whatever_is_missing(
    run_on: Callable[..., Migration], database: Database, tmp_path: Path
) -> None:
    """A microsecond counts, a whole second has no fraction, a parent that is gone keeps its id."""
    moments = [f"{ISO}+00:00", f"{ISO}.000001+00:00", f"{ISO}.5+00:00", "2024-06-10T12:00:01+00:00"]
    gone = "2024-06-10T11:59:59.999999+00:00"
    parents = [gone, *moments[:-1]]
    source = by_hand(
        tmp_path / "a.sqlite", *(("t", *pair) for pair in zip(moments, parents, strict=True))
    )
    assert run_on(source).all()["verdict"] == "identical"
    found = live_ids(database)
    assert [time_of(new) for new, _ in found] == [datetime.fromisoformat(m) for m in moments]
    assert [parent for _, parent in found[1:]] == [new for new, _ in found[:-1]]
    assert time_of(found[0][1] or "") == datetime.fromisoformat(gone)
    assert found[-1][0] < str(uuid6())
    with closing(sqlite3.connect(source)) as conn:  # the parent is found again, by the same id
        row = ("t", gone, None, checkpoint(gone, 9), b'{"step": 0}')
        conn.execute("INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?)", row)
        conn.commit()
    assert run_on(source).all()["verdict"] == "identical"
    assert live_ids(database)[0] == (found[0][1], None)


def test_the_same_time_in_two_threads_and_two_spellings_are_four_ids(
    run_on: Callable[..., Migration], database: Database, tmp_path: Path
) -> None:
    """What is random in a uuid6 tells threads and texts apart; zones are brought to one clock."""
    spellings = [f"{ISO}+00:00", "2024-06-10T17:30:00+05:30", f"{ISO}Z", ISO]
    threads = [(thread, moment, None) for thread in ("a", "b") for moment in spellings]
    source = by_hand(tmp_path / "a.sqlite", *threads)
    assert run_on(source).all()["verdict"] == "identical"
    found = {new for new, _ in live_ids(database)}
    assert len(found) == len(threads)
    assert {time_of(new) for new in found} == {datetime.fromisoformat(f"{ISO}+00:00")}


def test_a_thread_that_went_from_times_to_ids_keeps_the_order_of_time(
    run_on: Callable[..., Migration], database: Database, tmp_path: Path
) -> None:
    """As texts the times sort after every id: the old saver would give the wrong one for the latest."""
    times = [f"2024-06-1{day}T12:00:00+00:00" for day in range(3)]
    later = "1ef2a5b0-0000-6000-8000-000000000000"  # of 14 June 2024
    chain = [None, *times, later]
    source = by_hand(tmp_path / "a.sqlite", *(("t", m, p) for p, m in pairwise(chain)))
    report = run_on(source).all()
    assert report["verdict"] == "identical"
    assert report["source"]["format"].startswith(
        "langgraph up to 0.1, thread_ts (timestamps and ids;"
    )
    found = live_ids(database)
    assert found[-1] == (later, found[-2][0])
    with saver(database.dsn) as today:
        assert today.get_tuple(write.config_of("t")).checkpoint["id"] == later


@pytest.mark.parametrize(
    "moment",
    ["2024-06-31T12:00:00+00:00", "2024-06-10", f"{ISO}.1234567+00:00", "1200-01-01T00:00:00"],
)
def test_what_is_like_a_time_and_is_none_is_a_blocker(
    moment: str, run_on: Callable[..., Migration], tmp_path: Path
) -> None:
    """As it stands it would be the latest for ever; as a parent, too, it has no id."""
    source = by_hand(tmp_path / "a.sqlite", ("t", moment, None), ("u", f"{ISO}+00:00", moment))
    migration = run_on(source)
    with pytest.raises(Blocked):
        migration.all()
    blockers = {(b["thread_id"], b["column"]) for b in migration.report["blockers"]}
    assert blockers == {("t", "thread_ts"), ("u", "parent_ts")}


# --- catching up, drift, filters ------------------------------------------------------------------


def test_a_row_that_is_added_while_the_run_goes_on_is_drift(
    run_on: Callable[..., Migration], tmp_path: Path
) -> None:
    """The application goes on under its old release: the run stops before promote, the next catches up."""
    source = by_hand(tmp_path / "a.sqlite", ("t", f"{ISO}+00:00", None))

    def writes(step: str) -> None:
        if step == "load":
            with closing(sqlite3.connect(source, isolation_level=None)) as conn:
                row = ("t", f"{ISO}.25+00:00", f"{ISO}+00:00", checkpoint(ISO, 2), b"{}")
                conn.execute("INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?)", row)

    migration = run_on(source)
    with pytest.raises(SourceDrifted):
        migration.all(writes)
    drift = migration.report["drift"]["checkpoints"]
    assert (drift["added"], drift["changed"], drift["removed"]) == (1, 0, 0)
    report = run_on(source).all()
    assert (report["verdict"], report["counts"]["checkpoints"]["live"]) == ("identical", 2)


def test_threads_are_filtered_as_ever(run_on: Callable[..., Migration], tmp_path: Path) -> None:
    """Globs take and leave out threads of that layout too, and the scope counts them."""
    report = run_on(copied("0.1.19", tmp_path), {"threads": ["c*", "!chat"]}).all()
    assert report["verdict"] == "identical"
    assert [each["thread_id"] for each in report["threads"]["listed"]] == ["count"]
    assert report["scope"]["threads"] == {"taken": 1, "left_out": 4}


def test_javascripts_own_thread_ts_is_refused_by_name(
    run_on: Callable[..., Migration], tmp_path: Path
) -> None:
    """LangGraph.js had such tables too; nothing of them was tried. Its threads can be left out."""
    source = by_hand(
        tmp_path / "a.sqlite", ("js-1", f"{ISO}.000Z", None), ("py", f"{ISO}+00:00", None)
    )
    with closing(sqlite3.connect(source, isolation_level=None)) as conn:
        conn.execute(
            "UPDATE checkpoints SET checkpoint = replace(checkpoint, ' ', '') WHERE thread_id = 'js-1'"
        )
        conn.execute(
            """UPDATE checkpoints SET checkpoint = '{"v":1,"channel_values":{}}' WHERE thread_id = 'js-1'"""
        )
    with pytest.raises(
        SourceHasNoTables,
        match=r"LangGraph\.js wrote checkpoints in it \(such as those of thread 'js-1'",
    ):
        run_on(source).all()
    assert run_on(source, {"threads": ["!js-*"]}).all()["verdict"] == "identical"


def test_waiting_sends_come_with_a_warning_that_says_what_they_need(
    run_on: Callable[..., Migration], tmp_path: Path
) -> None:
    """Today's serializer revives a Send of that time only where it is told to."""
    report = run_on(copied("0.1.19", tmp_path)).all()
    (warning,) = [w for w in report["warnings"] if w["kind"] == "json_classes"]
    assert "sends" in warning["threads"]
    assert "allowed_json_modules" in warning["message"]


# --- pickles --------------------------------------------------------------------------------------


def test_pickled_rows_are_a_blocker_unless_the_user_chose_them(
    run_on: Callable[..., Migration], database: Database, tmp_path: Path
) -> None:
    """With `allow_pickle` they become the JSON that the next release made of them, messages too."""
    source = copied(PICKLED, tmp_path)
    migration = run_on(source)
    with pytest.raises(Blocked):
        migration.all()
    assert {b["column"] for b in migration.report["blockers"]} == {"type"}
    report = run_on(source, {"allow_pickle": True}).all()
    assert report["verdict"] == "identical"
    assert database.rows("SELECT DISTINCT type FROM checkpoint_blobs") == [("json",)]
    assert "pickled" not in {w["kind"] for w in report["warnings"]}


def pickled(source: Path, **values: Any) -> Path:
    """The database with these channels in its one checkpoint, pickled as langgraph 0.0.38 did it."""
    whole = {
        "v": 1,
        "ts": ISO,
        "channel_values": values,
        "channel_versions": dict.fromkeys(values, 1),
        "versions_seen": defaultdict(dict, {"a": dict.fromkeys(values, 1)}),
    }
    with closing(sqlite3.connect(source, isolation_level=None)) as conn:
        conn.execute("UPDATE checkpoints SET checkpoint = ?", (pickle.dumps(whole),))
    return source


def test_what_json_does_not_hold_stays_pickled(
    run_on: Callable[..., Migration], database: Database, tmp_path: Path
) -> None:
    """Tuples, sets, dates and maps of other keys come back as they were, with pickle_fallback."""
    values = {
        "pair": (1, [2]),
        "set": {3},
        "when": datetime(2024, 6, 10, 12, tzinfo=UTC),
        "by number": {1: "one"},
        "text": "kůň",
    }
    source = by_hand(tmp_path / "a.sqlite", ("t", f"{ISO}+00:00", None))
    report = run_on(pickled(source, **values), {"allow_pickle": True}).all()
    assert report["verdict"] == "identical"
    assert "pickled" in {w["kind"] for w in report["warnings"]}
    with saver(database.dsn) as today:
        today.serde = JsonPlusSerializer(pickle_fallback=True)
        assert today.get_tuple(write.config_of("t")).checkpoint["channel_values"] == values


class Canary:
    """Whoever unpickles it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pickle_of_that_time_runs_nothing_even_where_pickles_are_allowed(
    run_on: Callable[..., Migration], tmp_path: Path
) -> None:
    """The unpickler knows what those releases wrote; any other name is refused, not looked up."""
    source, canary = (
        by_hand(tmp_path / "a.sqlite", ("t", f"{ISO}+00:00", None)),
        tmp_path / "canary",
    )
    pickled(source, log=[Canary(canary)])
    migration = run_on(source, {"allow_pickle": True})
    with pytest.raises(Blocked):
        migration.all()
    (blocker,) = migration.report["blockers"]
    assert "which langgraph did not write itself" in blocker["why"]
    assert not canary.exists()


# --- mutants: a defect in each rule of this layout ------------------------------------------------

CODE_MUTANTS: dict[str, tuple[str, Any, str, Any]] = {
    "an id of another time": (
        "0.0.49", shard, "id_of_time",
        lambda thread, moment: shifted(thread, moment.replace(b"2026", b"2027", 1)),
    ),
    "an id that does not tell threads apart": (
        "0.0.49", shard, "id_of_time", lambda _, moment: shifted(b"", moment),
    ),
    "an id that is new in every run": (
        "0.0.49", shard, "id_of_time",
        lambda thread, moment: shifted(thread, moment)[:24] + str(uuid6())[24:],
    ),
    "no id in the envelope": ("0.0.49", places, "with_id", lambda split, _: split),
    "another id in the envelope": (
        "0.0.49", places, "with_id", lambda split, _: WITH_ID(split, str(uuid6())),
    ),
    "no step where there was no metadata": ("0.0.44", conversion, "NO_METADATA", b"{}"),
    "the first step where there was no metadata": ("0.0.44", conversion, "NO_METADATA", b'{"step": -1}'),
    "integer versions as plain text": ("0.0.55", older, "padded", str),
    "integer versions without the point": ("0.0.49", older, "padded", lambda version: f"{version:>032}"),
    "a field of a message lost": ("0.0.38", older_pickles, "_exactly", None),
    "a pickled default lost": ("0.0.38", places, "split_older_pickle", None),
}  # fmt: skip
shifted = shard.id_of_time
WITH_ID = places.with_id


def without_ids(value: Any) -> Any:
    exact = EXACTLY(value)
    if isinstance(exact, dict) and "kwargs" in exact:
        exact["kwargs"].pop("id")
    return exact


EXACTLY = older_pickles._exactly


def without_true(blob: bytes) -> Any:
    split = OLDER_PICKLE(blob)
    return split._replace(values={c: raw for c, raw in split.values.items() if c != "note"})


OLDER_PICKLE = places.split_older_pickle
DEFINED_BELOW = {"split_older_pickle": without_true, "_exactly": without_ids}


@pytest.mark.parametrize("name", CODE_MUTANTS)
def test_a_defect_of_a_rule_is_found_by_the_oracle(
    name: str,
    run_on: Callable[..., Migration],
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each rule of the conversion, done wrong, fails `verify_staged`; nothing goes live."""
    release, module, rule, wrong = CODE_MUTANTS[name]
    monkeypatch.setattr(module, rule, wrong or DEFINED_BELOW[rule])
    migration = run_on(copied(release, tmp_path), params_of(release))
    with pytest.raises(VerificationFailed):
        migration.all()
    assert migration.report["verdict"] == "different"
    assert not any(rows(database.dsn).values())


ROW_MUTANTS = {
    "a write of another type": "UPDATE {s}.checkpoint_writes SET type = 'msgpack'",
    "a namespace": "UPDATE {s}.checkpoint_writes SET checkpoint_ns = 'x'",
    "a task path": "UPDATE {s}.checkpoint_writes SET task_path = '~'",
    "writes of another checkpoint": (
        "UPDATE {s}.checkpoint_writes SET checkpoint_id = reverse(checkpoint_id)"
    ),
    "a parent in the form it had": "UPDATE {s}.checkpoints SET parent_checkpoint_id = '2024-06-10T12:00:00+00:00'",
    "a blob of another type": "UPDATE {s}.checkpoint_blobs SET type = 'msgpack'",
}


@pytest.mark.parametrize("name", ROW_MUTANTS)
def test_a_wrong_row_of_this_layout_never_goes_live(
    name: str, run_on: Callable[..., Migration], database: Database, tmp_path: Path
) -> None:
    """What 0.1.19's rows could become by mistake is found in staging, with every count the same."""
    migration = run_on(copied("0.1.19", tmp_path))
    migration.check()
    migration.freeze()
    exports = migration.export()
    migration.load(exports)
    schema = migration.run.settings.staging_schema
    with database.connect() as conn:
        assert conn.execute(ROW_MUTANTS[name].format(s=f'"{schema}"').encode()).rowcount > 0
    with pytest.raises(VerificationFailed):
        migration.verify(exports)
    assert not any(rows(database.dsn).values())
