"""Foresight: warns of exactly what the savers will refuse later, and reads names without importing."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Send

from include.checkpoint_migration.convert import jsonb
from include.checkpoint_migration.convert.class_names import classes_in
from include.checkpoint_migration.convert.value_warnings import (
    EXAMPLES,
    MESSAGES,
    ValueWarnings,
    is_unwritable,
)
from tests.support.values import Address, Colour, Mood, Order, Point, values

SERDE = JsonPlusSerializer()
plain = st.one_of(st.text(), st.floats(), st.floats(width=32), st.integers(-(2**63), 2**64 - 1))


def packed(value: Any) -> bytes:
    return SERDE.dumps_typed([value])[1][1:]


def refused_inline(value: Any) -> bool:
    """Whether `PostgresSaver.put`, which leaves plain values in JSONB, would be refused."""
    return jsonb.refusal(json.dumps(value).encode("utf-8", "surrogatepass")) is not None


# --- what the next put refuses ------------------------------------------------------------------


@given(plain)
@example("")
@example("\0")
@example("x" * 31 + "\0")
@example("x" * 40 + "\0")
@example("x" * 300 + "\0")
@example("x" * 70_000 + "\0")
@example(float("nan"))
@example(float("-inf"))
@example(1e308)
def test_a_plain_value_is_unwritable_if_jsonb_refuses_it(value: Any) -> None:
    """For every text and number at the top of a channel, of every length of header."""
    assert is_unwritable("msgpack", packed(value)) is refused_inline(value)


@given(plain)
def test_the_same_of_json(value: Any) -> None:
    """Values of type json that Python wrote."""
    assert is_unwritable("json", json.dumps(value).encode()) is refused_inline(value)


@given(st.sampled_from([float("nan"), float("inf"), "nul\0"]))
def test_inside_a_container_it_is_no_matter(value: Any) -> None:
    """Lists, maps and objects go into blobs, which take anything."""
    for whole in ([value], {"k": value}, (value,), {1: [value]}, Order(1, [value])):
        assert not is_unwritable("msgpack", packed(whole))
    assert not is_unwritable("json", json.dumps([value]).encode())


def test_lone_surrogates_and_single_precision_count() -> None:
    """Texts that are no UTF-8 and floats of four bytes, which other writers leave."""
    assert is_unwritable("msgpack", b"\xa3\xed\xa0\x80")
    assert is_unwritable("msgpack", b"\xca\x7f\xc0\x00\x00")
    assert not is_unwritable("msgpack", b"\xca\x3f\x80\x00\x00")
    assert is_unwritable("json", b'"\\ud800"')


def test_what_stays_ciphertext_or_pickle_is_not_judged() -> None:
    """An empty slice and another type are nobody's text."""
    assert not is_unwritable("msgpack", b"")
    assert not is_unwritable("pickle", b"\xcb\x7f\xf8\0\0\0\0\0\0")


# --- names of classes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (Order(1, []), {"Order"}),
        ({"deep": [(Address(street="x"), Point(1.0, None))]}, {"Address", "Point"}),
        ([Order(1, [Address(street="x"), Colour.RED])], {"Order", "Address", "Colour"}),
        (Mood.CALM, {"Mood"}),
    ],
    ids=["one", "in containers", "inside one another", "enum"],
)
def test_classes_are_found_by_name(value: Any, names: set[str]) -> None:
    """Also a class inside another one's fields."""
    found = {name for name in classes_in(packed(value)) if name.startswith("tests.")}
    assert found == {f"tests.support.values.{name}" for name in names}


def test_a_send_names_its_class_and_those_of_its_argument() -> None:
    """LangGraph's own classes are found like any other."""
    assert classes_in(packed(Send("n", Order(1, [])))) == {
        "langgraph.types.Send",
        "tests.support.values.Order",
    }


@given(values)
def test_nothing_is_imported(value: Any) -> None:
    """A look for names brings no module in."""
    before = set(sys.modules)
    classes_in(packed(value))
    assert set(sys.modules) == before


@given(st.binary(max_size=60))
@example(b"\xc7\xff\x00")
@example(b"\xd4\x00\xc0")
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\x91" * 100_000)
@example(b"\xc8\xff\xff\x00" + b"\x91" * 0xFFFF)
def test_bytes_that_are_no_msgpack_give_no_name_and_no_error(raw: bytes) -> None:
    """Verification judges bytes; this looks for names, and survives bombs and nesting."""
    assert classes_in(raw) == set() or b"\x92" in raw or b"\x93" in raw or b"\x94" in raw


def test_an_ext_nested_in_ext_a_hundred_deep_is_followed() -> None:
    """By a list of what waits, never by recursion."""
    inner = b"\x93" + b"\xa4mod\x78"[:5] + b"\xa5Inner" + b"\xc0"
    for _ in range(100):
        body = b"\x93\xa1m\xa1C" + _ext(inner)
        inner = body
    assert classes_in(_ext(inner)) == {"m.C", "modx.Inner"}


def _ext(body: bytes) -> bytes:
    return b"\xc9" + len(body).to_bytes(4, "big") + b"\x02" + body


# --- counts and examples ------------------------------------------------------------------------


def test_counts_are_exact_and_examples_are_few() -> None:
    """Every value counts; of the threads the first ten are named, each once."""
    value_warnings = ValueWarnings()
    for n in range(30):
        for _ in range(2):
            value_warnings.note_value(f"thread {n}", "msgpack", "c", packed(float("nan")))
        value_warnings.note_value(f"thread {n}", "msgpack", "c", packed(1.5))
    (warning,) = value_warnings.warnings()
    assert (warning.kind, warning.count, warning.message) == (
        "unwritable",
        60,
        MESSAGES["unwritable"],
    )
    assert warning.threads == tuple(f"thread {n}" for n in range(EXAMPLES))


def test_nothing_to_say_says_nothing() -> None:
    """Ordinary values and ids give no warning and no class."""
    value_warnings = ValueWarnings()
    value_warnings.note_thread("user-1", None)
    for value in (1, "text", None, True, 1.5, [float("nan")], {"k": "\0"}, b"\0"):
        value_warnings.note_value("user-1", "msgpack", "c", packed(value))
    assert value_warnings.warnings() == ()
    assert not value_warnings.classes


@pytest.mark.parametrize("thread", ["0", "42", "-7", "007", "9223372036854775807"])
def test_ids_that_look_like_integers_are_noted(thread: str) -> None:
    """`SqliteSaver` wrote `str(id)`, and an int that the application passes fails on PostgreSQL."""
    value_warnings = ValueWarnings()
    value_warnings.note_thread(thread, b'{"step": 1}')
    assert [(w.kind, w.threads) for w in value_warnings.warnings()] == [("integer_ids", (thread,))]


@pytest.mark.parametrize("thread", ["", "4 2", "42a", "4.2", "+1", "0x1f", "1" * 20, "42\n", "-"])
def test_other_ids_are_not(thread: str) -> None:
    """A text that `str(int)` never gives, or of more digits than SQLite's integers have."""
    value_warnings = ValueWarnings()
    value_warnings.note_thread(thread, b'{"step": 1}')
    assert value_warnings.warnings() == ()


def test_pickled_values_are_noted_and_not_looked_into() -> None:
    """The application needs `pickle_fallback` on PostgreSQL too; no name is read from a pickle."""
    value_warnings = ValueWarnings()
    value_warnings.note_value("t", "pickle", "c", b"cposix\nsystem\n(S'true'\ntR.")
    assert [w.kind for w in value_warnings.warnings()] == ["pickled"]
    assert not value_warnings.classes


def test_ids_that_metadata_shows_to_be_texts_are_no_matter() -> None:
    """An application that passes "7" goes on doing so; one that passed 7 is told of."""
    value_warnings = ValueWarnings()
    value_warnings.note_thread("7", b'{"step": -1}')
    value_warnings.note_thread("7", b'{"step": 0, "thread_id": "7"}')
    value_warnings.note_thread("8", b'{"step": 0, "thread_id": 8}')
    value_warnings.note_thread("8", b'{"step": 1, "thread_id": 8}')
    value_warnings.note_thread("9", None)
    (warning,) = value_warnings.warnings()
    assert (warning.kind, warning.count, warning.threads) == ("integer_ids", 2, ("8", "9"))
