"""Rehearse the move of LangGraph's checkpoints to PostgreSQL: all of it, but nothing goes live.

```text
check_schema ─ freeze_source
 └ export  plan_shards ─ export_threads […]
    └ import  plan_batches ─ load_batch […]
       │      ─ verify_staged […] ─ promote
       └ verify_counts ─ report (always)
```

The same pipeline as [migrate_checkpoints](dags/migrate_checkpoints), with the same proof, into a
scratch schema of the target database that is dropped at the end. The live tables are never touched,
and neither is the source. Nothing of it stays but its record in the ledger. The report says what would
stand in the way, how long the real migration will take and how much room, and how rehearsals went before.

### First steps

1. Define the Airflow connection `langgraph_postgres` to the PostgreSQL that your application will use.
2. Trigger this DAG with the path of the SQLite database; all other fields have defaults.
3. Read the verdict and what to do next at the end of the log of `report`.

Where the deployment sets `CHECKPOINT_MIGRATION_REHEARSAL_SOURCE`, this runs once a week, or as
`CHECKPOINT_MIGRATION_REHEARSAL_SCHEDULE` says, from the day on which somebody unpauses it; elsewhere
only when it is triggered with a `source`.
A rehearsal that turns red is news about the application's data, or about the target, before the
day of the move.
"""

from datetime import UTC, datetime

from airflow.sdk import dag

from include.orchestration import (
    DEFAULT_ARGS,
    check_schema,
    deployment,
    export_group,
    freeze_source,
    import_group,
    rehearsal_params,
    report,
    tell_of_timeout,
    verify_counts,
)


@dag(
    dag_id="rehearse_checkpoints",
    dag_display_name="Rehearse the migration of LangGraph checkpoints",
    description="The whole migration into a scratch schema: nothing goes live. Trigger it first, with the "
    "path of the SQLite database.",
    doc_md=__doc__,
    schedule=deployment.rehearsal_schedule,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    is_paused_upon_creation=True,
    max_active_runs=1,
    params=rehearsal_params(deployment),
    default_args=DEFAULT_ARGS,
    tags=["langgraph", "migration", "postgresql"],
    # One that waits for a worker or a queue that never comes would hold up the next one.
    dagrun_timeout=deployment.run_timeout,
    on_failure_callback=tell_of_timeout,
)
def rehearse_checkpoints() -> None:
    frozen = freeze_source()
    check_schema() >> frozen
    final_report = report().as_teardown()
    exports = export_group(frozen, final_report)
    import_group(exports, final_report) >> verify_counts() >> final_report


rehearse_checkpoints()
