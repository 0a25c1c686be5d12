"""What each task calls, and when it is tried again. Results hold paths, ids, counts and digests."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule, TriggerRule
from airflow.sdk import task as airflow_task

from include import checkpoint_migration as engine

from . import events, notifications
from .deployment import read_deployment
from .runs import (
    current_folder,
    current_ids,
    current_origin,
    current_run,
    current_undo,
    is_last_try,
    is_one_process,
    keep_summary,
    log,
    report_folders,
    reported_run,
    say,
)

deployment = read_deployment()

# What is transient is tried again as it is; what is terminal needs somebody first. An error that is
# not ours counts as transient: every task may be tried again at any moment. The log says which it is.
RETRY_POLICY = ExceptionRetryPolicy(
    rules=[
        *(
            RetryRule(
                exception=kind,
                action=RetryAction.RETRY,
                reason=f"{kind.__name__} is transient: it may pass by itself, so the task is tried again "
                "as long as it has tries left",
            )
            for kind in engine.failures()
            if kind.transient
        ),
        RetryRule(
            exception=engine.MigrationError,
            action=RetryAction.FAIL,
            reason="this failure is terminal: it would come again until somebody does what the message "
            "says, so no try is spent on it",
        ),
        RetryRule(
            exception=BaseException,
            action=RetryAction.DEFAULT,
            reason="no failure of this package's own: every task may be repeated, so it is tried again "
            "as long as it has tries left",
        ),
    ]
)
DEFAULT_ARGS: dict[str, Any] = {
    "owner": deployment.owner,
    "retries": deployment.retries,
    "retry_delay": deployment.retry_delay,
    "retry_policy": RETRY_POLICY,
    "execution_timeout": deployment.task_timeout,
}
AT_SOURCE: dict[str, Any] = {"queue": deployment.source_queue} if deployment.source_queue else {}
PARTS = {"shard": "index", "load": "index", "export": "shard"}  # what says which part a task is
# An empty database has no shards and no batches: mapped tasks are skipped then, the rest goes on.
EVEN_IF_NOTHING_TO_MAP = TriggerRule.NONE_FAILED


def task(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Airflow's `@task` with one XCom for a result, and a failure told in its three parts alone.

    However a task fails, the report learns of it.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        @functools.wraps(function)
        def three_parts(*args: Any, **kwargs: Any) -> Any:
            began = time.time()
            try:
                return function(*args, **kwargs)
            except engine.MigrationError as error:
                _keep_failure(function.__name__, kwargs, began, error)
                failure = error.for_log()
            except BaseException as error:
                _keep_failure(function.__name__, kwargs, began, error)
                raise
            raise failure  # where it came up is of no use to whoever reads the log

        return airflow_task(
            doc_md=function.__doc__,
            multiple_outputs=False,
            show_return_value_in_logs=False,
            **options,
        )(three_parts)

    return decorate


def _keep_failure(task: str, given: Mapping[str, Any], began: float, error: BaseException) -> None:
    """Keep a failure for the report, unless there are no settings: then the report meets it itself."""
    with contextlib.suppress(Exception):  # it would hide the failure itself
        part = next((given[name][key] for name, key in PARTS.items() if name in given), None)
        engine.keep_failure(current_folder(), task, part, began, error)


@task(**AT_SOURCE)
def check_schema() -> dict[str, Any]:
    """Refuse what cannot be migrated before any work."""
    notifications.warn_of_missing()
    return engine.check_schema(current_run())


@task(**AT_SOURCE)
def freeze_source() -> dict[str, Any]:
    """Make the one consistent copy that everything after it reads."""
    return engine.freeze_source(current_run())


@task()
def plan_shards(frozen: Any) -> list[dict[str, Any]]:  # noqa: ARG001 - it is what this waits for
    """Bin the threads into shards."""
    return engine.plan_shards(current_run())


@task(
    map_index_template="{{ task.op_kwargs['shard']['label'] }}",
    max_active_tis_per_dagrun=deployment.at_once.exports,
)
def export_threads(shard: dict[str, Any]) -> dict[str, Any]:
    """Write one shard's export file."""
    result: dict[str, Any] = _plain(engine.export_threads(current_run(), shard["index"]))
    return result


@task(trigger_rule=EVEN_IF_NOTHING_TO_MAP)
def plan_batches(exports: Any) -> list[dict[str, Any]]:
    """Refuse blockers, make staging, deal out the batches."""
    return [_plain(load) for load in engine.plan_batches(current_run(), _exports(exports))]


@task(
    map_index_template="{{ task.op_kwargs['load']['label'] }}",
    max_active_tis_per_dagrun=deployment.at_once.loads,
)
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
    max_active_tis_per_dagrun=deployment.at_once.verifications,
    map_index_template="shard {{ task.op_kwargs['export']['shard'] }}"
    " · {{ task.op_kwargs['export']['label'] }}",
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


@task(outlets=[events.MIGRATED], **AT_SOURCE)
def verify_counts() -> dict[str, Any]:
    """The witness: SQLite = frozen = exported = staged = live, and a sample read back."""
    run = current_run()
    result = engine.verify_counts(run)
    events.announce(run, result)
    return {"verdict": result.verdict.value, "found": result.found, "sampled": result.sampled}


def _say_undone(_context: Any, result: Any) -> None:
    _say(engine.undo_final_lines(result["outcome"], result["report"]))


@task(post_execute=_say_undone, on_failure_callback=notifications.tell_of_failed_undo)
def undo() -> dict[str, str]:
    """Take out of the live tables what one run made live; list what was left, and why."""
    try:
        run, asked = current_undo()
        undone, path = engine.undo(run, asked, hand_on=keep_summary)
    except engine.MigrationError as error:
        if "undo_report" in error.facts and (not error.transient or is_last_try()):
            _say(engine.undo_final_lines("failed", error.facts["undo_report"]))
        raise
    notifications.tell_of_undo(undone)
    return {"outcome": undone.outcome, "report": path}


def _say_result(_context: Any, result: Any) -> None:
    _say(engine.final_lines(result["verdict"], result["report"]))


@task(
    trigger_rule=TriggerRule.ALL_DONE,
    post_execute=_say_result,
    on_failure_callback=notifications.tell_of_no_report,
)
def report() -> dict[str, Any]:
    """Write the report, after a failure too, and clean up."""
    folders = list(report_folders())
    try:
        written, path = _report(folders)
    except engine.MigrationError as error:
        if (
            not error.transient or is_last_try()
        ):  # no folder takes it, and nothing will be said later
            path = f"{folders[0].where}/report.json"
            _say(engine.final_lines(error.facts["report"].verdict, path))
        raise
    notifications.tell(written)
    return {"verdict": written.verdict.value, "report": path, **_in_short(written)}


def _in_short(written: engine.Report) -> dict[str, Any]:
    """What the list of past migrations says of a run."""
    target, counts = written.target, written.counts
    names = [name for name in (target.database, target.schema) if name]
    return {
        "source": written.source.uri,
        "target": ".".join(names) or None,
        "checkpoints": counts.checkpoints.live,
        "writes": counts.writes.live,
    }


def _report(folders: Sequence[engine.RunFolder]) -> tuple[engine.Report, str]:
    """The run's own report; where there is none to be had, one of the error that is in its way."""
    try:
        run = reported_run()
        others = [folder for folder in folders if folder.where != run.folder.where]
        return engine.report(run, others, origin=current_origin(), hand_on=keep_summary)
    except engine.MigrationError as error:
        if "report" in error.facts or (error.transient and not is_last_try()):
            raise
        cause: Exception = error
    except Exception as error:  # noqa: BLE001 - whatever it is, there is to be a report
        cause = error
    dag_id, run_id = current_ids()
    return engine.report_unsettled(
        cause, dag_id=dag_id, run_id=run_id, folders=folders, tell=say, hand_on=keep_summary
    )


def _say(lines: Sequence[str]) -> None:
    """Close a run's log with plain lines: people see them last, and programs look for them.

    Said after the task, for Airflow has a word when it ends. Under a scheduler what is printed is
    stamped as it arrives, amid lines of Airflow's that are folded; what is logged keeps its place.
    """
    for line in lines:
        if is_one_process():
            print(line, flush=True)
        else:
            log.info(line)


def _plain(value: Any) -> Any:
    """A result as plain JSON: of a tuple, Airflow's serialization would make an envelope."""
    return msgspec.json.decode(msgspec.json.encode(value))


def _exports(results: Any) -> list[engine.Export]:
    """What the mapped exports handed on, in the order of their shards; none for an empty source.

    A slice is one request to Airflow; a loop is one for each, and its end an error in the log.
    """
    handed_on = () if results is None else results[:]
    return [msgspec.convert(result, engine.Export) for result in handed_on]
