"""Live rows with the keys of ours and other content: refused, kept or replaced, as the user chose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.postgres import PostgresSaver

from include.checkpoint_migration.errors import TargetConflict, VerificationFailed
from tests.support.engine import Migration
from tests.support.faults import go_on, grow, live_rows, write_source
from tests.support.postgres import Database
from tests.support.sqlite_sources import listing

TABLES = ("checkpoints", "checkpoint_writes", "checkpoint_blobs")
LATEST = "(SELECT max(checkpoint_id) FROM checkpoints WHERE thread_id = 'anna')"
CHANGES = {
    "checkpoints": "UPDATE checkpoints SET metadata = metadata || '{\"mine\": true}'"
    f" WHERE thread_id = 'anna' AND checkpoint_id = {LATEST}",
    "checkpoint_writes": "UPDATE checkpoint_writes SET blob = '\\xa46d696e65' WHERE thread_id = 'anna'"
    " AND (checkpoint_id, task_id, idx) = (SELECT checkpoint_id, task_id, idx FROM checkpoint_writes"
    " WHERE thread_id = 'anna' ORDER BY 1, 2, 3 LIMIT 1)",
    "checkpoint_blobs": "UPDATE checkpoint_blobs SET blob = '\\x91a46d696e65' WHERE thread_id = 'anna'"
    " AND channel = 'said' AND version = (SELECT checkpoint -> 'channel_versions' ->> 'said'"
    f" FROM checkpoints WHERE thread_id = 'anna' AND checkpoint_id = {LATEST})",
}


DIFFERS = {  # what is named of each change
    "checkpoints": "metadata",
    "checkpoint_writes": "blob",
    "checkpoint_blobs": "checkpoint",
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "application").mkdir()
    return write_source(tmp_path / "application" / "app.sqlite")


def change(database: Database, table: str) -> dict[str, list[Any]]:
    """As the application: give one live row other content; all live rows then."""
    before = live_rows(database.dsn)
    database.execute(CHANGES[table])
    after = live_rows(database.dsn)
    assert [name for name in TABLES if before[name] != after[name]] == [table]
    assert len(set(after[table]) - set(before[table])) == 1
    return after


def seen(database: Database, thread: str = "anna") -> list[Any]:
    """What an application sees of a thread."""
    with PostgresSaver.from_conn_string(database.dsn) as saver:
        return [
            (item.checkpoint, item.metadata, item.parent_config, item.pending_writes)
            for item in saver.list({"configurable": {"thread_id": thread}})
        ]


def physical(database: Database) -> dict[str, Any]:
    """Which transaction wrote each row: one that was left is of an older one."""
    return {
        name: set(database.rows(f"SELECT xmin::text, ctid::text FROM {name}")) for name in TABLES
    }


@pytest.mark.parametrize("table", TABLES)
def test_fail_refuses_names_the_rows_and_changes_nothing(
    run: Callable[..., Migration], database: Database, source: Path, table: str
) -> None:
    """A differing live row is a terminal error that lists it, and nothing of the run is live."""
    run("first").all()
    now = change(database, table)
    grow(source, "carl")
    before = listing(source.parent)
    second = run("second")
    with pytest.raises(TargetConflict) as refused:
        second.all()
    assert not refused.value.transient
    report = second.report
    assert (report["verdict"], report["succeeded"]) == ("unproven", False)
    assert report["conflicts"]
    assert {conflict["thread_id"] for conflict in report["conflicts"]} == {"anna"}
    # content that differs gets a version of its own, so that it is the checkpoint that differs
    shown = "checkpoints" if table == "checkpoint_blobs" else table
    assert {conflict["table"] for conflict in report["conflicts"]} == {shown}
    assert {conflict["column"] for conflict in report["conflicts"]} == {DIFFERS[table]}
    assert live_rows(database.dsn) == now
    assert listing(source.parent) == before


@pytest.mark.parametrize("table", TABLES)
def test_keep_leaves_the_live_row_brings_the_rest_and_ends_different(
    run: Callable[..., Migration], database: Database, source: Path, table: str
) -> None:
    """A live row that is kept is listed, what is new comes in, and the verdict says `different`."""
    run("first").all()
    now = change(database, table)
    was_seen = seen(database)
    grow(source, "carl")
    second = run("second", "keep")
    with pytest.raises(VerificationFailed) as failed:
        second.all()
    assert not failed.value.transient
    report = second.report
    assert (report["verdict"], report["succeeded"]) == ("different", False)
    assert {conflict["thread_id"] for conflict in report["conflicts"]} == {"anna"}
    [kept] = [warning for warning in report["warnings"] if warning["kind"] == "kept"]
    assert kept["count"] == len(report["conflicts"])
    after = live_rows(database.dsn)
    for name, rows in now.items():
        assert set(rows) <= set(after[name])
    added = {row[0] for name in TABLES for row in set(after[name]) - set(now[name])}
    assert added == {"carl"}
    assert seen(database) == was_seen


@pytest.mark.parametrize("table", TABLES)
def test_replace_gives_the_live_row_the_sources_content(
    run: Callable[..., Migration], database: Database, source: Path, table: str
) -> None:
    """The application then sees what the source holds, and other rows are not even written."""
    run("first").all()
    original, was_seen = live_rows(database.dsn), seen(database)
    change(database, table)
    untouched = physical(database)
    report = run("second", "replace").all()
    assert (report["verdict"], report["succeeded"]) == ("identical", True)
    [replaced] = [warning for warning in report["warnings"] if warning["kind"] == "replaced"]
    now = live_rows(database.dsn)
    if table == "checkpoint_blobs":
        assert _without_versions(seen(database)) == _without_versions(was_seen)
    else:
        assert now == original
        assert seen(database) == was_seen
        assert replaced["count"] == 1
    rewritten = sum(len(untouched[name] - physical(database)[name]) for name in TABLES)
    assert rewritten == replaced["count"]


def _without_versions(listed: list[Any]) -> list[Any]:
    return [(item[0]["channel_values"], *item[1:]) for item in listed]


def test_replace_never_changes_a_blob_that_the_applications_own_checkpoint_needs(
    run: Callable[..., Migration], database: Database
) -> None:
    """Blobs are shared by version: the incoming content gets a version of its own instead."""
    run("first").all()
    change(database, "checkpoint_blobs")
    with PostgresSaver.from_conn_string(database.dsn) as saver:
        latest = saver.get_tuple({"configurable": {"thread_id": "anna"}})
        assert latest is not None
        assert latest.checkpoint["channel_values"]["said"] == ["mine"]
        ours = {**latest.checkpoint, "id": "ffffffff-0000-6000-8000-000000000000"}
        saver.put(latest.config, ours, {"source": "update", "step": 9, "parents": {}}, {})
    blobs = live_rows(database.dsn)["checkpoint_blobs"]
    report = run("second", "replace").all()
    assert report["verdict"] == "identical"
    assert set(blobs) <= set(live_rows(database.dsn)["checkpoint_blobs"])
    newest, replaced, *_ = seen(database)
    assert newest[0]["id"] == ours["id"]
    assert newest[0]["channel_values"]["said"] == ["mine"]
    assert len(replaced[0]["channel_values"]["said"]) == 4


def test_an_applications_blob_under_a_version_of_ours_is_no_conflict(
    run: Callable[..., Migration], database: Database
) -> None:
    """Content that is live under a version before the first run keeps it; ours comes in beside it."""
    first = run("first")
    first.to_staging()
    staging = first.run.settings.staging_schema
    [key] = database.rows(
        f"SELECT thread_id, checkpoint_ns, channel, version FROM {staging}.checkpoint_blobs"
        " WHERE thread_id = 'anna' AND channel = 'said' ORDER BY version LIMIT 1"
    )
    database.execute(
        "INSERT INTO checkpoint_blobs VALUES (%s, %s, %s, %s, 'msgpack', '\\x91a46d696e65')", *key
    )
    [mine] = live_rows(database.dsn)["checkpoint_blobs"]
    for choice in ("fail", "keep", "replace"):
        late = run(f"late-{choice}", choice)
        first.conclude()
        late.check()
        late.freeze()
        exports = late.export()
        late.load(exports)
        late.verify(exports)
        first = late
    late.promote()
    late.witness()
    assert late.conclude()["verdict"] == "identical"
    assert mine in live_rows(database.dsn)["checkpoint_blobs"]
    assert "mine" not in str(seen(database))


@pytest.mark.parametrize("choice", ["fail", "keep", "replace"])
def test_a_blob_written_after_the_export_is_never_overwritten(
    run: Callable[..., Migration], database: Database, choice: str
) -> None:
    """What the export could not know of is a conflict whatever was chosen, and the next run resolves it."""
    first = run("first", choice)
    first.to_staging()
    staging = first.run.settings.staging_schema
    database.execute(
        "INSERT INTO checkpoint_blobs SELECT thread_id, checkpoint_ns, channel, version, 'msgpack',"
        f" '\\x91a46d696e65' FROM {staging}.checkpoint_blobs WHERE channel = 'said' LIMIT 1"
    )
    now = live_rows(database.dsn)
    with pytest.raises(TargetConflict):
        first.promote()
    report = first.conclude()
    assert {conflict["table"] for conflict in report["conflicts"]} == {"checkpoint_blobs"}
    assert live_rows(database.dsn) == now
    assert run("second").all()["verdict"] == "identical"
    assert set(now["checkpoint_blobs"]) <= set(live_rows(database.dsn)["checkpoint_blobs"])


def test_what_hangs_on_a_checkpoint_that_is_kept_stays_out(
    run: Callable[..., Migration], database: Database, source: Path
) -> None:
    """Beside a checkpoint of the application's our writes and blobs of it do not come in."""
    first = run("first", "keep")
    exports = first.to_staging()
    staging = first.run.settings.staging_schema
    [(kept,)] = database.rows(
        f"SELECT max(checkpoint_id) FROM {staging}.checkpoints WHERE thread_id = 'anna'"
    )
    database.execute(
        "INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id,"
        " checkpoint, metadata) SELECT thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id,"
        ' checkpoint || \'{"channel_values": {}, "channel_versions": {}}\', metadata'
        f" FROM {staging}.checkpoints WHERE checkpoint_id = %s",
        kept,
    )
    mine = live_rows(database.dsn)["checkpoints"]
    promotion = first.promote()
    assert promotion.kept == 1
    with pytest.raises(VerificationFailed):
        first.witness()
    report = first.conclude()
    assert report["verdict"] == "different"
    now = live_rows(database.dsn)
    assert set(mine) <= set(now["checkpoints"])
    assert [row for row in now["checkpoint_writes"] if row[2] == kept] == []
    unused = database.rows(
        "SELECT count(*) FROM checkpoint_blobs b WHERE NOT EXISTS (SELECT 1 FROM checkpoints c,"
        " jsonb_each_text(c.checkpoint -> 'channel_versions') v WHERE c.thread_id = b.thread_id"
        " AND v.key = b.channel AND v.value = b.version)"
    )
    assert unused == [(0,)]
    assert sum(export.counts.checkpoints for export in exports) == len(now["checkpoints"])


@pytest.mark.parametrize("choice", ["fail", "keep", "replace"])
def test_identical_live_rows_are_left_as_they_are(
    run: Callable[..., Migration], database: Database, source: Path, choice: str
) -> None:
    """Whatever was chosen, a row that is live and equal is not written again."""
    run("first").all()
    with PostgresSaver.from_conn_string(database.dsn) as saver:
        go_on(saver, "anna")
    before, kept = live_rows(database.dsn), physical(database)
    grow(source, "carl")
    report = run("second", choice).all()
    assert report["verdict"] == "identical"
    assert report["conflicts"] == []
    now = physical(database)
    for name in TABLES:
        assert kept[name] <= now[name]
        assert set(before[name]) <= set(live_rows(database.dsn)[name])


def test_rows_of_other_threads_are_never_looked_at(
    run: Callable[..., Migration], database: Database
) -> None:
    """A run that takes some threads neither finds nor mends what differs in others."""
    run("first").all()
    now = change(database, "checkpoints")
    report = run("second", "replace", threads=["bert"]).all()
    assert report["verdict"] == "identical"
    assert live_rows(database.dsn) == now
