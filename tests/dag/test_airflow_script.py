"""`scripts/airflow`, which people and other programs call from anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PROBE = """#!/usr/bin/env bash
if [ "$1 $2" = "db migrate" ]; then
  if [ -n "${BROKEN-}" ]; then echo "$BROKEN" >&2; exit 1; fi
  sleep 0.3
  echo once >>"$AIRFLOW_HOME/migrated"
  echo tables >"$AIRFLOW_HOME/airflow.db"
  exit
fi
for name in AIRFLOW_HOME AIRFLOW__CORE__DAGS_FOLDER AIRFLOW__CORE__PLUGINS_FOLDER PYTHONPATH; do
  printf '%s=%s\\n' "$name" "${!name}"
done
printf 'PWD=%s\\nARGS=%s\\n' "$PWD" "$*"
env | grep -c '^AIRFLOW_CONN_' | sed 's/^/CONNECTIONS=/'
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose Airflow only tells what it was called with."""
    repo = tmp_path / "a checkout"
    (repo / "scripts").mkdir(parents=True)
    (repo / ".venv" / "bin").mkdir(parents=True)
    (repo / "scripts" / "airflow").write_bytes((ROOT / "scripts" / "airflow").read_bytes())
    (repo / "scripts" / "airflow").chmod(0o755)
    (repo / ".venv" / "bin" / "airflow").write_text(PROBE)
    (repo / ".venv" / "bin" / "airflow").chmod(0o755)
    (repo / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (repo / "requirements.lock").write_text("apache-airflow-core==1.2.3\n")
    (repo / ".venv" / ".ready").touch()
    return repo


def told(checkout: Path, cwd: Path, script: Path | None = None, **extra: str) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "PYTHONPATH"))}
    command = [script or checkout / "scripts" / "airflow", "version", "a b", "*"]
    done = subprocess.run(
        command, cwd=cwd, env={**clean, **extra}, capture_output=True, text=True, check=True
    )
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def test_it_stays_in_the_callers_folder_and_keeps_all_in_the_repository(
    checkout: Path, tmp_path: Path
) -> None:
    """From another folder it works the same, and leaves nothing there."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    seen = told(checkout, elsewhere)
    assert seen["PWD"] == str(elsewhere)
    assert seen["ARGS"] == "version a b *"
    assert seen["AIRFLOW_HOME"] == str(checkout / ".airflow")
    assert seen["AIRFLOW__CORE__DAGS_FOLDER"] == str(checkout / "dags")
    assert seen["AIRFLOW__CORE__PLUGINS_FOLDER"] == str(checkout / "plugins")
    assert seen["PYTHONPATH"].split(":")[0] == str(checkout)
    assert list(elsewhere.iterdir()) == []


def test_it_is_found_through_a_symbolic_link(checkout: Path, tmp_path: Path) -> None:
    """A link in somebody's bin folder leads to the same project."""
    (tmp_path / "airflow-of-mine").symlink_to(Path("a checkout") / "scripts" / "airflow")
    seen = told(checkout, tmp_path, tmp_path / "airflow-of-mine")
    assert seen["AIRFLOW_HOME"] == str(checkout / ".airflow")


def test_it_overrides_no_variable_of_the_callers(checkout: Path, tmp_path: Path) -> None:
    """What the caller has set is what Airflow sees."""
    own = {
        "AIRFLOW_HOME": str(tmp_path / "home"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(tmp_path / "plugins"),
    }
    seen = told(checkout, tmp_path, **own, AIRFLOW_CONN_X="http://x", PYTHONPATH="/mine")
    assert {name: seen[name] for name in own} == own
    assert seen["PYTHONPATH"] == f"{checkout}:/mine"
    assert seen["CONNECTIONS"] == "1"


def test_it_defines_no_connection(checkout: Path, tmp_path: Path) -> None:
    """Nobody migrates into a demo's server by accident."""
    assert told(checkout, tmp_path)["CONNECTIONS"] == "0"


def test_metadata_database_is_migrated_when_it_has_to_be(checkout: Path, tmp_path: Path) -> None:
    """Several at once migrate once; a deleted database or a newer Airflow means again."""
    home = tmp_path / "home"
    env = {**os.environ, "AIRFLOW_HOME": str(home)}
    listed = [checkout / "scripts" / "airflow", "dags", "list"]

    def migrations() -> int:
        started = [subprocess.Popen(listed, env=env, stdout=subprocess.DEVNULL) for _ in range(3)]
        assert [process.wait(timeout=60) for process in started] == [0, 0, 0]
        return len((home / "migrated").read_text().splitlines())

    assert migrations() == 1
    assert migrations() == 1
    (home / "airflow.db").unlink()
    assert migrations() == 2
    (checkout / "requirements.lock").write_text("apache-airflow-core==1.2.4\n")
    (checkout / ".venv" / ".ready").touch()
    assert migrations() == 3
    assert migrations() == 3


def test_failed_migration_of_metadata_says_why_and_is_tried_again(
    checkout: Path, tmp_path: Path
) -> None:
    """Airflow's own error is shown, the command does not run, and nothing is taken for done."""
    env = {**os.environ, "AIRFLOW_HOME": str(tmp_path / "home"), "BROKEN": "disk on fire"}
    listed = [checkout / "scripts" / "airflow", "dags", "list"]
    failed = subprocess.run(listed, env=env, capture_output=True, text=True)
    assert failed.returncode != 0
    assert "disk on fire" in failed.stderr
    assert failed.stdout == ""
    del env["BROKEN"]
    assert subprocess.run(listed, env=env, capture_output=True).returncode == 0
