"""The project's own laws: who may import whom, what is pinned, what its files promise."""

from __future__ import annotations

import ast
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

ROOT = Path(__file__).resolve().parent.parent.parent
ENGINE = "include.checkpoint_migration"
OURS = ("include", "dags", "plugins", "scripts", "benchmarks")
AIRFLOW_ROOMS = ("dags", "plugins", "include.orchestration")
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*")


def modules(*folders: str) -> dict[str, Path]:
    """Return our modules by their dotted names."""
    found = {}
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(p for p in parts if p != "__init__")] = path
    return found


def imports(module: str, path: Path) -> Iterator[tuple[str, str | None]]:
    """Yield all that a module imports: the absolute name of a module, and the name taken."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base]) if base else ".".join(above)
            yield from ((base, alias.name) for alias in node.names)


def imported_modules(module: str, path: Path, known: dict[str, Path]) -> set[str]:
    """Return which of the known modules one imports, `from package import module` included."""
    taken = set()
    for base, name in imports(module, path):
        whole = f"{base}.{name}"
        taken.add(whole if whole in known else base)
    return taken & known.keys()


def under(module: str, *rooms: str) -> bool:
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


def top(name: str) -> str:
    return name.partition(".")[0]


ALL = modules(*OURS)
ENGINE_MODULES = modules("include/checkpoint_migration")


def test_airflow_is_imported_in_its_own_rooms_only() -> None:
    """The engine knows nothing of Airflow: dags, plugins and orchestration alone import it."""
    offenders = [
        module
        for module, path in modules("include", "dags", "plugins").items()
        if not under(module, *AIRFLOW_ROOMS)
        and any(top(base) == "airflow" for base, _ in imports(module, path))
    ]
    assert offenders == []


def test_langgraph_is_imported_in_preflight_and_readback_only() -> None:
    """A row is converted and verified without LangGraph; its tables and its eyes are its own."""
    offenders = [
        module
        for module, path in modules("include").items()
        if any(top(base).startswith("lang") for base, _ in imports(module, path))
        and not re.match(rf"{re.escape(ENGINE)}\.(preflight|readback|verify\.readback)\b", module)
    ]
    assert offenders == []


@pytest.mark.parametrize("room", ["verify"])
def test_the_oracle_shares_no_code_with_the_conversion(room: str) -> None:
    """Whatever verify imports, through however many modules, none of it converts."""
    conversion = tuple(f"{ENGINE}.{name}" for name in ("convert", "formats", "versions"))
    reached: dict[str, str] = {}
    waiting = [(m, m) for m in ENGINE_MODULES if under(m, f"{ENGINE}.{room}")]
    while waiting:
        module, way = waiting.pop()
        if module in reached or module == ENGINE:  # the façade is no way to anything
            continue
        reached[module] = way
        targets = imported_modules(module, ENGINE_MODULES[module], ENGINE_MODULES)
        waiting += [(target, f"{way} > {target.removeprefix(ENGINE)}") for target in targets]
    assert [way for module, way in reached.items() if under(module, *conversion)] == []


@pytest.mark.parametrize("room", ["convert", "formats", "model"])
def test_pure_rooms_do_no_input_or_output(room: str) -> None:
    """Conversion, formats and nouns are functions of their arguments."""
    outside = {"io", "os", "pathlib", "psycopg", "shutil", "socket", "sqlite3", "subprocess"}
    for module, path in ENGINE_MODULES.items():
        if under(module, f"{ENGINE}.{room}"):
            assert {top(base) for base, _ in imports(module, path)} & outside == set(), module
            calls = [
                n.func for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)
            ]
            assert not any(isinstance(c, ast.Name) and c.id in ("open", "print") for c in calls)


def test_no_module_imports_a_private_name_of_another() -> None:
    """A name with an underscore stays in its module; what two modules need is no secret."""
    private = re.compile(r"_(?!_)")
    needed = {
        # which classes LangGraph revives unasked: it publishes the list nowhere else
        (
            "include.checkpoint_migration.preflight.strict_msgpack",
            "langgraph.checkpoint.serde",
            "_msgpack",
        )
    }
    offenders = [
        f"{module}: from {base} import {name}"
        for module, path in ALL.items()
        for base, name in imports(module, path)
        if ((name and private.match(name)) or any(private.match(p) for p in base.split(".")))
        and (module, base, name) not in needed
    ]
    assert offenders == []


def test_every_module_says_first_why_it_exists() -> None:
    """A module opens with a sentence."""
    silent = []
    for module, path in ALL.items():
        if path.stat().st_size == 0:
            continue
        told = ast.get_docstring(ast.parse(path.read_text())) or ""
        if not re.match(r"\S[^\n]*(\n[^\n]+)*[.:?]", told):
            silent.append(module)
    assert silent == []


def direct_requirements() -> set[str]:
    names = set()
    for file in ("requirements.txt", "requirements-dev.txt"):
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
            package = top(base)
            if package not in sys.stdlib_module_names | brought | set(OURS):
                wanted.add(canonical(homes.get(package, package)))
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    worker = {canonical(found[0]) for line in lines if (found := NAME.match(line))}
    worker.add("langgraph")  # the namespace of the savers
    assert wanted - worker == set()


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
            assert not re.search(r"//[^:/]*:[^$]", value), name
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


@pytest.mark.parametrize("script", ["scripts/airflow", "scripts/setup", ".ci/run"])
def test_shell_scripts_parse_and_are_executable(script: str) -> None:
    """A script can be started as it is."""
    path = ROOT / script
    assert path.stat().st_mode & 0o111
    bash = shutil.which("bash")
    assert bash is not None
    subprocess.run([bash, "-n", path], check=True)
