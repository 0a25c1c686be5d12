"""Real databases of earlier days, migrated and read back through LangGraph's own two savers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import Migration, rows
from tests.support.postgres import TestServer
from tests.support.readers import (
    REVIVING,
    Key,
    Reviving,
    differences,
    keys_of,
    order_differences,
    orphans,
    postgres_side,
    serializer,
    sqlite_side,
    write_rows,
)

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"


KEY = b"0123456789abcdef"


@dataclass(frozen=True)
class Case:
    """A database with the threads that are taken out, and what must be found in the rest of it."""

    name: str
    what: str
    checkpoints: int
    writes: int
    without: tuple[str, ...] = ()
    orphans: int = 0
    params: dict[str, Any] = field(default_factory=dict)
    key: bytes | None = None

    def takes(self, thread_id: str) -> bool:
        return not any(fnmatchcase(thread_id, glob) for glob in self.without)

    def serializer(self, reviving: Reviving) -> Any:
        return serializer(reviving, key=self.key, pickle="allow_pickle" in self.params)


SANITIZED = {"on_blocker": "sanitize"}  # NUL and NaN in the metadata of the older two
CASES = [
    Case("checkpoint-sqlite-3.1.2", "plain", 136, 299, without=("encrypted", "pickle"), orphans=2),
    Case("checkpoint-sqlite-3.1.2", "all", 143, 314, (), 2, {"allow_pickle": True}, KEY),
    Case("checkpoint-sqlite-2.0.6", "all", 124, 326, (), 2, SANITIZED, KEY),
    Case("checkpoint-sqlite-1.0.4", "all", 119, 58, (), 0, SANITIZED),
]


@dataclass(frozen=True)
class Migrated:
    """A case whose migration is done. `source` is a copy that may be opened by `SqliteSaver`."""

    case: Case
    source: Path
    dsn: str
    report: dict[str, Any]

    @property
    def keys(self) -> list[Key]:
        return [key for key in keys_of(self.source) if self.case.takes(key[0])]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case.name}-{case.what}")
def migrated(
    request: pytest.FixtureRequest,
    postgres_server: TestServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Migrated]:
    """The case's database in a fresh PostgreSQL."""
    case: Case = request.param
    folder = tmp_path_factory.mktemp("fixture")
    source, copy = folder / "source.sqlite", folder / "copy.sqlite"
    for path in (source, copy):
        shutil.copyfile(FIXTURES / f"{case.name}.sqlite", path)
    params = {**case.params, "threads": [f"!{t}" for t in case.without] or None}
    with postgres_server.database() as target:
        migration = Migration(
            target.dsn,
            source,
            folder / "exports",
            params,
            max_export_tasks=3,
            max_load_tasks=3,
            aes_key=case.key,
        )
        yield Migrated(case, copy, target.dsn, migration.all())


def test_verdict_is_identical_and_no_row_is_missing(migrated: Migrated) -> None:
    """The report says identical, and counts the rows that SQL finds in the file."""
    assert migrated.report["verdict"] == "identical"
    assert len(migrated.keys) == migrated.case.checkpoints
    counts = migrated.report["counts"]
    assert set(counts["checkpoints"].values()) == {migrated.case.checkpoints}
    assert set(counts["writes"].values()) == {migrated.case.writes}


@pytest.mark.parametrize("reviving", REVIVING)
def test_every_checkpoint_reads_back_equal(migrated: Migrated, reviving: Reviving) -> None:
    """Both savers read each checkpoint alike: values and their types, parents, metadata, writes."""
    case = migrated.case
    with (
        sqlite_side(migrated.source, case.serializer(reviving)) as before,
        postgres_side(migrated.dsn, case.serializer(reviving)) as after,
    ):
        sanitized = case.params == SANITIZED
        assert differences(before, after, migrated.keys, sanitized=sanitized) == []


def test_lists_in_the_same_order(migrated: Migrated) -> None:
    """`list` gives the same checkpoints in the same order, whole, limited, filtered and paged."""
    serde = migrated.case.serializer("raw")
    with sqlite_side(migrated.source, serde) as before, postgres_side(migrated.dsn, serde) as after:
        filtered = migrated.case.params != SANITIZED
        assert order_differences(before, after, migrated.keys, filtered=filtered) == []


def test_pending_writes_are_the_same_rows(migrated: Migrated) -> None:
    """Every row of pending writes is there byte for byte, and those without a checkpoint too."""
    expected = [row for row in write_rows(migrated.source) if migrated.case.takes(row[0])]
    found = [(*row[:8], bytes(row[8])) for row in rows(migrated.dsn)["checkpoint_writes"]]
    assert len(expected) == migrated.case.writes
    assert sorted(found) == expected
    without = [key for key in orphans(migrated.source) if migrated.case.takes(key[0])]
    assert len(without) == migrated.case.orphans


def test_nothing_but_the_source_is_in_the_target(migrated: Migrated) -> None:
    """The target has no checkpoint of its own, and no blob that no checkpoint refers to."""
    live = rows(migrated.dsn)
    assert [row[:3] for row in live["checkpoints"]] == sorted(migrated.keys)
    with postgres_side(migrated.dsn, migrated.case.serializer("raw")) as after:
        referred = {
            (*key[:2], channel, version)
            for key in migrated.keys
            for found in [after.get(key)]
            if found is not None
            for channel, version in found.checkpoint["channel_versions"].items()
        }
    assert {row[:4] for row in live["checkpoint_blobs"]} <= referred
