"""Fixtures of all tests, and the rule that in CI nothing is left out silently."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}

if "PYTEST_XDIST_WORKER" not in os.environ:
    # Importing Airflow makes files below its home: a session's own, never the user's or the demo's.
    os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(
        prefix=f"checkpoint-migration-tests-{os.getpid()}-airflow-"
    )
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(ROOT / "dags")
os.environ["AIRFLOW__CORE__PLUGINS_FOLDER"] = str(ROOT / "plugins")
for name in [n for n in os.environ if n.startswith(("AIRFLOW_CONN_", "CHECKPOINT_MIGRATION_"))]:
    del os.environ[name]

_quiet = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("default", max_examples=100, deadline=None, suppress_health_check=_quiet)
settings.register_profile("quick", settings.get_profile("default"), max_examples=10)
settings.register_profile(
    "ci", settings.get_profile("default"), derandomize=True, print_blob=True, database=None
)
settings.register_profile("nightly", settings.get_profile("default"), max_examples=10_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if CI else "default"))

from tests.support.night import BY_NIGHT  # noqa: E402 - after the environment is set

# What takes minutes is for the night, or for whoever asks for it by its setting.
collect_ignore = [] if BY_NIGHT or "CELERY_CHECKPOINTS" in os.environ else ["dag/test_celery.py"]

from tests.support import postgres as pg  # noqa: E402 - after the environment is set
from tests.support import sample as samples  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        config.stash[SERVER_FOLDER] = Path(config.workerinput["postgres_folder"])
        return
    pg.sweep()
    config.stash[SERVER_FOLDER] = pg.new_folder()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell an xdist worker where the session's server is, or is to be."""
    node.workerinput["postgres_folder"] = str(node.config.stash[SERVER_FOLDER])


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what the session has started, when the last of its workers is gone."""
    if not hasattr(config, "workerinput") and SERVER_FOLDER in config.stash:
        pg.postgres_server.remove(config.stash[SERVER_FOLDER])
        shutil.rmtree(os.environ["AIRFLOW_HOME"], ignore_errors=True)


SERVER_FOLDER = pytest.StashKey[Path]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """By night the tests of a module run the other way round: none may need what another left.

    Workers take tests from each other, so by day their order is not certain either.
    """
    if BY_NIGHT:
        modules = groupby(items, key=lambda item: item.nodeid.partition("::")[0])
        items[:] = [item for _, tests in modules for item in reversed(list(tests))]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {_reason(report.longrepr)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    report = yield
    if CI and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} skipped, which CI does not allow: " + _reason(
            report.longrepr
        )
    return report


def _reason(told: Any) -> str:
    return str(told[2] if isinstance(told, tuple) else told)


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> pg.TestServer:
    """The server of this session: TEST_POSTGRES_DSN's, else one of our own on a free port."""
    return pg.session_server(request.config.stash[SERVER_FOLDER])


@pytest.fixture
def database(postgres_server: pg.TestServer) -> Iterator[pg.Database]:
    """A fresh, empty database, dropped afterwards."""
    with postgres_server.database() as fresh:
        yield fresh


@pytest.fixture
def sample(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the demo's sample: 3,000 checkpoints in 20 threads."""
    return samples.copy_sample(_shared(request) / "samples", tmp_path / "sample.sqlite")


@pytest.fixture
def small_sample(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A small sample of the same kinds: 80 checkpoints in 8 threads."""
    return samples.copy_sample(
        _shared(request) / "samples", tmp_path / "sample.sqlite", threads=8, checkpoints=80
    )


@pytest.fixture
def airflow_env(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """An environment for `scripts/airflow` with a migrated AIRFLOW_HOME that is this test's own."""
    template = _shared(request) / "airflow"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW__DATABASE__")}
    environment["AIRFLOW_HOME"] = str(template)
    with (_shared(request) / "airflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not template.exists():
            listed = ["scripts/airflow", "pools", "list"]
            try:
                subprocess.run(listed, cwd=ROOT, env=environment, check=True, capture_output=True)
            except BaseException:
                shutil.rmtree(template, ignore_errors=True)
                raise
    home = tmp_path / "airflow"
    home.mkdir()
    for name in ("airflow.db", ".metadata-ready"):
        shutil.copyfile(template / name, home / name)
    return {**environment, "AIRFLOW_HOME": str(home)}


def _shared(request: pytest.FixtureRequest) -> Path:
    """Return the folder that this session's workers share."""
    return request.config.stash[SERVER_FOLDER]
