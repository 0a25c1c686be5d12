"""The SQL that a report offers: which statements, where they look, how they quote."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from include.checkpoint_migration.errors import TargetUnreachable
from include.checkpoint_migration.findings import Difference, Verdict
from include.checkpoint_migration.reporting.build import worded
from include.checkpoint_migration.reporting.report_json import Report, Stages
from include.checkpoint_migration.reporting.sentence import Situation
from tests.support.reports import (
    LIVE,
    NOT_KNOWN,
    NOT_LIVE,
    REHEARSAL,
    SETTINGS,
    difference,
    earliest,
    failed,
    report_of,
)


def what_of(report: Report) -> list[str]:
    return [re.split("[ .:]", statement.what)[0] for statement in report.sql]


@pytest.mark.parametrize(
    ("report", "whats"),
    [
        (report_of(), ["Count", "Total"]),
        (
            report_of(verdict=Verdict.DIFFERENT, succeeded=False, differences=[difference()]),
            ["Count", "Total", "Look", "Before", "Take", "Drop"],
        ),
        (
            report_of(
                NOT_LIVE, verdict=Verdict.DIFFERENT, succeeded=False, differences=[difference()]
            ),
            ["Look", "Drop"],
        ),
        (failed(TargetUnreachable("no.", next="wait."), NOT_KNOWN), ["Count", "Total", "Drop"]),
        (report_of(Situation(settings=REHEARSAL, promoted=True)), []),
        (earliest(), []),
    ],
)
def test_statements_fit_the_situation(report: Report, whats: list[str]) -> None:
    """Taking rows out is offered only when the verdict is `different` and rows may be live."""
    assert what_of(report) == whats


def test_staging_is_offered_to_be_dropped_only_where_there_is_one() -> None:
    """A run that was refused before it staged anything has nothing to drop."""
    refused = failed(TargetUnreachable("no.", next="wait."), Situation(settings=SETTINGS))
    assert "Drop" not in what_of(refused)


def test_differences_before_promote_are_looked_at_in_staging() -> None:
    """Where nothing is live, the differing row is in staging, and a conflicting one in live."""
    report = report_of(
        NOT_LIVE,
        verdict=Verdict.DIFFERENT,
        succeeded=False,
        differences=[difference("staged")],
        conflicts=[difference("live")],
    )
    looks = [s.statement for s in report.sql if s.what.startswith("Look")]
    assert f'"{SETTINGS.staging_schema}"."checkpoints"' in next(s for s in looks if "'staged'" in s)
    assert '"public"."checkpoints"' in next(s for s in looks if "'live'" in s)


def test_ids_that_postgresql_cannot_hold_are_not_looked_for() -> None:
    """An id with a NUL or a lone surrogate has no row to look at, nor has a place without an id."""
    places = [difference("a\0b"), difference("\ud800"), difference("a", id="")]
    report = report_of(verdict=Verdict.DIFFERENT, succeeded=False, differences=places)
    assert "Look" not in what_of(report)


def test_names_and_texts_are_quoted() -> None:
    """A schema or an id made to break out of its quotes stays inside them."""
    schema = 'pub"lic; DROP TABLE x; --'
    report = report_of(
        Situation(settings=replace(SETTINGS, target_schema=schema), promoted=True),
        verdict=Verdict.DIFFERENT,
        succeeded=False,
        differences=[difference("'; DROP TABLE y; --"), difference("back\\slash' OR 1=1")],
    )
    statements = "\n".join(s.statement for s in report.sql)
    assert '"pub""lic; DROP TABLE x; --"."checkpoints"' in statements
    assert "thread_id = '''; DROP TABLE y; --'" in statements
    assert r"thread_id =  E'back\\slash'' OR 1=1'" in statements


def test_statements_hold_only_what_prints() -> None:
    """Text direction marks, line breaks and escapes of a terminal are written in ASCII."""
    report = report_of(
        verdict=Verdict.DIFFERENT,
        succeeded=False,
        differences=[difference("\u202eabc\n\x1b[31m'{x}"), difference("naïve ✓")],
    )
    statements = "\n".join(s.statement for s in report.sql)
    assert r"E'\U0000202eabc\U0000000a\U0000001b[31m''{x}'" in statements
    assert "'naïve ✓'" in statements
    assert statements.replace("\n", "").isprintable()


def test_an_item_of_the_store_is_looked_at_and_taken_out_by_its_key() -> None:
    """A finding about the store leads to its own table, quoted as any other, with no thread asked for."""
    item = Difference("", "users.o'brien", "k", "store", "value", "the value is not equal")
    report = report_of(verdict=Verdict.DIFFERENT, succeeded=False, differences=[item])
    report = replace(report, counts=replace(report.counts, store=Stages(1, 1, 1, 1, 0)))
    report = worded(report, LIVE)
    assert what_of(report) == ["Count", "Total", "Count", "Look", "Before", "Take", "Take", "Drop"]
    look = report.sql[3].statement
    assert '"public"."store"' in look
    assert "'users.o''brien'" in look
    assert "thread_id" not in look
    assert any('DELETE FROM "public"."store"' in s.statement for s in report.sql)
