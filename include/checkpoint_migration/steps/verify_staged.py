"""The plan of a run, and the proof of one of its shards in staging."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import msgspec

from .. import source
from ..model import Export, Shard, ShardVerdict
from ..postgres import connection
from ..run import ledger
from ..run.run import Run
from ..storage import open_regular
from ..verify import verify_shard


def plan_path(run: Run) -> Path:
    return run.folder.path / "plan.json"


def read_plan(run: Run) -> list[Shard]:
    with open_regular(plan_path(run)) as file:
        return msgspec.json.decode(file.read(), type=list[Shard])


def verify_shard_of(run: Run, export: Export) -> ShardVerdict:
    settings = run.settings
    shard = read_plan(run)[export.shard]
    if settings.verify == "counts":
        return ShardVerdict(export.shard, export.counts, 0)
    progress = run.progress(shard.checkpoints, "verified")
    with (
        closing(source.open_frozen(run.folder.frozen)) as frozen,
        connection(run.connect, "comparing staging with the frozen source") as conn,
    ):
        verdict = verify_shard(
            frozen,
            conn,
            settings.staging_schema,
            shard,
            settings.threads,
            decrypt=run.opener,
            originals=ledger.originals_of(conn, settings.key),
            allow_pickle=settings.allow_pickle,
            progress=progress.advance,
        )
    progress.done()
    return verdict
