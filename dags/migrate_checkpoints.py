"""Move LangGraph's checkpoints from SQLite to PostgreSQL, all of them or none, and prove it.

    check_schema ─ freeze_source ─ export ───────── import ────────────────────────── verify_counts ─ report
                                   plan_shards      plan_batches                                      (always)
                                   export_threads[] load_batch[] verify_staged[] promote

For every thread of the frozen source, a run ends in one of two states: all its checkpoints and
pending writes are live in PostgreSQL and read back equal through LangGraph, or the live tables are
exactly as they were. The source is never written. Any task may be killed and tried again at any
moment.

* **export** hands on the *paths* of its export files, with counts and digests.
* **import** copies batches into this run's own schema; a batch that fails is tried again alone. The
  content of every row is compared with the frozen source before `promote` makes it live in one
  transaction.
* **verify_counts** is the witness: SQLite = frozen = exported = staged = live, and a sample is read
  back through both of LangGraph's savers. Anything else than `identical` fails the run.
* **report** always runs. Its log ends with the verdict and the path of `report.json`.

If a run fails, its report says what happened, what is safe and what to do next.
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
    verify_counts,
)


@dag(
    dag_id="migrate_checkpoints",
    description=__doc__.splitlines()[0],
    doc_md=__doc__,
    schedule=None,
    params=migration_params(deployment),
    default_args=DEFAULT_ARGS,
    tags=["langgraph", "migration"],
)
def migrate_checkpoints() -> None:
    frozen = freeze_source()
    check_schema() >> frozen
    final_report = report().as_teardown()
    exports = export_group(frozen, final_report)
    import_group(exports, final_report) >> verify_counts() >> final_report


migrate_checkpoints()
