"""The engine that moves LangGraph's checkpoints from SQLite to PostgreSQL and proves it.

For every thread of the frozen source a migration ends in one of two states: all its checkpoints
and pending writes are live and read back equal, or the live tables are exactly as they were. The
source is never written. Any step may be killed and called again at any moment.

This is all that orchestration, plugins and tests outside may import. The engine knows nothing of
Airflow. Every function raises `MigrationError`s, which say whether another try may help.
"""

from .errors import MigrationError, SettingsInvalid, failures
from .model import Export, Load, Promotion, Receipt, ShardVerdict, Verdict
from .postgres import Connect
from .reporting.gather import conclude, conclude_unsettled, final_lines
from .run.lease import owner_of_process
from .run.run import Run
from .settings import Settings, parse_settings
from .steps.going_live import Outcome, promote_staging, verify_counts
from .steps.up_to_staging import (
    check_schema,
    export_threads,
    freeze_source,
    load_batch,
    plan_batches,
    plan_shards,
    verify_staged,
)

__all__ = [
    "Connect",
    "Export",
    "Load",
    "MigrationError",
    "Outcome",
    "Promotion",
    "Receipt",
    "Run",
    "Settings",
    "SettingsInvalid",
    "ShardVerdict",
    "Verdict",
    "check_schema",
    "conclude",
    "conclude_unsettled",
    "export_threads",
    "failures",
    "final_lines",
    "freeze_source",
    "load_batch",
    "owner_of_process",
    "parse_settings",
    "plan_batches",
    "plan_shards",
    "promote_staging",
    "verify_counts",
    "verify_staged",
]
