"""What the documents say is there: commands, params, settings, errors, files, tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from include.checkpoint_migration import Verdict, failures, parse_settings
from include.checkpoint_migration.findings import Caution, Counts, Drift
from include.checkpoint_migration.reporting.build import build_counts, build_drift, build_report
from include.checkpoint_migration.reporting.log import log_lines
from include.checkpoint_migration.reporting.report_json import Threads
from include.checkpoint_migration.reporting.sentence import Situation
from include.orchestration.deployment import PREFIX, read_deployment
from include.orchestration.params import migration_params

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "README.md").read_text()
DOCS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def section(title: str) -> str:
    """A section of the README, without its subsections' headings."""
    return README.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def first_cells(text: str) -> list[str]:
    """The code in the first column of a table."""
    return re.findall(r"^\| `([^`]+)`", text, re.MULTILINE)


def test_every_make_target_of_the_readme_exists() -> None:
    """A command that the README shows is a target of the Makefile."""
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    shown = set(re.findall(r"(?:^\$ |`)make ([a-z]+)", README, re.MULTILINE))
    assert shown
    assert shown <= targets


def test_the_readme_lists_every_param_with_its_default() -> None:
    """The table of params is the trigger form: the same names, the same defaults."""
    params = migration_params(read_deployment())
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section("Params"), re.MULTILINE)
    assert {name for name, _ in rows} == set(params)
    for name, default in rows:
        if default.startswith("`"):
            value = params[name].value
            spelled = {True: "true", False: "false", None: "null"}.get(value, str(value))
            assert default.strip("` ") == spelled, name


def test_the_readme_lists_every_setting_of_a_deployment() -> None:
    """Each variable that the code reads is in the table, and none that it does not."""
    code = (ROOT / "include/orchestration/deployment.py").read_text()
    read = set(re.findall(r'_(?:text|number)\(\s*"([A-Z_]+)"', code))
    assert set(first_cells(section("Settings of a deployment"))) == read
    assert PREFIX in section("Settings of a deployment")


def test_the_errors_of_the_readme_are_in_the_failure_tree() -> None:
    """Whoever looks an error up finds the name that the log shows."""
    names = {kind.__name__ for kind in failures()}
    shown = set(re.findall(r"`([A-Z]\w+)`", section("If it fails")))
    assert len(shown) > 8
    assert shown <= names


@pytest.mark.parametrize("document", DOCS, ids=lambda path: path.name)
def test_every_file_that_a_document_names_exists(document: Path) -> None:
    """Links and names of tests lead somewhere."""
    text = document.read_text()
    links = re.findall(r"\]\(([^)#]+)\)", text)
    named = re.findall(r"`((?:tests|docs|scripts|include|dags)/[\w/.-]+\.\w+)`", text)
    missing = [name for name in links if not (document.parent / name).exists()]
    missing += [name for name in named if not (ROOT / name).exists()]
    assert not missing


def test_the_sample_output_is_what_the_log_prints() -> None:
    """The output shown in the README is, line by line, what these figures print today."""
    counts = [Counts(3000, 17_697)] * 2 + [Counts(3000, 17_697, 16_749)] * 3
    stages = dict(zip(("source", "frozen", "exported", "staged", "live"), counts, strict=True))
    found = re.search(r"^  1: (.*\n    .*) \(strict_msgpack\)$", README, re.MULTILINE)
    assert found is not None
    message = " ".join(found[1].split())
    settings = parse_settings(
        {"source": "/s.sqlite"},
        dag_id="migrate_checkpoints",
        run_id="r",
        default_export_uri="/exports",
    )
    report = build_report(
        Situation(settings=settings, promoted=True),
        dag_id="migrate_checkpoints",
        run_id="r",
        started=None,
        finished=None,
        succeeded=True,
        verdict=Verdict.IDENTICAL,
        counts=build_counts(**stages),
        threads=Threads(20, (), 20),
        warnings=(Caution("strict_msgpack", message, 1),),
        drift=build_drift(Drift()),
    )
    shown = section("The DAG").split("```text\n")[-1].split("```")[0].splitlines()
    printed = log_lines(report)
    assert (
        shown[: printed.index("Drift: none.") + 1] == printed[: printed.index("Drift: none.") + 1]
    )
    assert shown[-2] == "verdict: identical"
    assert shown[-1].startswith("report: /")
