"""One version with several contents: one of them keeps it, each other gets one of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import NamedTuple

from hypothesis import example, given
from hypothesis import strategies as st
from langgraph.checkpoint.postgres import PostgresSaver

from include.checkpoint_migration.convert.formats import Split
from include.checkpoint_migration.convert.versions import ABSENT, Key, digest, own_version
from include.checkpoint_migration.export.place_book import Apart, PlaceBook
from include.checkpoint_migration.export.place_book import State as Content
from include.checkpoint_migration.export.version_book import TOGETHER, VersionBook

PLAIN = f"{7:032}.{0.25:016}"


class State(NamedTuple):
    """What a checkpoint of thread `t` holds of a channel."""

    channel: str
    version: str
    raw: bytes | None
    ns: str = ""


def resolved(
    states: Sequence[State],
    live: dict[Key, bytes] | None = None,
    occupied: Iterable[tuple[Key, bytes]] | None = None,
) -> list[tuple[str, bool]]:
    """The version of each state and whether it brings the blob; both books say the same."""
    live = live or {}
    occupied = list(live.items() if occupied is None else occupied)
    found = _by_file(states, live, occupied)
    assert _in_memory(states, live, occupied) == found
    return found


def _in_memory(
    states: Sequence[State], live: dict[Key, bytes], occupied: list[tuple[Key, bytes]]
) -> list[tuple[str, bool]]:
    """As `places` does it: a book for each place, told of what is live after all is noted."""
    books: dict[str, PlaceBook] = {}
    noted = []
    for state in states:
        book = books.setdefault(state.ns, PlaceBook("t", state.ns))
        values = {} if state.raw is None else {state.channel: state.raw}
        envelope = {"channel_versions": {state.channel: state.version}}
        noted.append(book.note(Apart(Split(envelope, values, "msgpack"), "msgpack", None)))
    for key, found in occupied:
        if key.thread_id == "t" and key.checkpoint_ns in books:
            books[key.checkpoint_ns].occupy(key, found)
    for book in books.values():
        book.settle(live.get)
    return [
        (
            books[state.ns].version_of(state.channel, state.version, Content("msgpack", state.raw)),
            state.channel in first,
        )
        for state, first in zip(states, noted, strict=True)
    ]


def _by_file(
    states: Sequence[State], live: dict[Key, bytes], occupied: list[tuple[Key, bytes]]
) -> list[tuple[str, bool]]:
    with closing(VersionBook()) as book:
        for ordinal, state in enumerate(states):
            book.turn_to("t", state.ns)
            book.note(ordinal, state.channel, state.version, "msgpack", state.raw)
        book.settle(live.get, iter(occupied))
        book.rewind()
        found = []
        for ordinal, state in enumerate(states):
            book.turn_to("t", state.ns)
            found.append(book.resolve(ordinal, state.channel, state.version, "msgpack", state.raw))
        return found


def own(raw: bytes | None, version: str = PLAIN) -> str:
    return own_version(version, ABSENT if raw is None else digest("msgpack", raw))


states = st.builds(
    State,
    st.sampled_from(["a", "b"]),
    st.sampled_from(["1.0", "2.0", PLAIN]),
    st.sampled_from([None, b"\x01", b"\x02", b"\x03", b""]),
    st.sampled_from(["", "sub:1"]),
)


@given(st.lists(states, max_size=14))
@example([State("a", "1.0", None), State("a", "1.0", b"\x01"), State("a", "1.0", None)])
@example([State("a", "1.0", b"\x01"), State("a", "1.0", b"\x02"), State("a", "1.0", b"\x01")])
def test_each_content_has_one_version_and_each_version_one_content(drawn: list[State]) -> None:
    """Equal states share a version, different ones never do, and the first keeps the plain one."""
    found = resolved(drawn)
    finals: dict[State, str] = {}
    first: dict[tuple[str, str, str], State] = {}
    for state, (final, _) in zip(drawn, found, strict=True):
        assert finals.setdefault(state, final) == final
        first.setdefault((state.ns, state.channel, state.version), state)
    assert len({(s.ns, s.channel, final) for s, final in finals.items()}) == len(finals)
    for state, final in finals.items():
        keeps = first[state.ns, state.channel, state.version] == state
        assert final == (state.version if keeps else own(state.raw, state.version))


@given(st.lists(states, max_size=14))
def test_each_blob_is_brought_once_and_first(drawn: list[State]) -> None:
    """Of the checkpoints with the same content, the first brings the blob, and no other."""
    seen: set[State] = set()
    for state, (_, first) in zip(drawn, resolved(drawn), strict=True):
        assert first is (state not in seen)
        seen.add(state)


def test_a_state_that_comes_again_much_later_is_known() -> None:
    """Neither how many states lie between two equal ones nor a contested one among them matters."""
    many = [State("a", f"{step}.0", b"%d" % step) for step in range(2 * TOGETHER)]
    drawn = [*many, many[0], many[TOGETHER], State("a", "1.0", b"other"), many[1]]
    found = resolved(drawn)
    assert found[: len(many)] == [(state.version, True) for state in many]
    assert found[len(many) :] == [
        ("0.0", False),
        (many[TOGETHER].version, False),
        (own(b"other", "1.0"), True),
        ("1.0", False),
    ]


@given(st.permutations([None, b"\x01", b"\x02", b"\x03"]))
def test_own_version_does_not_depend_on_the_order_of_arrival(order: list[bytes | None]) -> None:
    """Whoever does not keep the plain version always gets the same one, in a second run too."""
    found = resolved([State("a", PLAIN, raw) for raw in order])
    assert found[0] == (PLAIN, True)
    assert found[1:] == [(own(raw), True) for raw in order[1:]]


@given(st.sampled_from([None, b"\x01", b"\x02"]), st.permutations([None, b"\x01", b"\x02"]))
def test_live_content_keeps_the_plain_version(
    live: bytes | None, order: list[bytes | None]
) -> None:
    """What the application already has under the version stays there, wherever it comes."""
    key = Key("t", "", "a", PLAIN)
    state = ABSENT if live is None else digest("msgpack", live)
    occupied = [] if live is None else [(key, state)]
    found = resolved([State("a", PLAIN, raw) for raw in order], {key: state}, occupied)
    assert [final for final, _ in found] == [PLAIN if raw == live else own(raw) for raw in order]


def test_single_content_gives_way_to_another_that_is_live() -> None:
    """A version with one content in the source is contested too, if live has another under it."""
    key = Key("t", "", "a", PLAIN)
    live = {key: digest("msgpack", b"application's")}
    drawn = [
        State("a", PLAIN, b"ours"),
        State("b", PLAIN, b"ours"),
        State("a", PLAIN, b"ours", "n"),
    ]
    assert [final for final, _ in resolved(drawn, live)] == [own(b"ours"), PLAIN, PLAIN]
    same = {key: digest("msgpack", b"ours")}
    assert [final for final, _ in resolved(drawn, same)] == [PLAIN] * 3


def test_live_versions_that_the_source_has_not_change_nothing() -> None:
    """Blobs that the application has written since are none of the export's business."""
    live = {Key("t", "", "a", "8.0"): b"x" * 32, Key("other", "", "a", PLAIN): b"x" * 32}
    assert resolved([State("a", PLAIN, b"ours")], live) == [(PLAIN, True)]


@given(st.integers(0, 10**9), st.floats(0, 1), st.binary(max_size=4))
def test_langgraph_counts_on_from_an_own_version(step: int, chance: float, raw: bytes) -> None:
    """The next version is greater than the own one, which is greater than the plain one."""
    plain = f"{step:032}.{chance:016}"
    mine = own(raw, plain)
    following = PostgresSaver.get_next_version(None, mine, None)  # type: ignore[arg-type]
    assert plain < mine < following
    assert int(following.split(".")[0]) == step + 1
    assert int(mine.split(".")[0]) == step


def test_digest_is_the_one_that_a_server_computes() -> None:
    """Type, NUL and bytes: two types of the same bytes are two contents."""
    assert digest("msgpack", b"\x01") == hashlib.sha256(b"msgpack\0\x01").digest()
    assert len({digest("msgpack", b"\x01"), digest("json", b"\x01"), ABSENT}) == 3


def test_what_is_stored_decides_not_what_was_read() -> None:
    """With sealed values the digest is the ciphertext's, under the plain version's key."""

    def seal(key: Key, raw: bytes) -> bytes:
        return b"sealed " + "/".join(key).encode() + raw

    with closing(VersionBook()) as book:
        for ordinal, raw in enumerate((b"\x01", b"\x02")):
            book.turn_to("t", "")
            book.note(ordinal, "a", PLAIN, "msgpack+aes", raw, seal)
        book.settle(lambda key: None, iter(()))
        book.rewind()
        book.turn_to("t", "")
        assert book.resolve(0, "a", PLAIN, "msgpack+aes", b"\x01", seal) == (PLAIN, True)
        sealed = digest("msgpack+aes", seal(Key("t", "", "a", PLAIN), b"\x02"))
        assert book.resolve(1, "a", PLAIN, "msgpack+aes", b"\x02", seal) == (
            own_version(PLAIN, sealed),
            True,
        )
