"""Workers that share an object store and nothing else: S3, as moto's server speaks it on loopback."""

from __future__ import annotations

import fcntl
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from include import checkpoint_migration as engine
from include.checkpoint_migration.errors import (
    ExportCorrupted,
    SourceDrifted,
    SourceUnreadable,
    StorageFull,
    StorageRefused,
    StorageUnreachable,
)
from tests.support.engine import Migration, rows
from tests.support.faults import TO_CLIENT, TO_SERVER, Link, Proxy, grow, write_source
from tests.support.objects import BUCKET, SECRET, Store, s3_server
from tests.support.postgres import Database
from tests.support.stores import sqlite_store, write_many
from tests.support.undoing import Undo, dump
from tests.support.volumes import mounted

EXPORTS = f"s3://{BUCKET}/exports"
REPORTS = {"report.html", "report.json"}


@pytest.fixture
def store() -> Iterator[Store]:
    with s3_server() as server:
        yield server


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "app.sqlite", *(f"thread-{n}" for n in range(6)), turns=4)


class Workers:
    """A run of which every step is done by a worker that has seen nothing of the ones before."""

    def __init__(self, store: Store, database: Database, source: Path | str, tmp: Path) -> None:
        self.store, self.tmp = store, tmp
        params = {"batch_size": 5}
        self.first = Migration(database.dsn, source, EXPORTS, params, max_export_tasks=3)
        self.hired: list[Path] = []

    def another(self) -> Migration:
        scratch = self.tmp / f"worker-{len(self.hired)}"
        self.hired.append(scratch)
        return replace(self.first, objects=self.store.objects(scratch))

    def to_promote(self) -> list[Any]:
        self.another().check()
        self.another().freeze()
        exports = self.another().export()
        self.another().load(exports)
        self.another().verify(exports)
        return exports

    def all(self) -> dict[str, Any]:
        self.to_promote()
        self.another().promote()
        self.another().witness()
        return self.another().conclude()

    def left(self) -> set[str]:
        """What lies in the bucket of the run, by its own name there."""
        prefix = f"exports/{self.another().run.settings.folder_name}/"
        return {name.removeprefix(prefix) for name in self.store.names()}


def test_workers_that_share_a_bucket_alone_end_identical(
    store: Store, database: Database, source: Path, tmp_path: Path
) -> None:
    """Each step on another worker: all passes by the bucket, batches by byte range, and but the two
    reports nothing of the run stays in it. What lies beside the run is not touched.
    """
    store.put("exports/of-somebody-else", b"mine")
    workers = Workers(store, database, source, tmp_path)
    report = workers.all()
    assert (report["verdict"], report["succeeded"]) == ("identical", True), report["error"]
    assert report["counts"]["checkpoints"]["live"] == len(rows(database.dsn)["checkpoints"]) > 50
    assert workers.left() == {*REPORTS, "exports/of-somebody-else"}
    ranges = [asked.range for asked in store.fetched(".jsonl.zst")]
    assert len(ranges) > 10
    assert all(re.fullmatch(r"bytes=\d+-\d+", range_ or "") for range_ in ranges)
    assert any(not str(range_).startswith("bytes=0-") for range_ in ranges)


@pytest.mark.parametrize("step", ["check", "freeze"])
def test_a_workers_own_disk_that_is_full_is_told_as_that(
    store: Store, database: Database, source: Path, tmp_path: Path, step: str
) -> None:
    """No other export_uri would help: the setting that names the worker's folder is what is told."""
    workers = Workers(store, database, source, tmp_path)
    if step == "freeze":
        workers.another().check()
    with mounted(tmp_path / "small", "100k") as small:
        worker = replace(workers.first, objects=store.objects(small / "scratch"))
        with pytest.raises((StorageFull, StorageRefused)) as full:
            getattr(worker, step)()
    assert str(small) in full.value.what
    assert "CHECKPOINT_MIGRATION_SCRATCH name a larger disk" in full.value.next
    assert "export_uri" not in full.value.next
    assert full.value.transient is (step == "freeze")


def test_a_store_goes_by_the_bucket_and_an_undo_writes_there(
    store: Store, database: Database, source: Path, tmp_path: Path
) -> None:
    """The store's export, loads and proof pass by the bucket as the checkpoints' do; an undo on yet
    another worker takes all out again and leaves its `undo.json` in the bucket.
    """
    with sqlite_store(source) as items:
        write_many(items, 60)
    workers = Workers(store, database, source, tmp_path)
    report = workers.all()
    assert (report["verdict"], report["succeeded"]) == ("identical", True), report["error"]
    assert len(dump(database.dsn)["store"]) == 60
    undoing = Undo.of(workers.another(), objects=store.objects(tmp_path / "undoing"))
    undone, uri = engine.undo(undoing.run, undoing.asked)
    assert undone.outcome == "undone"
    assert uri.startswith(f"{EXPORTS}/")
    assert uri.removeprefix(f"s3://{BUCKET}/") in store.names()
    live = dump(database.dsn)
    assert not live["checkpoints"]
    assert not live["store"]


def test_a_worker_fetches_the_frozen_source_once(
    store: Store, database: Database, source: Path, tmp_path: Path
) -> None:
    """However many tasks a worker does; when the run is over it is gone from that worker too."""
    workers = Workers(store, database, source, tmp_path)
    freezer, exporter = workers.another(), workers.another()
    freezer.check()
    freezer.freeze()
    assert not store.fetched("source.sqlite")
    exports = exporter.export()
    exporter.load(exports)
    exporter.verify(exports)
    assert len(store.fetched("source.sqlite")) == 1
    exporter.promote()
    exporter.witness()
    assert exporter.conclude()["verdict"] == "identical"
    assert len(store.fetched("source.sqlite")) == 1
    frozen = set(tmp_path.rglob("source.sqlite*"))
    assert {path.relative_to(tmp_path).parts[0] for path in frozen} == {"worker-0"}

    again = Workers(store, database, source, tmp_path)
    again.another().check()  # the first worker's next run finds that the last one is over
    assert not list((tmp_path / "worker-0").rglob("source.sqlite*"))


def test_a_source_in_a_bucket_is_migrated_and_its_drift_is_found(
    store: Store, database: Database, source: Path, tmp_path: Path
) -> None:
    """It is fetched once while nobody changes it; one that changed is no source of a promote."""
    uri = f"s3://{BUCKET}/data/app.sqlite"
    store.put("data/app.sqlite", source.read_bytes())
    workers = Workers(store, database, uri, tmp_path)
    one = workers.another()
    one.check()
    one.freeze()
    assert len(store.fetched("app.sqlite")) == 1
    exports = workers.another().export()
    workers.another().load(exports)
    workers.another().verify(exports)
    grow(source, "thread-0")
    store.put("data/app.sqlite", source.read_bytes())
    with pytest.raises(SourceDrifted, match=r"checkpoints \+3 ~0 -0"):
        workers.another().promote()
    assert workers.another().conclude()["verdict"] == "unproven"
    again = Workers(store, database, uri, tmp_path / "again")
    report = again.all()
    assert (report["verdict"], report["source"]["uri"]) == ("identical", uri)


def test_a_copy_that_a_refused_run_fetched_goes_with_the_next_run(
    store: Store, database: Database, source: Path, tmp_path: Path
) -> None:
    """Conversations do not stay on a worker's disk because a run was refused."""
    store.put("data/app.sqlite", source.read_bytes())
    uri, scratch = f"s3://{BUCKET}/data/app.sqlite", tmp_path / "worker"
    scratch.mkdir(mode=0o700)
    of_somebody_else = scratch / "of-somebody-else"
    of_somebody_else.mkdir()
    nobody = {"threads": ["nobody-*"]}
    one = Migration(database.dsn, uri, EXPORTS, nobody, objects=store.objects(scratch))
    with pytest.raises(engine.MigrationError):
        one.check()
    assert len(list(scratch.rglob("fetched-*"))) == 1
    two = Migration(database.dsn, uri, EXPORTS, objects=store.objects(scratch))
    two.check()
    (fetched,) = scratch.rglob("fetched-*")
    assert fetched.parent == two.folder
    assert of_somebody_else.is_dir()


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_anew(
    store: Store, database: Database, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that waits while a folder is cleared away holds the lock that others ask for."""
    objects = store.objects(tmp_path / "worker")
    one = Migration(database.dsn, source, EXPORTS, objects=objects)
    two = Migration(database.dsn, source, EXPORTS, objects=objects)
    one.run.open_folder()
    with one.run.folder.in_use():
        pass
    removing, go_on, working = threading.Event(), threading.Event(), threading.Event()

    def slowly(path: Path, **_: Any) -> None:
        removing.set()
        assert go_on.wait(10)
        shutil.rmtree(path)

    monkeypatch.setattr(
        "include.checkpoint_migration.bucket.shutil", SimpleNamespace(rmtree=slowly)
    )

    def work() -> None:
        with one.run.folder.in_use():
            working.set()
            assert done.wait(10)

    done = threading.Event()
    clearing = threading.Thread(target=two.run.open_folder)
    worker = threading.Thread(target=work)
    clearing.start()
    assert removing.wait(10)
    worker.start()
    go_on.set()
    assert working.wait(10)
    clearing.join()
    (lock,) = one.folder.parent.glob(f"{one.folder.name}*.lock")
    with lock.open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    done.set()
    worker.join()


def test_a_source_that_somebody_writes_in_a_bucket_is_refused(
    store: Store, database: Database, source: Path, tmp_path: Path
) -> None:
    """A -wal beside it holds what the object does not, and no object is no database."""
    uri = f"s3://{BUCKET}/app.sqlite"
    workers = Workers(store, database, uri, tmp_path)
    with pytest.raises(SourceUnreadable, match="there is no object"):
        workers.another().check()
    store.put("app.sqlite/below", b"a prefix is no object")
    with pytest.raises(SourceUnreadable, match="there is no object"):
        workers.another().check()
    store.file_system().rm_file(f"{BUCKET}/app.sqlite/below")
    store.put("app.sqlite", source.read_bytes())
    store.put("app.sqlite-wal", b"what was written last")
    with pytest.raises(SourceUnreadable, match="lies its -wal"):
        workers.another().check()
    assert workers.another().conclude()["error"]["type"] == "SourceUnreadable"


def test_what_was_changed_in_the_bucket_is_refused(
    store: Store, database: Database, source: Path, tmp_path: Path
) -> None:
    """Neither a frozen source nor an export that is not what was put there is used."""
    workers = Workers(store, database, source, tmp_path)
    workers.another().check()
    workers.another().freeze()
    folder = f"exports/{workers.another().run.settings.folder_name}"
    frozen = store.file_system().cat_file(f"{BUCKET}/{folder}/source.sqlite")
    for changed in (frozen[:-1] + bytes([frozen[-1] ^ 1]), frozen[:-100]):
        store.put(f"{folder}/source.sqlite", changed)
        with pytest.raises(StorageRefused, match="not the one that was put there"):
            workers.another().export()
    store.put(f"{folder}/source.sqlite", frozen)
    exports = workers.another().export()
    export = store.file_system().cat_file(f"{BUCKET}/{folder}/0000.jsonl.zst")
    store.put(f"{folder}/0000.jsonl.zst", export[:50] + bytes([export[50] ^ 1]) + export[51:])
    with pytest.raises(ExportCorrupted):
        workers.another().load(exports)
    store.put(f"{folder}/0000.jsonl.zst", export[:-1])
    with pytest.raises(ExportCorrupted, match="found"):
        workers.another().load(exports)
    store.put(f"{folder}/0000.jsonl.zst", export)
    workers.another().load(exports)


class Forbidding:
    """A store whose bucket lets nothing be deleted: S3 says so of each object in a good answer."""

    def __init__(self, files: Any) -> None:
        self._files = files

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    def rm(self, path: list[str]) -> None: ...


def test_what_the_bucket_does_not_let_go_is_told(
    store: Store, database: Database, source: Path, tmp_path: Path
) -> None:
    """The migration is whole; that conversations stay in the bucket is said, with their number."""
    workers = Workers(store, database, source, tmp_path)
    workers.to_promote()
    workers.another().promote()
    workers.another().witness()
    files = Forbidding(store.file_system())
    objects = engine.Objects(lambda uri: (files, uri.removeprefix("s3://")), tmp_path / "last")
    last = replace(workers.first, objects=objects)
    assert last.conclude()["verdict"] == "identical"
    assert re.search(r"not cleaned up .* objects of the run could not be removed", str(last.log))
    assert "source.sqlite" in workers.left()


def test_an_error_of_a_fetched_source_names_the_object(
    store: Store, database: Database, tmp_path: Path
) -> None:
    """Nobody knows the file on a worker's disk that it was fetched to."""
    store.put("data/app.sqlite", b"no database at all, but long enough to be looked at" * 40)
    uri = f"s3://{BUCKET}/data/app.sqlite"
    one = Migration(database.dsn, uri, EXPORTS, objects=store.objects(tmp_path / "worker"))
    with pytest.raises(SourceUnreadable) as refused:
        one.check()
    told = f"{refused.value} {refused.value.facts}"
    assert uri in told
    assert str(tmp_path) not in told


class ResetOnce:
    """A rule that resets the first connection on which these words pass, some way into it."""

    def __init__(self, way: str, *words: bytes) -> None:
        self._way, self._words = way, words
        self.done = False

    def __call__(self, link: Link, way: str, data: bytes) -> bytes | None:
        asked = bytes(link.seen[TO_SERVER]) + (data if way == TO_SERVER else b"")
        last = asked[max(0, asked.rfind(b"HTTP/1.1") - 200) :]
        if self.done or way != self._way or not all(word in last for word in self._words):
            return data
        self.done = True
        link.forward(way, data[: len(data) // 2])
        link.cut()
        return None


@pytest.mark.parametrize(
    ("way", "words"),
    [
        (TO_SERVER, (b"PUT ", b"source.sqlite")),
        (TO_SERVER, (b"PUT ", b"0000.jsonl.zst")),
        (TO_CLIENT, (b"GET ", b"0000.jsonl.zst", b"ange: bytes=")),
        (TO_CLIENT, (b"GET ", b"source.sqlite", b"ange: bytes=")),
    ],
)
def test_a_connection_that_is_reset_midway_is_made_anew(
    store: Store,
    database: Database,
    source: Path,
    tmp_path: Path,
    way: str,
    words: tuple[bytes, ...],
) -> None:
    """In an upload and in a range read: the request is made again, and the run ends `identical`."""
    with Proxy(f"host=127.0.0.1 port={store.port}") as proxy:
        rule = proxy.rule = ResetOnce(way, *words)
        through = Store(proxy.port, store.asked)
        report = Workers(through, database, source, tmp_path).all()
    assert rule.done
    assert report["verdict"] == "identical", report["error"]


def test_a_store_that_does_not_answer_is_tried_again_and_named_without_its_secret(
    store: Store, database: Database, source: Path, tmp_path: Path
) -> None:
    """The failure is transient, names the place and no secret."""
    with Proxy(f"host=127.0.0.1 port={store.port}") as proxy:
        workers = Workers(Store(proxy.port, store.asked), database, source, tmp_path)
        workers.another().check()
        proxy.rule = lambda link, way, data: link.cut()
        with pytest.raises(StorageUnreachable) as caught:
            workers.another().freeze()
    assert caught.value.transient
    assert EXPORTS in str(caught.value)
    assert SECRET not in str(caught.value) + repr(caught.value.facts)
