"""The DAG files as Airflow parses them."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import Param
from airflow.sdk.definitions._internal.types import NOTSET

from include import checkpoint_migration as engine
from include.orchestration import tasks
from tests.support.airflow import DAG, REHEARSAL, ROOT, UNDO

# Each task with what follows it at once. With nothing to map Airflow may skip verify_staged before
# plan_batches has run, and after a failure it gives up what follows while other instances still work:
# promote waits for plan_batches too, and the report for every mapped task.
DRAWING = {
    "check_schema": {"freeze_source"},
    "freeze_source": {"export.plan_shards"},
    "export.plan_shards": {"export.export_threads"},
    "export.export_threads": {"import.plan_batches", "import.verify_staged", "report"},
    "import.plan_batches": {"import.load_batch", "import.promote"},
    "import.load_batch": {"import.verify_staged", "report"},
    "import.verify_staged": {"import.promote", "report"},
    "import.promote": {"verify_counts"},
    "verify_counts": {"report"},
    "report": set(),
}
MAPPED = {"export.export_threads", "import.load_batch", "import.verify_staged"}
DEFAULTS = {
    "postgres_conn_id": "langgraph_postgres",
    "target_schema": "public",
    "create_tables": True,
    "threads": None,
    "batch_size": 1000,
    "on_conflict": "fail",
    "on_drift": "fail",
    "on_blocker": "fail",
    "verify": "full",
    "aes_conn_id": None,
    "allow_pickle": False,
    "store": "auto",
    "keep_exports": False,
}
CHOICES = {
    "on_conflict": ["fail", "keep", "replace"],
    "store": ["auto", "skip"],
    "on_drift": ["fail", "report"],
    "on_blocker": ["fail", "sanitize"],
    "verify": ["full", "counts"],
}
PROBE = """
import json
from airflow.dag_processing.dagbag import DagBag
bag = DagBag("dags")
dag = bag.dags.get("rehearse_checkpoints")
print("\\n" + json.dumps({
    "errors": list(bag.import_errors.values()),
    "schedule": dag and dag.schedule,
    "source": dag and dag.params["source"],
    "export_uri": dag and dag.params["export_uri"],
    "retries": dag and dag.get_task("check_schema").retries,
    "timeout": dag and dag.get_task("report").execution_timeout.total_seconds(),
    "queues": dag and {t.task_id: t.queue for t in dag.tasks},
    "owner": dag and dag.owner,
    "time": dag and dag.dagrun_timeout.total_seconds(),
    "runs": [dag and dag.max_active_runs for dag in bag.dags.values()],
    "at_once": dag and {t.label: t.max_active_tis_per_dagrun for t in dag.tasks if t.is_mapped},
}))
"""


@pytest.fixture(scope="module")
def bag() -> DagBag:
    return DagBag(str(ROOT / "dags"))


@pytest.fixture(params=[DAG, REHEARSAL])
def dag(request: pytest.FixtureRequest, bag: DagBag) -> Any:
    return bag.dags[request.param]


def param(dag: Any, name: str) -> Param:
    return dag.params.get_param(name)


def parsed(**variables: str) -> dict[str, Any]:
    """What the rehearsal looks like in a deployment with these settings."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    env |= {f"CHECKPOINT_MIGRATION_{name}": value for name, value in variables.items()}
    done = subprocess.run(
        [sys.executable, "-c", PROBE], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_the_dags_parse_without_an_error_and_quickly(bag: DagBag) -> None:
    """The DAG folder holds the three DAGs and nothing that fails; a parse takes seconds at most."""
    assert bag.import_errors == {}
    assert set(bag.dags) == {DAG, REHEARSAL, UNDO}
    began = time.monotonic()
    DagBag(str(ROOT / "dags"))
    assert time.monotonic() - began < 10


def test_the_pipeline_is_the_drawing(dag: Any) -> None:
    """Both DAGs have the same tasks, edges and groups, and three of the tasks are mapped."""
    assert {t.task_id: t.downstream_task_ids for t in dag.tasks} == DRAWING
    assert {t.task_id for t in dag.tasks if t.is_mapped} == MAPPED
    assert set(dag.task_group.get_task_group_dict()) == {None, "export", "import"}


def test_report_always_runs_and_never_makes_a_failed_run_green(dag: Any) -> None:
    """`report` is a teardown: it runs after a failure, and the run's state is verify_counts's."""
    report = dag.get_task("report")
    assert report.is_teardown
    assert not report.on_failure_fail_dagrun  # else it alone would decide the run's state
    assert not any(t.is_setup or t.is_teardown for t in dag.tasks if t is not report)


def test_every_task_and_dag_is_documented(dag: Any) -> None:
    """The module's docstring documents the DAG, each function's its task, each group its own."""
    assert "```text\ncheck_schema ─ freeze_source\n" in dag.doc_md
    assert "### First steps\n\n1. Define the Airflow connection `langgraph_postgres`" in dag.doc_md
    assert dag.dag_display_name != dag.dag_id
    assert "rigger" in dag.description  # what to do first
    assert dag.owner not in ("", "airflow")
    assert {"langgraph", "migration"} <= dag.tags
    for task in dag.tasks:
        assert task.doc_md, task.task_id
        assert task.doc_md.strip().endswith("."), task.task_id
    for name in ("export", "import"):
        assert dag.task_group.get_task_group_dict()[name].tooltip


def test_params_have_the_contracts_defaults(dag: Any) -> None:
    """Every param of the contract is there with its default, in a section of the form, explained."""
    assert set(dag.params) == {*DEFAULTS, "source", "export_uri"}
    assert next(iter(dag.params)) == "source"
    assert {name: param(dag, name).value for name in DEFAULTS} == DEFAULTS
    assert Path(param(dag, "export_uri").value).is_absolute()
    for name in dag.params:
        schema = param(dag, name).schema
        assert schema["title"], name
        assert "`" not in schema["description_md"], name  # the form covers words that wrap
        sections = (None,) if name == "source" else ("Source", "Target", "Safety", "Tuning")
        assert schema.get("section") in sections, name
        assert schema.get("enum") == CHOICES.get(name), name
        for choice, label in schema.get("values_display", {}).items():
            assert label.lower().startswith(choice), name
        assert set(schema.get("values_display", {})) == set(CHOICES.get(name, ())), name


def test_source_is_required_for_a_migration_alone(bag: DagBag) -> None:
    """Nobody migrates without saying what; a rehearsal may, because it may have a schedule."""
    assert param(bag.dags[DAG], "source").value is NOTSET
    assert param(bag.dags[REHEARSAL], "source").value is None


def test_undo_is_one_task_and_names_the_run(bag: DagBag) -> None:
    """Nobody undoes without saying what; the form explains each of its params."""
    dag = bag.dags[UNDO]
    [task] = dag.tasks
    assert task.task_id == "undo"
    assert task.doc_md
    assert task.has_retry_policy
    assert dag.doc_md.startswith(dag.description)
    assert dag.max_active_runs == 1
    assert dag.dagrun_timeout == timedelta(days=7)
    assert set(dag.params) == {"run_id", "postgres_conn_id", "export_uri"}
    assert param(dag, "run_id").value is NOTSET
    for name in dag.params:
        assert param(dag, name).schema["title"]


def test_no_dag_runs_by_itself_by_default(bag: DagBag) -> None:
    """Without a deployment's settings the DAGs wait to be triggered."""
    for dag in bag.dags.values():
        assert dag.schedule is None
        assert dag.catchup is False
    assert bag.dags[REHEARSAL].max_active_runs == 1
    assert bag.dags[REHEARSAL].is_paused_upon_creation is True


def test_a_rehearsals_source_gives_it_a_schedule(tmp_path: Path) -> None:
    """With a source the rehearsal runs weekly; all settings of the deployment reach the tasks."""
    weekly = parsed(REHEARSAL_SOURCE="/data/app.sqlite")
    assert weekly["errors"] == []
    assert (weekly["schedule"], weekly["source"]) == ("@weekly", "/data/app.sqlite")
    mondays = parsed(
        REHEARSAL_SOURCE="/data/app.sqlite",
        REHEARSAL_SCHEDULE="0 3 * * 1",
        EXPORT_URI=str(tmp_path),
        RETRIES="7",
        TASK_TIMEOUT_SECONDS="60",
        SOURCE_QUEUE="beside_the_application",
    )
    assert mondays["schedule"] == "0 3 * * 1"
    assert mondays["export_uri"] == str(tmp_path)
    assert (mondays["retries"], mondays["timeout"]) == (7, 60)
    beside = {t for t, queue in mondays["queues"].items() if queue == "beside_the_application"}
    assert beside == {"check_schema", "freeze_source", "import.promote", "verify_counts"}


def test_what_is_at_work_at_once_has_a_limit(dag: Any) -> None:
    """No number of slots floods the target with COPYs, a second run waits, and a run has an end."""
    at_once = {t.label: t.max_active_tis_per_dagrun for t in dag.tasks if t.is_mapped}
    assert at_once == {"export_threads": 16, "load_batch": 8, "verify_staged": 8}
    assert dag.max_active_runs == 1
    assert dag.dagrun_timeout == timedelta(days=7)


def test_a_deployment_sets_the_limits_and_the_owner() -> None:
    """All of them are settings."""
    seen = parsed(
        EXPORTS_AT_ONCE="1",
        LOADS_AT_ONCE="2",
        VERIFICATIONS_AT_ONCE="3",
        ACTIVE_RUNS="4",
        RUN_TIMEOUT_SECONDS="5",
        OWNER="data-platform",
    )
    assert seen["at_once"] == {"export_threads": 1, "load_batch": 2, "verify_staged": 3}
    assert 4 in seen["runs"]
    assert (seen["time"], seen["owner"]) == (5, "data-platform")


def test_a_setting_without_sense_is_named() -> None:
    """A deployment learns from the import error which variable is wrong and what it may be."""
    errors = parsed(RETRIES="many")["errors"]
    assert errors
    assert all(
        "CHECKPOINT_MIGRATION_RETRIES must be a whole number from 0 to 100" in e for e in errors
    )


@pytest.mark.parametrize("kind", engine.failures(), ids=lambda kind: kind.__name__)
def test_what_is_transient_is_tried_again_and_the_rest_fails_at_once(
    kind: type[engine.MigrationError],
) -> None:
    """The retry policy follows the failure tree, leaf by leaf."""
    decision = tasks.RETRY_POLICY.evaluate(kind("x.", next="y."), 1, 3)
    assert decision.action.value == ("retry" if kind.transient else "fail")
    assert decision.reason is not None
    assert f"{kind.__name__} is transient" in decision.reason or "is terminal" in decision.reason


def test_what_is_not_ours_is_tried_again() -> None:
    """A killed process, a timeout or a defect counts as transient: every task may be repeated."""
    for error in (RuntimeError("x"), MemoryError(), SystemExit(1), TimeoutError()):
        decision = tasks.RETRY_POLICY.evaluate(error, 1, 3)
        assert decision.action.value == "default"
        assert decision.reason is not None  # which Airflow logs
        assert "tried again" in decision.reason


def test_a_failures_log_has_three_parts_and_no_traceback_of_the_engine() -> None:
    """A task raises the failure itself, without the frames and contexts that it came through."""

    @tasks.task()
    def failing() -> None:
        try:
            raise KeyError("a value")
        except KeyError:
            raise engine.SettingsInvalid("no.", next="yes.")  # noqa: B904 - as a defect would

    with pytest.raises(engine.SettingsInvalid) as caught:
        failing.function()
    assert str(caught.value).splitlines()[1:] == [
        f"  What is safe:  {caught.value.safe}",
        "  What to do:    yes.",
    ]
    assert len(caught.traceback) == 2  # this test, and the task


def test_airflow_is_imported_by_its_own_side_alone() -> None:
    """The engine knows nothing of Airflow, and the DAG files hold no logic."""
    for path in (ROOT / "dags").glob("*.py"):
        tree = ast.parse(path.read_text())
        functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
        assert [f.name for f in functions] == [path.stem]
        assert not any(isinstance(n, ast.If | ast.For | ast.Try) for n in ast.walk(tree))


def test_timeouts_and_delays_have_sane_defaults(dag: Any) -> None:
    """Every task has an end, and is tried again: three times, half a minute apart."""
    for task in dag.tasks:
        assert task.execution_timeout == timedelta(hours=6)
        assert (task.retries, task.retry_delay) == (3, timedelta(seconds=30))
        assert task.has_retry_policy
