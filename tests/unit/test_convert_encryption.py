"""Sealing: LangGraph reads it as its own, it repeats to the byte, and no nonce serves two values."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from include.checkpoint_migration.convert.encryption import (
    NONCE,
    SIZES,
    Sealer,
    key_missing,
    sealed_type,
)
from include.checkpoint_migration.convert.versions import Key
from include.checkpoint_migration.errors import KeyNeeded
from tests.support.values import texts, values

SECRET = b"0123456789abcdef"
PLACE = Key("thread", "ns", "channel", "1.5")
keys = st.sampled_from(SIZES).flatmap(lambda size: st.binary(min_size=size, max_size=size))
places = st.builds(Key, texts, texts, texts, texts)


@given(keys, places, st.binary(max_size=200))
def test_what_is_sealed_opens_again(secret: bytes, place: Key, plain: bytes) -> None:
    """Under each size of key and for every place, opening gives the very bytes."""
    sealer = Sealer(secret)
    assert sealer.open(sealer.seal(place, plain)) == plain


@given(keys, places, values)
def test_langgraph_reads_what_is_sealed_and_the_other_way_round(
    secret: bytes, place: Key, value: object
) -> None:
    """`EncryptedSerializer` opens our bytes to its own plain bytes, and we open its."""
    theirs = EncryptedSerializer.from_pycryptodome_aes(key=secret)
    kind, plain = JsonPlusSerializer().dumps_typed(value)
    sealer = Sealer(secret)
    assert theirs.cipher.decrypt("aes", sealer.seal(place, plain)) == plain
    their_kind, sealed = theirs.dumps_typed(value)
    assert (their_kind, sealer.open(sealed)) == (f"{kind}+aes", plain)


@given(keys, places, st.binary(max_size=50))
def test_sealing_again_gives_the_same_bytes(secret: bytes, place: Key, plain: bytes) -> None:
    """A second run, in another process, must find its own rows."""
    assert Sealer(secret).seal(place, plain) == Sealer(secret).seal(place, plain)


@given(keys, places, places, st.binary(max_size=9), st.binary(max_size=9))
def test_another_place_or_value_has_another_nonce(
    secret: bytes, one: Key, other: Key, value: bytes, changed: bytes
) -> None:
    """Under one key no two different messages share a nonce."""
    assume((one, value) != (other, changed))
    sealer = Sealer(secret)
    assert sealer.seal(one, value)[:NONCE] != sealer.seal(other, changed)[:NONCE]


@pytest.mark.parametrize(
    "other",
    [
        (Key("thread", "nsc", "hannel", "1.5"), b"v"),
        (Key("threadn", "s", "channel", "1.5"), b"v"),
        (Key("thread", "ns", "channel", "1.5v"), b""),
        (Key("thread", "ns", "channel", "1."), b"5v"),
        (Key("", "threadns", "channel", "1.5"), b"v"),
    ],
)
def test_a_letter_that_moves_from_one_part_to_the_next_counts(other: tuple[Key, bytes]) -> None:
    """The parts of a place are told apart, not just strung together."""
    sealer = Sealer(SECRET)
    assert sealer.seal(PLACE, b"v")[:NONCE] != sealer.seal(*other)[:NONCE]


def test_another_key_has_another_nonce() -> None:
    """The nonce tells nothing to who lacks the key."""
    sealed = {Sealer(secret).seal(PLACE, b"v")[:NONCE] for secret in (SECRET, b"f" * 16, b"0" * 32)}
    assert len(sealed) == 3


@given(st.binary(max_size=30), st.data())
def test_one_changed_bit_does_not_open(plain: bytes, data: st.DataObject) -> None:
    """Nonce, tag and ciphertext are all bound together."""
    sealer = Sealer(SECRET)
    sealed = bytearray(sealer.seal(PLACE, plain))
    at = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[at // 8] ^= 1 << at % 8
    with pytest.raises(KeyNeeded):
        sealer.open(bytes(sealed))


@given(st.binary(max_size=40))
def test_what_was_never_sealed_does_not_open(noise: bytes) -> None:
    """Neither an empty value nor one shorter than a nonce and a tag crashes."""
    with pytest.raises(KeyNeeded, match="does not open"):
        Sealer(SECRET).open(noise)


@given(st.binary(max_size=40).filter(lambda key: len(key) not in SIZES))
def test_a_key_of_another_length_is_refused(secret: bytes) -> None:
    """AES takes 16, 24 or 32 bytes, and the message says so."""
    with pytest.raises(KeyNeeded, match="not 16, 24 or 32 bytes"):
        Sealer(secret)


def test_refusals_are_terminal_and_show_neither_key_nor_value() -> None:
    """Each says what to do, survives pickling, and holds no secret."""
    caught: list[KeyNeeded] = [key_missing()]
    for attempt in (
        lambda: Sealer(b"correct horse battery"),
        lambda: Sealer(b"another-key-here").open(Sealer(SECRET).seal(PLACE, b"patient-zero")),
    ):
        with pytest.raises(KeyNeeded) as raised:
            attempt()
        caught.append(raised.value)
    for error in caught:
        assert not error.transient
        assert "LANGGRAPH_AES_KEY" in error.next
        told = str(pickle.loads(pickle.dumps(error)))
        assert told == str(error)
        assert not [s for s in ("correct", "another-key", SECRET.decode(), "patient") if s in told]


def test_only_langgraphs_own_cipher_is_known() -> None:
    """What another cipher sealed, or what a write alone may be, is no sealed checkpoint of ours."""
    assert sealed_type("msgpack+aes") == "msgpack"
    assert sealed_type("json+aes") == "json"
    others = ("msgpack", "null+aes", "pickle+aes", "msgpack+rot13", "msgpack+aes+aes", "+aes")
    for kind in (*others, "", "aes", None, b"msgpack+aes", 1):
        assert sealed_type(kind) is None
