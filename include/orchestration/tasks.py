"""What each task calls, and when it is tried again. Results hold paths, ids, counts and digests."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import msgspec
from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule, TriggerRule
from airflow.sdk import task as airflow_task

from include import checkpoint_migration as engine

from .deployment import read_deployment
from .runs import asked_folder, current_ids, current_run, default_folder

deployment = read_deployment()

# What is transient is tried again as it is; what is terminal needs somebody first. An error that is
# not ours counts as transient: every task may be tried again at any moment.
RETRY_POLICY = ExceptionRetryPolicy(
    rules=[
        RetryRule(
            exception=[kind for kind in engine.failures() if kind.transient],
            action=RetryAction.RETRY,
            reason="transient: tried again as it is",
        ),
        RetryRule(
            exception=engine.MigrationError,
            action=RetryAction.FAIL,
            reason="terminal: somebody has to look first",
        ),
    ]
)
DEFAULT_ARGS: dict[str, Any] = {
    "retries": deployment.retries,
    "retry_delay": deployment.retry_delay,
    "retry_policy": RETRY_POLICY,
    "execution_timeout": deployment.task_timeout,
}
AT_SOURCE: dict[str, Any] = {"queue": deployment.source_queue} if deployment.source_queue else {}
# An empty database has no shards and no batches: mapped tasks are skipped then, the rest goes on.
EVEN_IF_NOTHING_TO_MAP = TriggerRule.NONE_FAILED


def task(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Airflow's `@task` with one XCom for a result, and a failure told in its three parts alone."""

    def decorate(function: Callable[..., Any]) -> Any:
        @functools.wraps(function)
        def three_parts(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except engine.MigrationError as error:
                failure = error.with_traceback(None)
            raise failure  # where it came up is of no use to whoever reads the log

        return airflow_task(
            doc_md=function.__doc__,
            multiple_outputs=False,
            show_return_value_in_logs=False,
            **options,
        )(three_parts)

    return decorate


@task(**AT_SOURCE)
def check_schema() -> dict[str, Any]:
    """Refuse what cannot be migrated before any work."""
    return engine.check_schema(current_run())


@task(**AT_SOURCE)
def freeze_source() -> dict[str, Any]:
    """Make the one consistent copy that everything after it reads."""
    return engine.freeze_source(current_run())


@task()
def plan_shards(frozen: Any) -> list[dict[str, Any]]:  # noqa: ARG001 - it is what this waits for
    """Bin the threads into shards."""
    return engine.plan_shards(current_run())


@task(map_index_template="{{ task.op_kwargs['shard']['label'] }}")
def export_threads(shard: dict[str, Any]) -> dict[str, Any]:
    """Write one shard's export file."""
    result: dict[str, Any] = _plain(engine.export_threads(current_run(), shard["index"]))
    return result


@task(trigger_rule=EVEN_IF_NOTHING_TO_MAP)
def plan_batches(exports: Any) -> list[dict[str, Any]]:
    """Refuse blockers, make staging, deal out the batches."""
    return [_plain(load) for load in engine.plan_batches(current_run(), _exports(exports))]


@task(map_index_template="{{ task.op_kwargs['load']['label'] }}")
def load_batch(load: dict[str, Any]) -> dict[str, int]:
    """Load batches into staging, each once."""
    receipts = engine.load_batch(current_run(), msgspec.convert(load, engine.Load))
    return {
        "batches": len(receipts),
        "checkpoints": sum(r.counts.checkpoints for r in receipts),
        "loaded_before": sum(r.already_done for r in receipts),
    }


@task(
    trigger_rule=EVEN_IF_NOTHING_TO_MAP,
    map_index_template="shard {{ task.op_kwargs['export']['shard'] }}",
)
def verify_staged(export: dict[str, Any]) -> dict[str, Any]:
    """Prove one shard in staging equal to the frozen source."""
    verdict = engine.verify_staged(current_run(), msgspec.convert(export, engine.Export))
    return {
        "shard": verdict.shard,
        "checkpoints": verdict.counts.checkpoints,
        "found": verdict.found,
    }


@task(trigger_rule=EVEN_IF_NOTHING_TO_MAP, **AT_SOURCE)
def promote() -> dict[str, Any]:
    """Make staging live, all of it or nothing."""
    promotion = engine.promote(current_run())
    return {
        "inserted": _plain(promotion.inserted),
        "identical": _plain(promotion.identical),
        "already_done": promotion.already_done,
    }


@task(**AT_SOURCE)
def verify_counts() -> dict[str, Any]:
    """The witness: SQLite = frozen = exported = staged = live, and a sample read back."""
    result = engine.verify_counts(current_run())
    return {"verdict": result.verdict.value, "found": result.found, "sampled": result.sampled}


@task(trigger_rule=TriggerRule.ALL_DONE)
def report() -> dict[str, str]:
    """Write the report, after a failure too, and clean up."""
    try:
        written, path = engine.report(current_run())
    except engine.MigrationError as error:
        written, path = _report_unsettled(error)
    for line in engine.final_lines(written, path):
        print(line)  # plain lines, for programs that look for them
    return {"verdict": written.verdict.value, "report": str(path)}


def _report_unsettled(error: engine.MigrationError) -> Any:
    """The report where params make no settings or the run's folder cannot be: its error alone."""
    dag_id, run_id = current_ids()
    unsettled = functools.partial(engine.report_unsettled, error, dag_id=dag_id, run_id=run_id)
    try:
        return unsettled(folder=asked_folder())
    except (OSError, engine.MigrationError):
        return unsettled(folder=default_folder())


def _plain(value: Any) -> Any:
    """A result as plain JSON: of a tuple, Airflow's serialization would make an envelope."""
    return msgspec.json.decode(msgspec.json.encode(value))


def _exports(results: Any) -> list[engine.Export]:
    """What the mapped exports handed on, in the order of their shards; none for an empty source."""
    return [msgspec.convert(result, engine.Export) for result in results or ()]
