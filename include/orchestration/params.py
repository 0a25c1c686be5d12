"""The trigger form: every param with its default, its section and what it means."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param

from include.checkpoint_migration import BATCH_SIZES, choices_of, default_of

from .deployment import Deployment


def migration_params(deployment: Deployment) -> dict[str, Any]:
    """The params of `migrate_checkpoints`; `source` is required."""
    return {
        "source": Param(
            type="string",
            minLength=1,
            title="SQLite database",
            section="Source",
            description_md="Absolute path (or `file:` URI) of the database that `SqliteSaver` "
            "writes, on the workers' machine. It is never written.",
        ),
        **_common(deployment),
    }


def rehearsal_params(deployment: Deployment) -> dict[str, Any]:
    """The params of `rehearse_checkpoints`: source is the deployment's, or no schedule."""
    return {
        "source": Param(
            deployment.rehearsal_source,
            type=["null", "string"],
            title="SQLite database",
            section="Source",
            description_md="Absolute path; the default is `CHECKPOINT_MIGRATION_REHEARSAL_SOURCE`.",
        ),
        **_common(deployment),
    }


def _common(deployment: Deployment) -> dict[str, Any]:
    return {
        "threads": Param(
            None,
            type=["null", "array"],
            items={"type": "string", "minLength": 1},
            title="Threads",
            section="Source",
            description_md="Globs, one a line, such as `user-*`; `!user-test-*` excludes. Empty: "
            "all.",
        ),
        "on_drift": _choice(
            "on_drift",
            "Source",
            "If the application writes to the source meanwhile",
            "`fail`: nothing goes live. `report`: the frozen state goes live, and what changed "
            "since is counted.",
        ),
        "postgres_conn_id": Param(
            default_of("conn_id"),
            type="string",
            minLength=1,
            title="Airflow connection",
            section="Target",
        ),
        "target_schema": Param(
            default_of("target_schema"),
            type="string",
            minLength=1,
            maxLength=63,
            title="Schema",
            section="Target",
        ),
        "create_tables": Param(
            default_of("create_tables"),
            type="boolean",
            title="Create missing tables",
            section="Target",
            description_md="Let `PostgresSaver.setup()` make what is missing. Its tables may "
            "remain, empty, after a run that failed.",
        ),
        "on_conflict": _choice(
            "on_conflict",
            "Target",
            "If a live row has the same key and other content",
            "`fail`: nothing goes live. `keep`: the live row stays, and the verdict is "
            "`different`. `replace`: the source's row takes its place.",
        ),
        "batch_size": Param(
            default_of("batch_size"),
            type="integer",
            minimum=BATCH_SIZES[0],
            maximum=BATCH_SIZES[1],
            title="Checkpoints in a batch",
            section="Work",
            description_md="A batch is one transaction into staging.",
        ),
        "export_uri": Param(
            deployment.export_uri,
            type=["null", "string"],
            title="Export folder",
            section="Work",
            description_md="An absolute folder that all workers share. It holds conversations: "
            "files are 0600 in folders 0700.",
        ),
        "keep_exports": Param(
            default_of("keep_exports"),
            type="boolean",
            title="Keep the export files",
            section="Work",
            description_md="Otherwise they and the frozen source go once the verdict is "
            "`identical`.",
        ),
        "verify": _choice(
            "verify",
            "Proof",
            "Verification",
            "`full`: the content of every row. `counts`: counts alone, and the verdict stays "
            "`unproven`.",
        ),
        "on_blocker": _choice(
            "on_blocker",
            "Proof",
            "If metadata holds what JSONB refuses",
            "`fail`: nothing goes live. `sanitize`: NUL is dropped, lone surrogates become U+FFFD, "
            "NaN and infinities null; the originals are kept in the ledger and listed.",
        ),
        "aes_conn_id": Param(
            None,
            type=["null", "string"],
            title="Connection with the AES key",
            section="Proof",
            description_md="Its password is the key of an encrypted source; else "
            "`LANGGRAPH_AES_KEY`.",
        ),
        "allow_pickle": Param(
            default_of("allow_pickle"),
            type="boolean",
            title="Allow pickle",
            section="Proof",
            description_md="**Runs code from the database** to split pickled checkpoints. Only for "
            "a source that you trust.",
        ),
    }


def _choice(name: str, section: str, title: str, description: str) -> Param:
    return Param(
        default_of(name),
        type="string",
        enum=list(choices_of(name)),
        title=title,
        section=section,
        description_md=description,
    )
