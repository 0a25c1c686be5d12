"""The engine that moves LangGraph's checkpoints from SQLite to PostgreSQL and proves it.

For every thread of the frozen source a migration ends in one of two states: all its checkpoints
and pending writes are live and read back equal, or the live tables are exactly as they were. The
source is never written. Any step may be killed and called again at any moment.

This is all that orchestration, plugins and tests outside may import. The engine knows nothing of
Airflow. Every function raises `MigrationError`s, which say whether another try may help. There is a
function for each task of the DAG, with the task's name.

A name is imported when it is first asked for: whoever shows the page of a report needs no driver of
PostgreSQL, and no LangGraph.
"""

import ast
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bucket import run_folder
    from .errors import MigrationError, SettingsInvalid, TargetUnreachable, failures
    from .figures import format_about, format_seconds
    from .findings import Counts, Promotion, ShardVerdict, Verdict, WitnessResult
    from .folding import COLUMNS, folded
    from .foreign import told_of
    from .model import Export, Load, Receipt
    from .objects import Objects, ObjectStore
    from .postgres import Connect
    from .reporting.log import final_lines
    from .reporting.page_facts import Origin, PageFacts, Progress, Span
    from .reporting.report_html import policy, render_page
    from .reporting.report_json import Report
    from .reporting.runs_html import RunLine, render_notice, render_runs
    from .reporting.so_far import SoFar, summary_so_far
    from .reporting.summary import Summary, read_summary
    from .reporting.undo_html import read_undo, render_undo
    from .reporting.undo_json import UndoReport, undo_final_lines
    from .run.digest import digest_of_exports
    from .run.lease import owner_of_process
    from .run.run import Run
    from .settings import BATCH_SIZES, Settings, choices_of, default_of, parse_settings
    from .steps.check_schema import check_schema
    from .steps.export_threads import export_threads
    from .steps.freeze_source import freeze_source
    from .steps.load_batch import load_batch
    from .steps.plan_batches import plan_batches
    from .steps.plan_shards import plan_shards
    from .steps.promote import promote
    from .steps.report import keep_failure, report, report_unsettled
    from .steps.undo import undo
    from .steps.verify_counts import verify_counts
    from .steps.verify_staged import verify_staged
    from .storage import RunFolder
    from .task_sizes import TaskSizes
    from .undo_settings import UndoSettings, parse_undo

__all__ = [
    "BATCH_SIZES",
    "COLUMNS",
    "Connect",
    "Counts",
    "Export",
    "Load",
    "MigrationError",
    "ObjectStore",
    "Objects",
    "Origin",
    "PageFacts",
    "Progress",
    "Promotion",
    "Receipt",
    "Report",
    "Run",
    "RunFolder",
    "RunLine",
    "Settings",
    "SettingsInvalid",
    "ShardVerdict",
    "SoFar",
    "Span",
    "Summary",
    "TargetUnreachable",
    "TaskSizes",
    "UndoReport",
    "UndoSettings",
    "Verdict",
    "WitnessResult",
    "check_schema",
    "choices_of",
    "default_of",
    "digest_of_exports",
    "export_threads",
    "failures",
    "final_lines",
    "folded",
    "format_about",
    "format_seconds",
    "freeze_source",
    "keep_failure",
    "load_batch",
    "owner_of_process",
    "parse_settings",
    "parse_undo",
    "plan_batches",
    "plan_shards",
    "policy",
    "promote",
    "read_summary",
    "read_undo",
    "render_notice",
    "render_page",
    "render_runs",
    "render_undo",
    "report",
    "report_unsettled",
    "run_folder",
    "summary_so_far",
    "told_of",
    "undo",
    "undo_final_lines",
    "verify_counts",
    "verify_staged",
]

# What the imports above say, which nobody but a type checker runs.
_HOMES = {
    alias.name: f"{__name__}.{node.module}"
    for node in ast.walk(ast.parse(Path(__file__).read_text(encoding="utf-8")))
    if isinstance(node, ast.ImportFrom) and node.level
    for alias in node.names
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value
