"""A source's checkpoint into its target row and blobs, pure: with `writes`, what knows both layouts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from ..model import CheckpointRow, SourceText, TargetBlob
from ..texts import quoted
from . import javascript, jsonb
from .blockers import NUMBER, Problem, Unconvertible, is_number, text_problems
from .formats import TRUE, NotSplittable, Split, Splitter, is_delta_snapshot, plain_value
from .older import CannotUpgrade, Edges, Sends, upgraded, with_text_versions

CIPHER = "aes"
VERSIONS = ("channel_versions", "versions_seen")
# What releases for Python have written beside `channel_values`; `current_tasks` those of August 2024.
ENVELOPE_KEYS = frozenset(
    (
        *("v", "ts", "id", "channel_versions", "versions_seen"),
        *("updated_channels", "pending_sends", "current_tasks"),
    )
)

_encode = msgspec.json.Encoder().encode

Resolve = Callable[[str, str, "bytes | None"], tuple[str, bool]]
"""(channel, version, slice or None) -> (the version it gets, whether this row brings the blob)."""

Seal = Callable[[str, str, bytes], bytes]
"""(channel, version, slice) -> the encrypted bytes."""


def take_apart(
    row: CheckpointRow,
    splitters: Mapping[str, Splitter],
    parents_sends: Callable[[str], Sends],
    edges: Callable[[], Edges],
) -> Split:
    """Split a row's checkpoint and bring it up to date, as far as PostgreSQL's reader needs it.

    `parents_sends` and `edges` answer for older checkpoints only (see `legacy.upgraded`).
    """
    kind = row.type
    splitter = splitters.get(kind) if isinstance(kind, str) else None
    if splitter is None:
        raise Unconvertible(Problem("type", _unknown_type(kind)))
    if row.checkpoint is None:
        raise Unconvertible(Problem("checkpoint", "it is NULL"))
    if is_number(row.checkpoint):
        raise Unconvertible(Problem("checkpoint", NUMBER))
    try:
        split = splitter(_bytes(row.checkpoint))
        if split.typed:
            return split
        _check_envelope(split)
        if split.javascript:
            return javascript.settled(split)
        split = split._replace(envelope=with_text_versions(split.envelope))
        return upgraded(split, lambda: parents_sends(split.value_type), edges)
    except (NotSplittable, CannotUpgrade) as error:
        raise Unconvertible(Problem("checkpoint", str(error))) from None


def _unknown_type(kind: SourceText | None) -> str:
    if kind is None:
        return "it is NULL, and the reader needs it"
    if kind == "pickle":
        return "a pickled checkpoint cannot be split without running it (param allow_pickle)"
    if isinstance(kind, str) and "+" in kind:
        return f"it is encrypted with a cipher that is not supported ({quoted(kind, 40)})"
    return f"it is of a type that is not known ({quoted(kind, 40)})"


def _check_envelope(split: Split) -> None:
    """Refuse an envelope that the reader would stumble over."""
    envelope = split.envelope
    if not all(type(key) is str for key in envelope):
        raise Unconvertible(Problem("checkpoint", "a key of its envelope is no text"))
    versions, seen = envelope.get("channel_versions"), envelope.get("versions_seen")
    if not isinstance(versions, dict) or not isinstance(seen, dict):
        raise Unconvertible(Problem("checkpoint", "it has no channel_versions or versions_seen"))
    if not all(type(node) is str for node in seen):
        raise Unconvertible(Problem("checkpoint", "a node's name is no text"))
    found: dict[type, str] = {}
    for mapping in (versions, *seen.values()):
        if not isinstance(mapping, dict):
            raise Unconvertible(Problem("checkpoint", "its versions_seen is no map of maps"))
        if not all(type(channel) is str for channel in mapping):
            raise Unconvertible(Problem("checkpoint", "a channel's name is no text"))
        found |= {type(version): channel for channel, version in mapping.items()}
    for kind in found.keys() - {str, int}:
        why = "a channel's version is neither text nor integer"
        raise Unconvertible(Problem("checkpoint", f"{why} (channel {quoted(found[kind])})"))
    if int in found and not split.javascript and str(envelope.get("ts", "")).endswith("Z"):
        why = "it has LangGraph.js's versions and time, in a spelling that is not its own"
        raise Unconvertible(Problem("checkpoint", why))
    # msgpack holds UTF-8 alone
    if split.value_type != "msgpack" and jsonb.holds_lone_surrogate([envelope, *split.values]):
        raise Unconvertible(Problem("checkpoint", "its envelope holds a lone surrogate"))
    if split.sends and len(set(map(type, versions.values()))) > 1:
        why = "it carries sends, and versions of two kinds, which LangGraph cannot compare"
        raise Unconvertible(Problem("checkpoint", why))


def unknown_keys(split: Split) -> list[str]:
    """The keys of an envelope that no known release writes. They migrate as they are."""
    return sorted(split.envelope.keys() - ENVELOPE_KEYS)


def channel_states(split: Split) -> list[tuple[str, str, bytes | None]]:
    """Each versioned channel with its version and the slice its blob holds; None without a blob.

    Exactly `True` has no blob: with one, a later `prune` would take the thread for one with a
    `DeltaChannel` and refuse it for ever. That is Python's saver alone.
    """
    values = split.values
    inline = None if split.javascript else TRUE[split.value_type]
    return [
        (channel, version, None if (raw := values.get(channel)) == inline else raw)
        for channel, version in split.envelope["channel_versions"].items()
    ]


def convert_checkpoint(
    split: Split, resolve: Resolve, seal: Seal | None = None
) -> tuple[bytes, list[TargetBlob]]:
    """The JSON of `checkpoints.checkpoint`, and the blobs that this row is the first to need.

    `seal` encrypts a channel's value by itself, where the checkpoint came encrypted as a whole.
    """
    envelope, values, kind = split.envelope, split.values, split.value_type
    versions: dict[str, str] = envelope["channel_versions"]
    inline: dict[str, Any] = {}
    blobs: list[TargetBlob] = []
    renamed: dict[str, str] = {}
    problems: list[Problem] = []
    for channel, version, raw in channel_states(split):
        final, first = resolve(channel, version, raw)
        if final != version:
            renamed[channel] = final
        if raw is None:
            if channel in values:
                inline[channel] = True
            continue
        if is_delta_snapshot(kind, raw):
            inline[channel] = True
        if first:
            problems += name_problems(channel, version)
            if seal is None:
                blobs.append(TargetBlob(channel, final, kind, raw))
            else:
                sealed = seal(channel, final, raw)
                blobs.append(TargetBlob(channel, final, f"{kind}+{CIPHER}", sealed))
    for channel, raw in values.items():
        if channel not in versions:
            inline[channel] = _versionless(channel, kind, raw, seal is not None, problems)
    envelope = _renamed(envelope, renamed)
    if split.javascript:
        target = javascript.with_numbers(envelope, renamed)
    else:
        target = {**envelope, "channel_values": inline}
    text = _envelope_json(target, problems, typed=split.typed)
    if problems:
        raise Unconvertible(*problems)
    return text, blobs


def _renamed(envelope: dict[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
    """The envelope with the channels' new versions, also where a node has seen just the old one."""
    if not renamed:
        return envelope
    versions = envelope["channel_versions"]
    return {
        **envelope,
        "channel_versions": {**versions, **renamed},
        "versions_seen": {
            node: {
                channel: renamed[channel]
                if channel in renamed and version == versions[channel]
                else version
                for channel, version in seen.items()
            }
            for node, seen in envelope["versions_seen"].items()
        },
    }


def _envelope_json(target: dict[str, Any], problems: list[Problem], *, typed: bool) -> bytes:
    """The envelope's JSON; `typed` as in `Split`, so that NUL alone can be in the way."""
    if typed:
        text = _encode(target)
        if len(text) < jsonb.CANNOT_EXCEED and jsonb.NUL not in text:
            return text
    for key, value in target.items():
        if key not in VERSIONS and not jsonb.exact(value):
            why = f"its envelope holds what JSONB would change (key {quoted(key)})"
            problems.append(Problem("checkpoint", why))
            return b""
    text = _encode(target)
    if refusal := jsonb.refusal(text):
        problems.append(Problem("checkpoint", refusal))
    return text


def _versionless(channel: str, kind: str, raw: bytes, secret: bool, problems: list[Problem]) -> Any:
    """A value whose channel has no version stays inline, where the reader takes any JSON.

    A made-up version would make every node that listens to the channel look triggered.
    """
    if secret:
        problems.append(
            Problem(
                "checkpoint",
                "an encrypted channel without a version would lie there in clear"
                f" (channel {quoted(channel)})",
            )
        )
        return None
    try:
        value = plain_value(kind, raw)
    except NotSplittable as error:
        problems.append(Problem("checkpoint", f"{error} (channel {quoted(channel)})"))
        return None
    if not jsonb.exact(value):
        problems.append(
            Problem(
                "checkpoint",
                f"a channel without a version holds more than JSON can (channel {quoted(channel)})",
            )
        )
        return None
    return value


def name_problems(channel: str, version: str) -> Sequence[Problem]:
    """Why a channel and its version cannot name a row of `checkpoint_blobs`."""
    text = channel + version
    if "\0" not in text and "\\" not in text:
        return ()
    return [
        *text_problems("checkpoint", channel, read_as_bytea=True),
        *text_problems("checkpoint", version),
    ]


def _bytes(value: SourceText) -> bytes:
    return value.encode() if isinstance(value, str) else value
