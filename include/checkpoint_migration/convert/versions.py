"""Which version a channel's content gets where one version of it holds several contents. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple

ABSENT = b""  # the digest of a state without a blob


class Key(NamedTuple):
    """A version of a channel."""

    thread_id: str
    checkpoint_ns: str
    channel: str
    version: str


Stored = Callable[[Key, bytes], bytes]
"""What a value is stored as under a version: its own bytes, or sealed ones."""

Own = Callable[[str, bytes], str]
"""(plain version, digest of a state) -> the state's own version."""


def digest(value_type: str, stored: bytes) -> bytes:
    """The SHA-256 of a blob with its type, which a server can compute too."""
    return hashlib.sha256(value_type.encode() + b"\0" + stored).digest()


def own_version(version: str, state: bytes) -> str:
    """The version of a content that does not keep the plain one.

    More digits after the plain version: LangGraph reads what stands before the first point, and a
    longer text sorts after its own beginning.
    """
    number = int.from_bytes(hashlib.sha256(b"version\0" + state).digest()[:8])
    return f"{version}.{number:020}"
