"""The trigger form: every param with its default, its section and what it means.

A param without a section is open at once, and the sections are folded: the common case is one field.
Help is plain text, for the form covers words with code marks in it where lines wrap.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param

from include.checkpoint_migration import BATCH_SIZES, choices_of, default_of

from .deployment import Deployment

# Airflow judges every param's schema anew for every task, several times: with the newest dialect, which
# it takes where none is named, that is a twelfth of a whole run's time, with this one a third of that.
DIALECT: dict[str, Any] = {"$schema": "http://json-schema.org/draft-07/schema#"}
SOURCE, TARGET, SAFETY, TUNING = "Source", "Target", "Safety", "Tuning"
# What a path begins with that no worker's folder changes; check_schema judges the rest.
ABSOLUTE = r"^(/|file:/|sqlite:////|s3://)"
A_DATABASE = (
    "Absolute path of the database that SqliteSaver writes, as the workers see it, such as "
    "/data/checkpoints.sqlite. It is only read, never written."
)


def migration_params(deployment: Deployment) -> dict[str, Any]:
    """The params of `migrate_checkpoints`; `source` is required."""
    return {
        "source": Param(
            **DIALECT,
            type="string",
            minLength=1,
            pattern=ABSOLUTE,
            title="SQLite database",
            description_md=f"{A_DATABASE} All other fields have a default that suits most.",
        ),
        **_common(deployment),
    }


def rehearsal_params(deployment: Deployment) -> dict[str, Any]:
    """The params of `rehearse_checkpoints`: source is the deployment's, or no schedule."""
    return {
        "source": Param(
            deployment.rehearsal_source,
            **DIALECT,
            type=["null", "string"],
            pattern=ABSOLUTE,
            title="SQLite database",
            description_md=f"{A_DATABASE} The default is the deployment's setting "
            "CHECKPOINT_MIGRATION_REHEARSAL_SOURCE.",
        ),
        **_common(deployment),
    }


def undo_params(deployment: Deployment) -> dict[str, Any]:
    """The params of `undo_migration`; `run_id` is required."""
    shared = _common(deployment)
    return {
        "run_id": Param(
            **DIALECT,
            type="string",
            minLength=1,
            title="Run to undo",
            description_md="The run id of the migration whose rows go out again, as its report has it. "
            "All other fields have a default that suits most.",
        ),
        "postgres_conn_id": shared["postgres_conn_id"],
        "export_uri": shared["export_uri"],
    }


def _common(deployment: Deployment) -> dict[str, Any]:
    return {**_source(), **_target(), **_safety(), **_tuning(deployment)}


def _source() -> dict[str, Any]:
    return {
        "threads": Param(
            None,
            **DIALECT,
            type=["null", "array"],
            items={"type": "string", "minLength": 1},
            title="Threads",
            section=SOURCE,
            description_md="Which threads to take, a pattern on each line: user-* takes what begins "
            "so, !user-test-* leaves it out. Empty: all of them.",
        ),
        "store": _choice(
            "store",
            "Long-term memory (SqliteStore)",
            "The store belongs to no thread: where Threads takes some by name, it stays behind.",
            section=SOURCE,
            auto="Auto: take the store's tables too, if the source has them",
            skip="Skip: leave them behind",
        ),
        "aes_conn_id": Param(
            None,
            **DIALECT,
            type=["null", "string"],
            title="Connection with the AES key",
            section=SOURCE,
            description_md="For an encrypted source: the Airflow connection whose password is the key. "
            "Empty: the workers' variable LANGGRAPH_AES_KEY.",
        ),
        "allow_pickle": Param(
            default_of("allow_pickle"),
            **DIALECT,
            type="boolean",
            title="Unpickle pickled checkpoints",
            section=SOURCE,
            description_md="**Runs code from the database.** Only for a source that you trust as you "
            "trust your own code.",
        ),
    }


def _target() -> dict[str, Any]:
    return {
        "postgres_conn_id": Param(
            default_of("conn_id"),
            **DIALECT,
            type="string",
            minLength=1,
            title="Airflow connection",
            section=TARGET,
            description_md="The connection to the PostgreSQL that the application will use.",
        ),
        "target_schema": Param(
            default_of("target_schema"),
            **DIALECT,
            type="string",
            minLength=1,
            maxLength=63,
            title="Schema",
            section=TARGET,
            description_md="Where PostgresSaver's tables are, or are to be.",
        ),
        "create_tables": Param(
            default_of("create_tables"),
            **DIALECT,
            type="boolean",
            title="Create missing tables",
            section=TARGET,
            description_md="By PostgresSaver.setup(). They may remain, empty, after a run that failed.",
        ),
    }


def _safety() -> dict[str, Any]:
    return {
        "on_conflict": _choice(
            "on_conflict",
            "If a live row has the same key and other content",
            "Also if a live thread has another history. The report names each.",
            fail="Fail: nothing goes live",
            keep="Keep the live row; the verdict is then different",
            replace="Replace the live row by the source's",
        ),
        "on_drift": _choice(
            "on_drift",
            "If the application writes to the source meanwhile",
            "What is written after the freeze is not in this run. Run again to catch up.",
            fail="Fail: nothing goes live",
            report="Report: the frozen state goes live, and what changed since is counted",
        ),
        "on_blocker": _choice(
            "on_blocker",
            "If metadata holds what PostgreSQL's JSONB refuses, or a TTL a part of a minute",
            "Replaced originals are kept in the ledger; the report counts them and names threads.",
            fail="Fail: nothing goes live, and all such rows are listed",
            sanitize="Sanitize: no NUL, U+FFFD for lone surrogates, null for NaN",
        ),
        "verify": _choice(
            "verify",
            "Verification",
            "Only the content of every row proves the migration.",
            full="Full: the content of every row is compared",
            counts="Counts alone; the verdict stays unproven",
        ),
    }


def _tuning(deployment: Deployment) -> dict[str, Any]:
    return {
        "batch_size": Param(
            default_of("batch_size"),
            **DIALECT,
            type="integer",
            minimum=BATCH_SIZES[0],
            maximum=BATCH_SIZES[1],
            title="Checkpoints in a batch",
            section=TUNING,
            description_md="A batch is one transaction into staging, and is tried again alone.",
        ),
        "export_uri": Param(
            deployment.export_uri,
            **DIALECT,
            type=["null", "string"],
            title="Export folder",
            section=TUNING,
            description_md="An absolute folder that all workers share, such as /mnt/exports, or a place in an S3 "
            "bucket: s3://connection@bucket/prefix. It holds conversations: files are private to Airflow's user.",
        ),
        "keep_exports": Param(
            default_of("keep_exports"),
            **DIALECT,
            type="boolean",
            title="Keep the export files",
            section=TUNING,
            description_md="And the frozen source, which would go once the verdict is identical.",
        ),
    }


def _choice(
    name: str, title: str, description: str, *, section: str = SAFETY, **labels: str
) -> Param:
    """A choice of the engine's, with what each means for whoever fills in the form."""
    return Param(
        default_of(name),
        **DIALECT,
        type="string",
        enum=list(choices_of(name)),
        values_display={choice: labels[choice] for choice in choices_of(name)},
        title=title,
        section=section,
        description_md=description,
    )
