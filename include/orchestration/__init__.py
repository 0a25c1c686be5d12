"""Airflow's side: params into settings, connections, what is tried again, what each task calls."""

from .groups import export_group, import_group
from .notifications import tell_of_timeout
from .params import migration_params, rehearsal_params, undo_params
from .tasks import (
    DEFAULT_ARGS,
    check_schema,
    deployment,
    freeze_source,
    report,
    undo,
    verify_counts,
)

__all__ = [
    "DEFAULT_ARGS",
    "check_schema",
    "deployment",
    "export_group",
    "freeze_source",
    "import_group",
    "migration_params",
    "rehearsal_params",
    "report",
    "tell_of_timeout",
    "undo",
    "undo_params",
    "verify_counts",
]
