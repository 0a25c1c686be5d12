"""Undo one migration: take out of the live tables exactly what its run made live, in one transaction.

Its param `run_id` is the Airflow run whose rows go out again. Rows that it had replaced have their
originals back. Threads that the application, or a later run, went on with are left whole and listed, and
so is every item of the store that was written since, and every blob that a live checkpoint outside the run
refers to.

A second undo of the same run does nothing and says so. Afterwards the migration may run again: what was
undone is not taken for what the application removed. The ledger keeps what this needs for
`CHECKPOINT_MIGRATION_UNDO_DAYS` days.

Stop the application first: while this works, whoever writes to the tables waits.
"""

from airflow.sdk import dag

from include.orchestration import DEFAULT_ARGS, deployment, tell_of_timeout, undo, undo_params


@dag(
    dag_id="undo_migration",
    dag_display_name="Undo one migration of LangGraph checkpoints",
    description=__doc__.splitlines()[0],
    doc_md=__doc__,
    schedule=None,
    params=undo_params(deployment),
    default_args=DEFAULT_ARGS,
    tags=["langgraph", "migration", "postgresql"],
    max_active_runs=1,
    # One that waits for a worker or a queue that never comes would hold up the next one.
    dagrun_timeout=deployment.run_timeout,
    # With a callback, `dags test` ends a failed run in an error of Airflow's own: only where it is needed.
    on_failure_callback=tell_of_timeout if deployment.notifiers else None,
)
def undo_migration() -> None:
    undo()


undo_migration()
