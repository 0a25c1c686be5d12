"""Ids for timestamps: the form and the order of uuid6, the same by three hands, a pure function."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from uuid import RFC_4122

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.checkpoint.base.id import UUID, uuid6

from include.checkpoint_migration.convert.thread_ts import id_of_time
from include.checkpoint_migration.readback.thread_ts import id_of_time as id_read_back
from include.checkpoint_migration.verify.thread_ts import expected_id

ZONES = st.one_of(
    st.just(UTC), st.integers(-1439, 1439).map(lambda m: timezone(timedelta(minutes=m)))
)
MIN, MAX = datetime.fromisoformat("1583-01-01"), datetime.fromisoformat("5235-01-01")
TIMES = st.datetimes(MIN, MAX, timezones=ZONES)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def made(thread: str, time: datetime) -> str:
    found = id_of_time(thread.encode(), time.isoformat().encode())
    assert found is not None
    return found


@given(st.text(), TIMES)
def test_conversion_oracle_and_witness_make_the_same_id(thread: str, time: datetime) -> None:
    """Three hands that share no code agree on every thread and time, in the form of a uuid6."""
    found = made(thread, time)
    given_ = (thread.encode(), time.isoformat().encode())
    assert expected_id(*given_) == found == id_read_back(*given_)
    parsed = UUID(found)
    assert (parsed.version, parsed.variant, str(parsed)) == (6, RFC_4122, found)
    since = (parsed.time - 0x01B21DD213814000) // 10
    assert EPOCH + timedelta(microseconds=since) == time


@given(st.text(), TIMES, TIMES)
def test_ids_are_in_the_order_of_their_times(thread: str, one: datetime, other: datetime) -> None:
    """Compared as texts, as both savers compare them, they are in the order of the instants."""
    if one != other:
        assert (made(thread, one) < made(thread, other)) == (one < other)


@given(st.text(), st.text(), TIMES)
def test_two_threads_never_share_an_id(one: str, other: str, time: datetime) -> None:
    """The rest of an id is a digest of thread and text."""
    assert (made(one, time) == made(other, time)) == (one == other)


def test_the_next_checkpoint_of_an_application_sorts_after() -> None:
    """LangGraph's own uuid6 is of now, and every time in a database is of before."""
    assert made("t", datetime.now(UTC)) < str(uuid6(clock_seq=-2))


@pytest.mark.parametrize(
    "text",
    [
        *("", "2024", "2024-06-10", "2024-06-31T12:00:00", "2024-06-10T24:00:00"),
        *("2024-06-10 12:00:00", "2024-06-10T12:00:60", "2024-06-10T12:00:00.1234567"),
        *("2024-06-10T12:00:00+24:00", "2024-06-10T12:00:00+01:60", "1582-10-14T23:59:59"),
        *("1ef2720f-6832-6000-b1be-4549ef211851", "9999-12-31T23:59:59", "２024-06-10T12:00:00"),
    ],
)
def test_what_is_no_time_has_no_id(text: str) -> None:
    """Neither conversion nor oracle makes an id of what LangGraph never wrote."""
    assert id_of_time(b"t", text.encode()) is None
    assert expected_id(b"t", text.encode()) is None


def test_a_thread_that_is_no_utf_8_has_ids_too() -> None:
    """Its row is a blocker by its key, which the export must live to name."""
    assert id_of_time(b"\xff", b"2024-06-10T12:00:00") is not None
