"""An item of the store becomes PostgresStore's row, or says in which columns it has no place."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.checkpoint_migration.convert.blockers import Unconvertible
from include.checkpoint_migration.convert.store import changes_numbers, convert_item
from include.checkpoint_migration.itemlines import decode_item, encode_item
from include.checkpoint_migration.store_model import ItemRow, VectorRow

NOW = "2026-01-02 03:04:05"
ITEM = ItemRow("users.u1", "k", b'{"a": 1}', NOW, NOW, None, None)
VECTOR = VectorRow("users.u1", "k", "text", struct.pack("<2f", 0.5, -1), NOW, NOW)


def problems(item: ItemRow, *vectors: VectorRow, dimensions: int = 2) -> dict[str, str]:
    with pytest.raises(Unconvertible) as caught:
        convert_item(item, vectors, dimensions)
    return dict(caught.value.problems)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        (NOW, "2026-01-02T03:04:05.000000+00:00"),
        ("2026-01-02T03:04:05", "2026-01-02T03:04:05.000000+00:00"),
        ("2026-01-02 03:04:05.123456+00:00", "2026-01-02T03:04:05.123456+00:00"),
        ("2026-01-02 03:04:05.1+02:00", "2026-01-02T01:04:05.100000+00:00"),
        ("2026-01-02 03:04:05-05:30", "2026-01-02T08:34:05.000000+00:00"),
        ("2026-01-02 03:04:05Z", "2026-01-02T03:04:05.000000+00:00"),
    ],
)
def test_a_moment_is_the_same_instant_whatever_zone_it_says(text: str, moment: str) -> None:
    """CURRENT_TIMESTAMP and DATETIME say no zone and mean UTC; Python's own text says one."""
    assert convert_item(ITEM._replace(expires_at=text), (), 0).expires_at == moment


@given(
    st.datetimes(datetime(1970, 1, 1), datetime(9000, 1, 1)),  # noqa: DTZ001 - a zone is added
    st.integers(-14 * 60, 14 * 60),
)
def test_no_microsecond_is_lost(naive: datetime, minutes: int) -> None:
    """Whatever Python's adapter writes of an aware moment comes out as that moment."""
    moment = naive.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    converted = convert_item(ITEM._replace(expires_at=moment.isoformat(" ")), (), 0)
    assert converted.expires_at is not None
    assert datetime.fromisoformat(converted.expires_at) == moment
    assert converted.expires_at.endswith("+00:00")
    assert datetime.fromisoformat(converted.expires_at).tzinfo == UTC


@pytest.mark.parametrize(
    "moment", ["yesterday", 17, 1.5, b"2026-01-02 03:04:05", "2026-01-02", "2026-13-01 00:00:00",
               "0001-01-01 00:00:00+14:00", "2026-01-02 03:04:05.1234567", "\u0662026-01-02 03:04:05"]
)  # fmt: skip
def test_what_is_no_moment_is_a_problem(moment: Any) -> None:
    """A text that nobody could read as one instant has no place; neither has another type."""
    assert set(problems(ITEM._replace(created_at=moment))) == {"store.created_at"}


@pytest.mark.parametrize(("minutes", "kept"), [(None, None), (5.0, 5), (0.0, 0), (7, 7)])
def test_whole_minutes_are_kept(minutes: Any, kept: int | None) -> None:
    """SQLite has them as REAL, PostgreSQL as INT."""
    assert convert_item(ITEM._replace(ttl_minutes=minutes), (), 0).ttl_minutes == kept


@pytest.mark.parametrize("minutes", [0.5, 1e300, float("inf"), float("nan"), "5", b"5", 2.0**31])
def test_other_minutes_are_a_problem(minutes: Any) -> None:
    """A part of a minute would be rounded, and more does not fit."""
    assert set(problems(ITEM._replace(ttl_minutes=minutes))) == {"store.ttl_minutes"}


@pytest.mark.parametrize(
    "value", [None, 1, b"[1]", b"1", b"{", b'{"a": NaN}', b'{"a": "\\u0000"}', b'{"\xff": 1}', ""]
)
def test_a_value_that_jsonb_or_a_reader_refuses_is_a_problem(value: Any) -> None:
    """So is JSON that is no object: PostgresStore would not read it."""
    assert set(problems(ITEM._replace(value=value))) == {"store.value"}


def test_all_problems_of_an_item_are_told_at_once() -> None:
    """One run names every column that has no place."""
    bad = ItemRow("a\0", b"\xff", b"[]", 1, 2, 3, 0.5)
    found = problems(bad, VECTOR._replace(embedding=b"", field_name="\0", created_at="x"))
    assert set(found) == {
        *(f"store.{column}" for column in ItemRow._fields),
        "store_vectors.field_name",
        "store_vectors.embedding",
        "store_vectors.created_at",
    }


def test_an_item_survives_its_line() -> None:
    """What is written into an export file is what is read from it, on one line."""
    item = ITEM._replace(value='{"a":\n "ü"}', ttl_minutes=5.0, expires_at=NOW)
    converted = convert_item(item, [VECTOR], 2)
    line = encode_item(converted)
    assert line.count(b"\n") == 1
    assert decode_item(line) == converted
    assert converted.value == '{"a":  "ü"}'.encode()
    assert converted.vectors[0].embedding == struct.pack(">HH2f", 2, 0, 0.5, -1)


@pytest.mark.parametrize(
    ("value", "changes"),
    [(b'{"a":1e20}', True), (b'{"a":[-0.0]}', True), (b'{"a":1.5,"b":9}', False), (b"{}", False)],
)
def test_numbers_that_jsonb_writes_otherwise_are_known(value: bytes, changes: bool) -> None:
    """By value they are equal; a report warns of them."""
    assert changes_numbers(value) is changes
