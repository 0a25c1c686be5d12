"""What a checkpoint of LangGraph.js becomes: every value a blob, versions kept as numbers. Pure.

Its PostgresSaver joins blobs on `channel_versions` and reads no value inline; its `v` decides only
who rebuilds pending sends, which both of its savers do alike. So `v` stays, and so does every number,
but for two: a value without a version gets 0, which LangGraph.js takes for "never written" (no node
is triggered by it, the next version is counted from the others), and of several contents of one
version all but one get a fraction. Between taking apart and writing, versions are texts here as
elsewhere.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from ..languages import is_javascript
from ..texts import quoted
from .blockers import Problem, Unconvertible
from .formats import SENDS, Split, split_json

NEWEST = 4
NEVER = "0"  # the version of what was never written
LARGEST = 10**9  # with a fraction, all of it still is what JavaScript prints of that number
DIGITS = 15  # that a number of JavaScript keeps
BUMPS = "__snapshot_bumps__"  # in `versions_seen`: versions under keys that join two names


def split_either(blob: bytes) -> Split:
    """Split a checkpoint that was written as JSON, and say whether LangGraph.js wrote it."""
    split = split_json(blob)
    return split._replace(javascript=True) if is_javascript(blob) else split


def settled(split: Split) -> Split:
    """A checkpoint of LangGraph.js whose envelope is sound, with a version for each value."""
    envelope = split.envelope
    v, versions, seen = envelope.get("v"), envelope["channel_versions"], envelope["versions_seen"]
    if type(v) is not int:
        raise _no("its v is no whole number")
    if v > NEWEST:
        raise _no(f"its v is {v}, which is newer than this release knows")
    if split.sends:
        raise _no(f"it carries {SENDS}, which LangGraph.js rebuilds and never reads")
    for mapping in (versions, *seen.values()):
        for channel, version in mapping.items():
            if type(version) is not int or not 0 <= version < LARGEST:
                raise _no(f"a channel's version is no count (channel {quoted(channel)})")
    if not versions and split.values:
        # it would look begun, and LangGraph.js would go on where it now starts anew
        raise _no("it holds values and not one version")
    texts = {channel: str(version) for channel, version in versions.items()}
    never = {channel: NEVER for channel in split.values if channel not in versions}
    return split._replace(
        envelope={
            **envelope,
            "channel_versions": texts | never,
            "versions_seen": {
                node: {channel: str(version) for channel, version in entries.items()}
                for node, entries in seen.items()
            },
        }
    )


def _no(why: str) -> Unconvertible:
    return Unconvertible(Problem("checkpoint", why))


def own_version(version: str, state: bytes) -> str:
    """The version of a content that does not keep the plain one: a fraction from its hash.

    It has as many digits as JavaScript keeps, so that the application's next checkpoint spells it
    alike; below 0 it counts as never written, like 0 itself.
    """
    sign = "-" if version == NEVER else ""
    room: int = 10 ** (DIGITS - len(version) - 2)
    number = int.from_bytes(hashlib.sha256(b"version\0" + state).digest()[:8]) % (9 * room) + room
    last = 1 + int.from_bytes(hashlib.sha256(b"last digit\0" + state).digest()[:8]) % 9
    return f"{sign}{version}.{number}{last}"  # no zero first or last: neither is always printed


def with_numbers(envelope: dict[str, Any], renamed: dict[str, str]) -> dict[str, Any]:
    """The envelope as LangGraph.js stores it: versions are numbers, and no value is inline."""
    seen = envelope["versions_seen"]
    for key in seen.get(BUMPS, ()):
        for channel in renamed:
            if key.endswith((f"|{channel}", f":{channel}")):
                why = "one version of a DeltaChannel that had snapshots holds several contents"
                raise _no(f"{why} (channel {quoted(channel)})")
    return {
        **envelope,
        "channel_versions": _numbers(envelope["channel_versions"]),
        "versions_seen": {node: _numbers(entries) for node, entries in seen.items()},
    }


def _numbers(versions: dict[str, str]) -> dict[str, msgspec.Raw]:
    return {channel: msgspec.Raw(version.encode()) for channel, version in versions.items()}
