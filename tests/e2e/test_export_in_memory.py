"""A place that fits into memory and one that does not are exported to the byte alike."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from include.checkpoint_migration.export import places
from tests.support.engine import Migration
from tests.support.postgres import Database

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("checkpoint-sqlite-1.0.4.sqlite", None),
        ("checkpoint-sqlite-2.0.6.sqlite", b"0123456789abcdef"),
        ("checkpoint-sqlite-3.1.2.sqlite", b"0123456789abcdef"),
        ("eras/1.0.0.sqlite", None),
        ("js-checkpoint-sqlite-1.0.4.sqlite", None),
    ],
)
@pytest.mark.parametrize("kept", [0, 20_000])
def test_what_is_read_twice_comes_out_the_same(
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    key: bytes | None,
    kept: int,
) -> None:
    """Nothing in memory, a few checkpoints, or all of it: the export file and its blockers are one."""
    source = tmp_path / "source.sqlite"
    shutil.copyfile(FIXTURES / name, source)
    migration = Migration(database.dsn, source, tmp_path / "exports", aes_key=key)
    migration.check()
    migration.freeze()

    def exported() -> tuple[list[str], list[int]]:
        exports = migration.export()
        files = [Path(export.path) for export in exports]
        digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
        for file in files:
            file.unlink()
            file.with_name(file.name.replace(".jsonl.zst", ".manifest.json")).unlink()
        return digests, [export.blockers for export in exports]

    whole = exported()
    monkeypatch.setattr(places, "KEPT_BYTES", kept)
    assert exported() == whole
