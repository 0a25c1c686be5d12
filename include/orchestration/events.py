"""Announces a migrated target to Airflow, so that other DAGs may be scheduled on it.

Which target it is, is known at run time alone: the tables are an asset that an alias of a fixed name
brings forth. A DAG is scheduled on the alias, or on the asset's own URI.
"""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import quote

from airflow.sdk import Asset, AssetAlias, get_current_context

from include import checkpoint_migration as engine

from .runs import say

MIGRATED = AssetAlias("migrated_langgraph_checkpoints")


def announce(run: engine.Run, result: engine.WitnessResult) -> None:
    """Emit the asset of a target whose rows are live and equal, with run, counts and digest as extra.

    Only on `identical`, only for a real run, and only once for it: not when a run that is done is
    looked at again. Whatever is in the way of it is said, and changes nothing.
    """
    fresh = result.verdict is engine.Verdict.IDENTICAL and result.late is None
    if not fresh or run.settings.rehearsal:
        return
    try:
        events: Any = get_current_context()["outlet_events"]
        events[MIGRATED].add(Asset(uri=uri_of(run)), extra=_extra(run, result))
    except Exception as error:  # noqa: BLE001 - the rows are live and proven: that must not turn red
        say(logging.WARNING, f"the asset event was not emitted: {engine.told_of(error)}")


def _extra(run: engine.Run, result: engine.WitnessResult) -> dict[str, Any]:
    live = result.live
    return {
        "dag_id": run.settings.dag_id,
        "run_id": run.settings.run_id,
        "verdict": result.verdict.value,
        "checkpoints": live and live.checkpoints,
        "writes": live and live.writes,
        "blobs": live and live.blobs,
        "digest": engine.digest_of_exports(run),
    }


def uri_of(run: engine.Run) -> str:
    """The live table `checkpoints` as an asset: where the server itself says it is, with all parts."""
    conn = run.connect()
    try:
        host, port, database = conn.info.host, conn.info.port, conn.info.dbname
    finally:
        conn.close()
    if not host or host.startswith("/"):
        host = "localhost"  # a socket, which has no name elsewhere
    if ":" in host:
        host = f"[{host}]"
    parts = (database, run.settings.target_schema, "checkpoints")
    return f"postgres://{host}:{port}/{'/'.join(quote(part, safe='') for part in parts)}"
