"""`report.json`: its keys, its texts, reading it again, and what the documentation says of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from include.checkpoint_migration.reporting.build import build_phases, build_store, worded
from include.checkpoint_migration.reporting.report_json import (
    ChangeFigures,
    Report,
    Share,
    Stages,
    read_report,
)
from include.checkpoint_migration.reporting.sentence import Situation
from tests.support.reports import HOSTILE, SETTINGS, blocker, earliest, hostile_report, report_of

ROOT = Path(__file__).resolve().parents[2]
CONTRACT: dict[str, Any] = {
    "version": 1, "run_id": 0, "dag_id": 0, "started": 0, "finished": 0, "succeeded": 0,
    "source": {"uri": 0, "format": 0, "bytes": 0},
    "target": {"conn_id": 0, "database": 0, "schema": 0, "server_version": 0},
    "verdict": 0, "sentence": 0, "next_steps": 0,
    "counts": {
        "checkpoints": {"source": 0, "frozen": 0, "exported": 0, "staged": 0, "live": 0},
        "writes": {"source": 0, "frozen": 0, "exported": 0, "staged": 0, "live": 0},
        "blobs": {"exported": 0, "staged": 0, "live": 0},
    },
    "scope": {
        "threads": {"taken": 0, "left_out": 0},
        "checkpoints": {"taken": 0, "left_out": 0},
        "globs": 0,
    },
    "threads": {"total": 0, "listed": 0, "omitted": 0},
    "differences": 0, "conflicts": 0, "warnings": 0, "blockers": 0,
    "drift": {
        "checkpoints": {"added": 0, "changed": 0, "removed": 0},
        "writes": {"added": 0, "changed": 0, "removed": 0},
    },
    "error": 0, "phases": 0, "sql": 0,
}  # fmt: skip


def keys_of(value: Any) -> Any:
    """The nested keys of an object, in order; anything else is 0."""
    if not isinstance(value, dict):
        return 0
    return [(key, keys_of(inner)) for key, inner in value.items()]


@pytest.mark.parametrize("report", [report_of(), earliest(), hostile_report()])
def test_all_keys_are_there_and_in_order(report: Report) -> None:
    """However far a run came, `report.json` has the keys of version 1, in the contract's order."""
    written = json.loads(report.to_json())
    assert keys_of({**written, "error": 0}) == keys_of(CONTRACT)
    assert written["version"] == 1


def with_store(report: Report) -> Report:
    """The same report of a run that took a store and its vectors."""
    counts = replace(report.counts, store=Stages(), store_vectors=Stages())
    scope = replace(report.scope, store=Share(3, 0))
    drift = replace(report.drift, store=ChangeFigures(0, 1, 0), store_vectors=ChangeFigures())
    store = build_store([("users.u1", 2), ("users", 1)], "copied")
    return replace(report, counts=counts, scope=scope, drift=drift, store=store)


def test_keys_of_the_store_are_there_with_a_store_alone() -> None:
    """A run that took a store adds its keys behind the others, and reads back as it was written."""
    report = with_store(report_of())
    written = json.loads(report.to_json())
    assert list(written["counts"]) == ["checkpoints", "writes", "blobs", "store", "store_vectors"]
    assert list(written["scope"]) == ["threads", "checkpoints", "globs", "store"]
    assert list(written["drift"]) == ["checkpoints", "writes", "store", "store_vectors"]
    assert list(written)[-1] == "store"
    assert list(written["store"]) == ["namespaces", "listed", "omitted", "vectors"]
    assert written["store"]["listed"][0] == {"namespace": "users.u1", "items": 2}
    assert read_report(report.to_json()) == report


def test_figures_not_reached_are_null() -> None:
    """A run that failed before it looked at anything has null for every figure, and no zero."""
    written = json.loads(earliest().to_json())
    figures = [
        *written["counts"]["checkpoints"].values(),
        *written["counts"]["writes"].values(),
        *written["counts"]["blobs"].values(),
        *written["drift"]["checkpoints"].values(),
        *written["drift"]["writes"].values(),
        *written["source"].values(),
        *written["target"].values(),
        written["threads"]["total"],
        written["threads"]["omitted"],
        written["started"],
        written["finished"],
    ]
    assert figures == [None] * len(figures)
    assert written["threads"]["listed"] == []


def test_items_of_lists_have_the_contracts_keys() -> None:
    """Threads, findings, phases, SQL and the error have the keys that the contract names."""
    written = json.loads(hostile_report().to_json())
    place = ["thread_id", "checkpoint_ns", "checkpoint_id"]
    assert list(written["threads"]["listed"][0]) == [
        "thread_id",
        "verdict",
        "checkpoints",
        "writes",
    ]
    assert list(written["blockers"][0]) == [*place, "column", "why"]
    assert list(written["differences"][0]) == [*place, "table", "column", "why"]
    assert list(written["conflicts"][0]) == [*place, "table", "column", "why"]
    assert list(written["warnings"][0]) == ["kind", "message", "count", "threads"]
    assert list(written["phases"][0]) == ["name", "seconds", "checkpoints_per_second"]
    assert list(written["sql"][0]) == ["what", "statement"]
    assert list(written["error"]) == ["type", "what", "safe", "next", "transient"]


def test_ids_survive_and_lone_surrogates_are_escaped() -> None:
    """Ids are exact in `report.json`; a lone surrogate alone, which UTF-8 lacks, is spelled out."""
    data = hostile_report().to_json()
    ids = [line.thread_id for line in read_report(data).threads.listed]
    assert ids == [name.replace("\ud800", "\\ud800") for name in HOSTILE]
    assert json.loads(data.decode("utf-8"))["threads"]["listed"][4]["thread_id"] == "nul\0here"


def test_read_report_returns_what_was_written() -> None:
    """Reading `report.json` gives the same report, and writing that the same bytes."""
    report = report_of(phases=build_phases([("export", 1.5, 856)]), blockers=[blocker()])
    assert read_report(report.to_json()) == report
    assert read_report(report.to_json()).to_json() == report.to_json()


def test_read_report_refuses_another_shape() -> None:
    """A file that is no report is refused, not filled with defaults."""
    with pytest.raises(msgspec.ValidationError):
        read_report(b'{"version": 1, "verdict": "perhaps"}')


def test_example_of_the_documentation_is_a_report() -> None:
    """The example in `docs/report-json.md` reads as a report and has its keys and no others."""
    text = (ROOT / "docs" / "report-json.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    report = read_report(example.encode())
    assert json.loads(report.to_json()) == json.loads(example)
    assert keys_of({**json.loads(example), "error": 0}) == keys_of(CONTRACT)
    settings = replace(SETTINGS, dag_id=report.dag_id, run_id=report.run_id)
    assert worded(report, Situation(settings=settings, promoted=True)) == report


def test_documentation_explains_every_key() -> None:
    """Every key of a report, at any depth, has a row in the documentation's tables."""
    text = (ROOT / "docs" / "report-json.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"^\| `([^`]+)`", text, re.MULTILINE))
    written = json.loads(with_store(hostile_report()).to_json())

    def paths(value: Any, at: str) -> Iterator[str]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield f"{at}{key}"
                yield from paths(inner, f"{at}{key}.")
        elif isinstance(value, list) and value:
            yield from paths(value[0], f"{at.removesuffix('.')}[].")

    assert set(paths(written, "")) == explained
