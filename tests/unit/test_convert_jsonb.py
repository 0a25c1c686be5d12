"""What JSONB refuses is known beforehand, with the reason, and what it would change too."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.checkpoint_migration.convert.jsonb import TOO_LARGE, exact, refusal

NUL = "it holds NUL (\\u0000)"
SURROGATE = "it holds a lone surrogate"
NOT_FINITE = "it holds NaN or Infinity"
HUGE = "it holds a number beyond PostgreSQL's range"
DEEP = "it is nested deeper than the savers can read"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"{}", None),
        (b' {"a": [1, 2.50, -0.0, 1e20, null, true, "\\u00e9\\n"]}\n', None),
        ('{"é": "🐋"}'.encode(), None),
        (rb'{"a": "\ud83d\udc0b"}', None),  # a pair of surrogates is a character
        (rb'{"a": "\\u0000"}', None),  # a backslash and four digits, no NUL
        (rb'{"a": "\\\u0000"}', NUL),
        (rb'{"a": ["x\u0000y"]}', NUL),
        (rb'{"a\u0000": 1}', NUL),
        (rb'{"a": "\u0000", "a": 1}', NUL),  # the server reads the first one too
        (rb'{"a": "\ud83d", "a": 1}', "it is not JSON that PostgreSQL takes"),
        (rb'{"a": "\ud83d"}', SURROGATE),
        (rb'{"a": "\udc0b\ud83d"}', SURROGATE),
        (rb'{"\ud83d": 1}', SURROGATE),
        (b'{"a": NaN}', NOT_FINITE),
        (b"[Infinity]", NOT_FINITE),
        (b"[-Infinity]", NOT_FINITE),
        (b'{"a": "NaN"}', None),
        (b'{"a": 1e-20000}', HUGE),
        (b'{"a": "1e300000 ' + b"9" * 5_000 + b'"}', None),
        (b"[1" + b"0" * 300 + b"]", None),
        (b"[" * 100_000 + b"]" * 100_000, DEEP),
        (b"[" * 100 + b"]" * 100, None),
        (b'{"a": "\xff"}', "it is not UTF-8"),
        (b'{"a": "\xed\xa0\xbd"}', "it is not UTF-8"),  # a surrogate's own three bytes
        (b"", "it is not JSON"),
        (b"{'a': 1}", "it is not JSON"),
        (b'{"a": 1', "it is not JSON"),
        (b'{"a": 1} 2', "it is not JSON"),
    ],
    ids=lambda part: str(part)[:30],
)
def test_refusal_names_the_reason(text: bytes, why: str | None) -> None:
    """What PostgreSQL refuses is told with its reason; what it takes is not."""
    assert refusal(text) == why


@pytest.mark.parametrize("number", ["1" + "0" * 5_000, "1e300000", "-1e9999", "0." + "1" * 20_000])
def test_numbers_that_one_of_the_readers_cannot_hold_are_refused(number: str) -> None:
    """Numbers of thousands of digits are refused where PostgreSQL or Python's reader would."""
    assert refusal(f'{{"a": {number}}}'.encode()) == HUGE


@given(st.binary(max_size=40) | st.text(alphabet='{}[]",:0123e.-\\u \x00aN', max_size=40))
def test_any_bytes_get_an_answer(drawn: bytes | str) -> None:
    """No bytes crash the check, and what it lets through is JSON."""
    text = drawn if isinstance(drawn, bytes) else drawn.encode()
    if refusal(text) is None:
        json.loads(text)


@given(st.text(max_size=20))
def test_reason_shows_no_value(secret: str) -> None:
    """A reason names what is wrong and shows nothing of the text."""
    for text in (json.dumps({"k": secret + "\0"}), json.dumps([secret, math.nan]), secret + "{"):
        why = refusal(text.encode("utf-8", "surrogatepass"))
        assert why in {NUL, NOT_FINITE, SURROGATE, "it is not JSON", "it is not UTF-8"}


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -(2**200),
        0.0,
        0.1,
        -2.5,
        9e15,
        5e-324,
        "",
        "é🐋\x01",
        [],
        {},
        [1, [2.0, None, {"a": {"b": [False]}}]],
    ],
)
def test_exact_values_pass(value: object) -> None:
    """Plain values that JSONB gives back with the same types."""
    assert exact(value)
    assert exact([{"deep": [value]}])


@pytest.mark.parametrize(
    "value",
    [
        -0.0,
        1e16,
        -1e20,
        math.nan,
        math.inf,
        "a\0",
        "\ud800",
        {"a\0": 1},
        {1: "int key"},
        {None: 1},
        (1, 2),
        b"bytes",
        {1, 2},
        object(),
    ],
)
def test_inexact_values_do_not(value: object) -> None:
    """Values that JSONB would change or refuse, also deep inside others."""
    assert not exact(value)
    assert not exact([{"deep": [value]}])


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        (b'"' + b"x" * (1 << 26) + b'"', True),
        (b'"' + b"x" * (1 << 28) + b'"', False),
        (b'{"a": {"b": "' + b"x" * (1 << 28) + b'"}}', False),
        (b'["' + b"x" * (1 << 27) + b'", "' + b"y" * (1 << 27) + b'"]', False),
        (b"[" + b"true," * (1 << 24) + b"true]", False),
        (b"[[" + b"1," * (1 << 24) + b"1]]", False),
        (b"[" + b"1," * (1 << 22) + b"1]", True),
    ],
    ids=lambda part: f"{len(part):,} bytes" if isinstance(part, bytes) else str(part),
)
def test_what_exceeds_jsonb_is_found_before_the_server_is(text: bytes, fits: bool) -> None:
    """One array, object or text of 256 MiB, or of too many items, has no place in JSONB."""
    assert refusal(text) == (None if fits else TOO_LARGE)


@pytest.mark.slow
def test_too_many_pairs_exceed_jsonb() -> None:
    """An object of more than 2 to the 23 pairs is refused by the server, whatever their size."""
    many = b"{" + b",".join(b'"%d":1' % n for n in range((1 << 23) + 1)) + b"}"
    assert refusal(many) == TOO_LARGE
