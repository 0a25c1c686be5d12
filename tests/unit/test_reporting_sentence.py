"""The one sentence of a report, and its line on the counts."""

from __future__ import annotations

from typing import Any

import pytest

from include.checkpoint_migration.findings import Caution, Counts
from include.checkpoint_migration.reporting.build import build_counts
from include.checkpoint_migration.reporting.sentence import counts_line
from tests.support.reports import ALL, DRIFT, SENTENCES, SHORT, report_of


@pytest.mark.parametrize("name", SENTENCES)
def test_sentence_of_each_situation(name: str) -> None:
    """Each verdict and situation has its sentence, and it says where the rows are."""
    report, expected = SENTENCES[name]
    assert report.sentence == expected


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "agree, from SQLite to the live tables"),
        ({"counts": build_counts(source=ALL, frozen=ALL)}, "agree, as far as the run came"),
        ({"counts": build_counts()}, "not reached"),
        ({"counts": SHORT}, "do not agree"),
        (
            {
                "counts": build_counts(
                    source=Counts(900, 1240), frozen=ALL, exported=ALL, staged=ALL, live=ALL
                ),
                "drift": DRIFT,
            },
            "agree from the frozen source on; SQLite has changed since",
        ),
        (
            {
                "counts": build_counts(
                    source=ALL, frozen=ALL, exported=ALL, staged=ALL, live=Counts(850, 1230, 990)
                ),
                "warnings": [Caution("removed_on_target", "not brought back", 16)],
            },
            "agree, but for 16 rows removed from PostgreSQL since an earlier run",
        ),
        (
            {
                "counts": build_counts(
                    source=ALL, frozen=ALL, exported=ALL, staged=ALL, live=Counts(850, 1230, 990)
                ),
                "warnings": [Caution("removed_on_target", "not brought back", 15)],
            },
            "do not agree",
        ),
    ],
)
def test_counts_line_says_whether_counts_agree(changes: dict[str, Any], line: str) -> None:
    """Counts agree, agree as far as the run came, or do not; what explains a gap must fill it."""
    assert counts_line(report_of(**changes)) == line
