"""Move LangGraph's checkpoints from SQLite to PostgreSQL, all of them or none, and prove it.

```text
check_schema ─ freeze_source
 └ export  plan_shards ─ export_threads […]
    └ import  plan_batches ─ load_batch […]
       │      ─ verify_staged […] ─ promote
       └ verify_counts ─ report (always)
```

For every thread of the frozen source, a run ends in one of two states: all its checkpoints and
pending writes are live in PostgreSQL, each compared with the source, and a sample of them read back
equal through LangGraph; or the live tables are exactly as they were. The source is never written. Any
task may be killed and tried again at any moment. The long-term store (`SqliteStore`), in the same file
or in one of its own, goes the same way.

### First steps

1. Define the Airflow connection `langgraph_postgres` to the PostgreSQL that your application will use.
2. Rehearse: trigger [rehearse_checkpoints](dags/rehearse_checkpoints) with the path of the SQLite
   database. It does all of this, but nothing goes live.
3. Trigger this DAG with the same path; all other fields have defaults that suit most. The application
   may go on meanwhile: a second run catches up.
4. Read the verdict at the end of the log of `report`. Only `identical` means: switch over.

If a run fails, its report says what happened, what is safe and what to do next. Clearing the failed
task goes on from there.

### The tasks

| task | what it does |
| --- | --- |
| `check_schema` | refuses what cannot be migrated before any work: source, target, privileges, room |
| `freeze_source` | makes the one consistent copy that everything after it reads |
| `plan_shards` | deals out the threads to the export tasks |
| `export_threads` | writes one shard's export file, and hands on its *path*, counts and digests |
| `plan_batches` | refuses once, with all blockers, if there are any; makes staging; deals out the batches |
| `load_batch` | copies batches into this run's own schema, each once; one that fails is tried again alone |
| `verify_staged` | compares the content of every row with the frozen source, before anything is live |
| `promote` | makes all of staging live in one transaction, or nothing |
| `verify_counts` | the witness: SQLite = frozen = exported = staged = live; a sample is read back |
| `report` | always runs: verdict, `report.json`, `report.html`; then it cleans up |

### The verdict

* `identical`: every row taken is live and equal. The run is green.
* `different`: anything else was found. The run is red.
* `unproven`: not checked, as under `verify: counts`, or not reached.
"""

from airflow.sdk import dag

from include.orchestration import (
    DEFAULT_ARGS,
    check_schema,
    deployment,
    export_group,
    freeze_source,
    import_group,
    migration_params,
    report,
    tell_of_timeout,
    verify_counts,
)


@dag(
    dag_id="migrate_checkpoints",
    dag_display_name="Migrate LangGraph checkpoints: SQLite to PostgreSQL",
    description="Moves all of them or none, and proves it. First rehearse; then trigger this with the "
    "path of the SQLite database.",
    doc_md=__doc__,
    schedule=None,
    params=migration_params(deployment),
    default_args=DEFAULT_ARGS,
    tags=["langgraph", "migration", "postgresql"],
    # Of two runs to the same tables the second would be refused: here it waits for the first.
    max_active_runs=deployment.active_runs,
    # Tasks end by their own timeouts, with a report; this is for a run that waits for a worker or a
    # queue that never comes, and would hold up the next one.
    dagrun_timeout=deployment.run_timeout,
    # With a callback, `dags test` ends a failed run in an error of Airflow's own: only where it is needed.
    on_failure_callback=tell_of_timeout if deployment.notifiers else None,
)
def migrate_checkpoints() -> None:
    frozen = freeze_source()
    check_schema() >> frozen
    final_report = report().as_teardown()
    exports = export_group(frozen, final_report)
    import_group(exports, final_report) >> verify_counts() >> final_report


migrate_checkpoints()
