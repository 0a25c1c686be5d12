"""The page: what it shows, how it escapes, and that it fetches and runs nothing."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from include.checkpoint_migration.errors import VerificationFailed
from include.checkpoint_migration.findings import Caution, Difference, Verdict
from include.checkpoint_migration.model import ThreadStat
from include.checkpoint_migration.reporting.build import (
    build_phases,
    build_source,
    build_store,
    build_threads,
)
from include.checkpoint_migration.reporting.log import log_lines
from include.checkpoint_migration.reporting.report_html import SCRIPT, render_page
from include.checkpoint_migration.reporting.report_json import ChangeFigures, Share, Stages
from tests.support.reports import (
    LIVE,
    SHORT,
    difference,
    earliest,
    failed,
    hostile_report,
    report_of,
)

texts = st.text(st.characters(exclude_categories=()), max_size=30)  # lone surrogates among them


@given(texts, texts, texts)
def test_any_text_leaves_every_form_intact(thread_id: str, ns: str, word: str) -> None:
    """Whatever an id holds: JSON is strict UTF-8, a log line is a line, the page keeps its tags."""
    place = Difference(thread_id, ns, thread_id, "checkpoints", "metadata", "not equal")
    report = report_of(
        verdict=Verdict.DIFFERENT,
        succeeded=False,
        differences=[place],
        warnings=[Caution("kind", "message", 1, (word,))],
        threads=build_threads([ThreadStat(thread_id, 1, 1, 1)], lambda _: Verdict.DIFFERENT),
    )
    msgspec.json.decode(report.to_json())
    assert all(line.isprintable() for line in log_lines(report))
    page = render_page(report)
    page.encode("utf-8")
    assert tags_of(page) <= usual_tags()


class Page(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def tags_of(page: str) -> set[str]:
    return Page(page).tags


@cache
def usual_tags() -> set[str]:
    """The tags of a page whose ids are tame."""
    return tags_of(
        render_page(
            failed(
                VerificationFailed("`not` equal.", next="look."),
                LIVE,
                verdict=Verdict.DIFFERENT,
                differences=[difference()],
                warnings=[Caution("kind", "message", 1, ("a",))],
            )
        )
    )


def test_page_fetches_nothing_and_runs_its_own_script_alone() -> None:
    """The page runs its one script, and has no handler, no link and nothing from outside itself."""
    for report in (report_of(), hostile_report(), earliest()):
        page = render_page(report)
        seen = Page(page)
        assert not seen.tags & {"img", "link", "iframe", "object", "form", "a"}
        assert page.count("<script") == 1
        assert f"<script>{SCRIPT}</script>" in page
        assert not [name for name in seen.attributes if name.startswith("on")]
        assert seen.links == []
        assert not seen.attributes & {"style", "src", "srcset", "xlink:href", "action"}
        assert "url(" not in page
        assert "@import" not in page


def test_page_shows_hostile_ids_as_text() -> None:
    """Ids are shown escaped where they print, spelled out where they do not, and cut when long."""
    page = render_page(hostile_report())
    text = " ".join(Page(page).text)
    assert "<script>document.title='ran'</script>" in text
    assert "'nul\\x00here'" in text
    assert "'line\\nbreak\\rand\\ttab'" in text
    assert "'lone \\ud800 surrogate'" in text
    assert "'\\u202eright to left'" in text
    assert "(10,000 characters)" in text
    assert "{{ 7 * 7 }}{% raw %}" in text
    assert "x" * 100 not in page
    page.encode("utf-8")


def test_page_holds_only_what_prints() -> None:
    """Escapes of a terminal, NUL and direction marks are spelled out, whatever text they are in."""
    odd = "\x1b[31m\0\ud800\u202e"
    report = failed(
        VerificationFailed(odd, safe=odd, next=odd),
        source=build_source(odd),
        warnings=[Caution(odd, odd, 1)],
        phases=build_phases([(odd, 1.0, None)]),
        differences=[Difference(odd, odd, odd, odd, odd, odd)],
    )
    page = render_page(report)
    assert page.replace("\n", "").isprintable()
    assert page.count("\\x1b[31m\\x00\\ud800\\u202e") >= 10


def test_page_opens_with_the_verdict_in_four_lines() -> None:
    """The sentence, whether to switch, the verdict, whether counts agree and the duration come before all else."""
    report = report_of()
    text = " ".join(" ".join(Page(render_page(report).partition("<main")[2]).text).split())
    opening = text[text.index(report.sentence) :]
    assert opening.startswith(
        f"{report.sentence} Switch the application over to PostgreSQL? Yes After the steps below, in "
        "this order: every row is live and proven equal, but what the application has written to "
        "SQLite since is not among them. Verdict identical Counts agree, from SQLite to the live "
        "tables Duration 42 s · 2026-03-01 12:00:00 to 12:00:42 UTC"
    )


def test_page_never_says_that_all_is_live_where_rows_were_removed() -> None:
    """Rows that the application removed on PostgreSQL are not live: whoever switches is told."""
    report = report_of(warnings=[Caution("removed_on_target", "not brought back", 16)])
    text = " ".join(Page(render_page(report)).text)
    assert "every row is live" not in text
    assert "rows that were removed on PostgreSQL since an earlier run stay away" in text


def test_page_has_every_section_of_a_full_report() -> None:
    """Findings, warnings, drift, phases, threads, SQL and next steps are all on the page."""
    page = render_page(hostile_report())
    headings = re.findall(r"<h2>([^<]+)", page)
    assert headings == [
        "What to do next",
        "VerificationFailed",
        "Differences",
        "Conflicts",
        "Blockers",
        "Warnings",
        "Counts",
        "Threads",
        "Proof",
        "Time",
        "SQL",
    ]
    assert "No differences, no conflicts, no blockers, no warnings." in render_page(report_of())


def test_page_marks_the_figure_that_is_off() -> None:
    """Of the counts, the one that is not what was to be moved is marked."""
    page = render_page(report_of(verdict=Verdict.DIFFERENT, succeeded=False, counts=SHORT))
    assert re.findall(r'class="n off">([^<]*)<', page) == ["855"]


def test_page_wears_both_colour_schemes_and_prints() -> None:
    """The page follows the reader's colour scheme and has a style for paper."""
    page = render_page(report_of())
    assert "color-scheme: light dark" in page
    assert "@media print" in page
    assert 'name="viewport"' in page


def test_a_store_is_counted_and_listed_and_escaped() -> None:
    """Its items stand beside the checkpoints in the counts, and each namespace with its items."""
    report = report_of()
    store = build_store([("users.<b>u1</b>", 7), ("users.u2", 5)], "not_copied")
    counts = replace(report.counts, store=Stages(12, 12, 12, 12, 11))
    drift = replace(report.drift, store=ChangeFigures(1, 2, 3))
    scope = replace(report.scope, store=Share(0, 12))
    page = render_page(replace(report, store=store, counts=counts, drift=drift, scope=scope))
    text = "".join(Page(page).text)
    for part in ("store items", "users.<b>u1</b>", "2 namespaces", "not copied"):
        assert part in text
    assert "<b>u1" not in page
    rows = [line.split() for line in log_lines(replace(report, counts=counts))]
    assert ["store", "items", "12", "12", "12", "12", "11"] in rows
