"""The project's files: what is pinned, what they promise, what must not stand in them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.imports import OURS, imports, modules, top

ROOT = Path(__file__).resolve().parent.parent.parent
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*")


def direct_requirements() -> set[str]:
    names = set()
    for file in ("requirements.txt", "requirements-s3.txt", "requirements-dev.txt"):
        for line in (ROOT / file).read_text().splitlines():
            if found := NAME.match(line):
                names.add(canonical(found[0]))
    return names


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_lock_pins_every_requirement_and_names_no_index() -> None:
    """Each package of the lock has one exact version for each Python, and comes from anywhere."""
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    lines = [
        line for line in text.splitlines() if line.strip() and not line.strip().startswith("#")
    ]
    pinned = re.compile(r"([a-z0-9-]+)==[0-9][^ ;]*( ; .+)?")
    assert [line for line in lines if not pinned.fullmatch(line)] == []
    names = {line.partition("==")[0] for line in lines}
    assert direct_requirements() - names == set()


def test_requirements_cover_what_the_engine_imports() -> None:
    """A worker that installed requirements.txt can import all of dags, plugins and include."""
    homes = {"airflow": "apache-airflow", "Crypto": "pycryptodome"}
    brought = {"fastapi", "starlette", "pendulum", "sqlalchemy"}  # by Airflow itself
    wanted = set()
    for module, path in modules("include", "dags", "plugins").items():
        for base, _ in imports(module, path):
            package = home_of(base)
            if package not in sys.stdlib_module_names | brought | set(OURS):
                wanted.add(canonical(homes.get(package, package)))
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    worker = {canonical(found[0]) for line in lines if (found := NAME.match(line))}
    assert wanted - worker == set()


def home_of(module: str) -> str:
    """The package that brings a module: LangGraph's savers are packages of their own in its namespace."""
    saver = re.match(r"langgraph\.checkpoint\.(postgres|sqlite)\b", module)
    if saver:
        return f"langgraph-checkpoint-{saver[1]}"
    return (
        "langgraph-checkpoint-postgres"
        if module.startswith("langgraph.checkpoint")
        else top(module)
    )


def test_make_alone_lists_the_documented_targets() -> None:
    """`make` says what it can do, a line for each target."""
    alone = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    listed = subprocess.run(
        ["make"], cwd=ROOT, env=alone, capture_output=True, text=True, check=True
    ).stdout
    targets = re.findall(r"^make ([a-z]+) +\S.*$", listed, re.MULTILINE)
    assert len(targets) == len(listed.splitlines())
    assert {"setup", "demo", "test", "airflow", "bench"} <= set(targets)
    makefile = (ROOT / "Makefile").read_text()
    assert targets == re.findall(r"^([a-z]+):.*## ", makefile, re.MULTILINE)


def test_compose_file_is_valid() -> None:
    """`docker compose` has a schema, and the stand keeps to it."""
    checker = Path(sys.executable).with_name("check-jsonschema")
    command = [checker, "--builtin-schema", "vendor.compose-spec", ROOT / "docker-compose.yaml"]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_compose_file_holds_no_secret() -> None:
    """Every password, key and secret of the stand comes from outside, and none has a default."""
    stand = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
    secret = re.compile(r"PASSWORD$|SECRET|_KEY$|CONN")
    checked = 0
    for name, value in variables(stand):
        if secret.search(name) and "PASSWORDS_FILE" not in name:
            checked += 1
            assert re.search(r"\$\{[A-Z_]+:\?[^}]+\}", value), name
            assert not re.search(r"//[^:/]*:[^$][^/]*@", value), name
    assert checked >= 6


def variables(node: Any) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "environment":
                yield from ((k, str(v)) for k, v in value.items())
            yield from variables(value)


def test_compose_file_runs_the_locked_airflow() -> None:
    """The image is of the release that the tests run on."""
    locked = re.search(
        r"^apache-airflow==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE
    )
    image = re.search(
        r"^FROM apache/airflow:(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE
    )
    assert locked is not None
    assert image is not None
    assert image[1] == locked[1]


def test_lint_exceptions_carry_their_reason() -> None:
    """Every rule that the whole project leaves out says why."""
    text = (ROOT / "pyproject.toml").read_text()
    ignored = text.split("\nignore = [\n")[1].split("\n]")[0].splitlines()
    assert tomllib.loads(text)["tool"]["mypy"]["strict"] is True
    assert [line for line in ignored if "#" not in line] == []


@pytest.mark.parametrize("script", ["scripts/airflow", "scripts/env", "scripts/setup", ".ci/run"])
def test_shell_scripts_parse_and_are_executable(script: str) -> None:
    """A script can be started as it is."""
    path = ROOT / script
    assert path.stat().st_mode & 0o111
    bash = shutil.which("bash")
    assert bash is not None
    subprocess.run([bash, "-n", path], check=True)
