"""The laws of the house, folder by folder: who may import whom, and who does no input or output."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest

from tests.support.imports import OURS, ROOT, imported_modules, imports, modules, top

ENGINE = "include.checkpoint_migration"
AT_ROOT = "the root"

# A folder of the engine may use these, and every module at the root. `steps` combines all of them.
ALLOWED: dict[str, set[str]] = {
    AT_ROOT: set(),
    "convert": set(),
    "export": {"convert", "source"},
    "load": {"run"},
    "preflight": set(),
    "promotion": {"run"},
    "readback": set(),
    "reporting": {"preflight", "run", "source"},
    "run": set(),
    "source": set(),
    "undoing": {"run"},
    "verify": {"source"},
}
STEPS = "steps"
# promote proves again what a crash of the server lost; report keeps what the witness found
STEPS_OF_STEPS = {("promote", "verify_staged"), ("report", "verify_counts")}
ORACLES = ("verify", "readback")
CONVERSION = ("convert", "export")
PURE = {
    "convert": "a folder",
    "errors": "a module",
    "figures": "a module",
    "findings": "a module",
    "model": "a module",
    "rehearsal": "a module",
    "texts": "a module",
}
OUTSIDE = {
    "io", "os", "pathlib", "psycopg", "requests", "shutil", "socket", "sqlite3", "subprocess",
    "tempfile", "threading", "time", "urllib",
}  # fmt: skip
LONGEST = 300


ALL = modules(*OURS)
INSIDE = {m: p for m, p in modules("include/checkpoint_migration").items() if m != ENGINE}
USES = {module: imported_modules(module, path, ALL) for module, path in INSIDE.items()}


def folder_of(module: str) -> str:
    """The folder of the engine that a module lies in."""
    rest = module.removeprefix(f"{ENGINE}.")
    is_folder = INSIDE[module].name == "__init__.py" or "." in rest
    return top(rest) if is_folder else AT_ROOT


def reached_from(folder: str) -> dict[str, str]:
    """Every module that a folder's modules import, through however many others, with the way."""
    reached: dict[str, str] = {}
    waiting = [(m, m) for m in INSIDE if folder_of(m) == folder]
    while waiting:
        module, way = waiting.pop()
        if module in reached or module not in INSIDE:
            continue
        reached[module] = way
        waiting += [(used, f"{way} > {used}") for used in USES[module]]
    return reached


def test_every_folder_has_its_law() -> None:
    """A new folder of the engine says what it may use before it is merged."""
    assert {folder_of(module) for module in INSIDE} == {*ALLOWED, STEPS}


@pytest.mark.parametrize("folder", ALLOWED)
def test_a_folder_uses_only_what_its_law_allows(folder: str) -> None:
    """Nothing but steps combines stages, and nothing at the root knows a stage."""
    allowed = ALLOWED[folder] | {AT_ROOT, folder}
    offenders = [
        f"{module} uses {used}"
        for module in INSIDE
        if folder_of(module) == folder
        for used in USES[module]
        if used not in INSIDE or folder_of(used) not in allowed
    ]
    assert offenders == []


def test_a_step_uses_no_other_step() -> None:
    """A step is reached by its task alone, but for the two exceptions that have a reason."""
    steps = f"{ENGINE}.{STEPS}."
    found = {
        (module.removeprefix(steps), used.removeprefix(steps))
        for module in INSIDE
        for used in USES[module]
        if module.startswith(steps) and used.startswith(steps)
    }
    assert found == STEPS_OF_STEPS


@pytest.mark.parametrize("oracle", ORACLES)
def test_an_oracle_reaches_no_conversion(oracle: str) -> None:
    """An oracle that shares code with the conversion shares its bugs: by no way is there one."""
    ways = [way for module, way in reached_from(oracle).items() if folder_of(module) in CONVERSION]
    assert ways == []


def test_no_module_is_in_a_circle() -> None:
    """Dependencies run one way, between modules too."""
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " > ".join((*way, module))
        if module not in done:
            for used in USES.get(module, ()):
                visit(used, (*way, module))
            done.add(module)

    for module in INSIDE:
        visit(module, ())


@pytest.mark.parametrize("module", [m for m in INSIDE if top(m.removeprefix(f"{ENGINE}.")) in PURE])
def test_a_pure_room_does_no_input_or_output(module: str) -> None:
    """Conversion, nouns and words are functions of their arguments."""
    path = INSIDE[module]
    assert {top(base) for base, _ in imports(module, path)} & OUTSIDE == set()
    calls = [n.func for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
    assert not any(isinstance(c, ast.Name) and c.id in ("open", "print", "input") for c in calls)


def test_what_says_that_it_is_pure_is_pure() -> None:
    """A module whose first sentences end with `Pure.` opens no file and asks no server."""
    checked = 0
    for module, path in INSIDE.items():
        told = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\n")[0]
        if "Pure" in told and folder_of(module) != "convert":
            checked += 1
            taken = {(top(base), name) for base, name in imports(module, path)}
            composing = {("psycopg", "sql")}  # puts statements together, and runs none
            outside = {base for base, _ in taken - composing} & OUTSIDE - {"pathlib"}
            assert outside == set(), module
    assert checked >= 5


def test_airflow_is_imported_in_its_own_folders_only() -> None:
    """The engine knows nothing of Airflow: what runs it and what shows it alone import it."""
    offenders = [
        module
        for module, path in modules("include", "dags", "plugins").items()
        if not re.match(r"(dags|plugins|include\.(orchestration|run_page))\b", module)
        and any(top(base) == "airflow" for base, _ in imports(module, path))
    ]
    assert offenders == []


def test_langgraph_is_imported_in_preflight_and_readback_only() -> None:
    """A row is converted and verified without LangGraph; its tables and its eyes are its own."""
    offenders = [
        module
        for module, path in modules("include").items()
        if any(top(base).startswith("lang") for base, _ in imports(module, path))
        and not re.match(rf"{re.escape(ENGINE)}\.(preflight|readback)\b", module)
    ]
    assert offenders == []


def test_orchestration_uses_the_facade_alone() -> None:
    """Airflow's side, the DAGs and the plugins know the engine by its façade."""
    offenders = [
        f"{module} imports {base}"
        for module, path in modules(
            "include/orchestration", "include/run_page", "dags", "plugins"
        ).items()
        for base, _ in imports(module, path)
        if base.startswith(f"{ENGINE}.")
    ]
    assert offenders == []


def test_no_module_imports_a_private_name_of_another() -> None:
    """A name with an underscore stays in its module; what two modules need is no secret."""
    private = re.compile(r"_(?!_)")
    strict = f"{ENGINE}.preflight.strict_msgpack"
    # which classes LangGraph revives unasked: it publishes the list nowhere else
    needed = {(strict, "langgraph.checkpoint.serde", "_msgpack")}
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


def test_no_module_of_include_is_too_long_to_read() -> None:
    """A room that grows past 300 lines has more than one reason to exist."""
    long = {m: len(p.read_text().splitlines()) for m, p in modules("include").items()}
    assert {module: lines for module, lines in long.items() if lines > LONGEST} == {}


def test_each_task_has_a_step_of_its_name() -> None:
    """The façade's function, its step and the step's record bear the task's name."""
    from include import checkpoint_migration as engine
    from include.checkpoint_migration.run import records

    steps = {path.stem for path in (ROOT / "include/checkpoint_migration/steps").glob("[a-z]*.py")}
    assert all(callable(getattr(engine, step)) for step in steps)
    recorded = {kind.step for kind in records.ALL}
    assert recorded - {"judge_drift"} == steps - {"report"}


def test_the_page_of_a_report_needs_no_driver_and_no_langgraph() -> None:
    """Airflow's API server shows it with nothing but what Airflow itself brings."""
    code = """
import sys
from include import checkpoint_migration as engine
assert set(engine.__all__) <= set(engine._HOMES), set(engine.__all__) - set(engine._HOMES)
for name in ("Counts", "RunLine", "SoFar", "policy", "read_summary", "render_notice", "render_page",
             "render_runs", "summary_so_far"):
    getattr(engine, name)
known = engine.SoFar(dag_id="d", run_id="r", rehearsal=False, progress=None)
summary = engine.summary_so_far(known)
assert "r" in engine.render_page(summary.report, summary.facts)
heavy = {m.partition(".")[0] for m in sys.modules} & {"psycopg", "langgraph", "zstandard", "airflow"}
assert not heavy, heavy
for name in engine.__all__:
    getattr(engine, name)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
