"""What LangGraph's own savers read, spelled out with every type, so that `==` is strict.

Nothing of the product is imported: this is the tests' own opinion of what "read back equal" means.
"""

from __future__ import annotations

import math
import re
import sqlite3
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import ormsgpack
import psycopg
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from psycopg.rows import dict_row

Key = tuple[str, str, str]
BY_REPR = re.compile(
    r"(datetime|uuid|decimal|pathlib|re|ipaddress|zoneinfo|builtins)\."
    r"(datetime|date|time|timedelta|timezone|UUID|Decimal|PosixPath|PurePosixPath|Pattern|"
    r"IPv[46](Address|Network|Interface)|ZoneInfo|int|str|bytes|bytearray|bool|NoneType)"
)


def spelled(value: Any) -> Any:
    """A value as nested tuples in which types, signs, bits of floats and the order of keys show."""
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if kind is float:
        return name, struct.pack(">d", value).hex(), repr(value)
    if kind is dict:
        return name, tuple((spelled(k), spelled(v)) for k, v in value.items())
    if kind in (list, tuple, deque):
        return name, tuple(map(spelled, value)), getattr(value, "maxlen", None)
    if kind in (set, frozenset):
        return name, tuple(sorted(map(spelled, value), key=repr))
    if BY_REPR.fullmatch(name):
        return name, repr(value)
    return name, _inside(value)


def _inside(value: Any) -> Any:
    """What an object of a class holds."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.flags.f_contiguous, value.tobytes()
    if hasattr(value, "to_dict") and hasattr(value, "dtypes"):  # pandas
        return spelled([str(kind) for kind in value.dtypes]), spelled(value.to_dict("split"))
    if isinstance(value, BaseException):
        return spelled(value.args)
    if hasattr(value, "get_secret_value"):
        return spelled(value.get_secret_value())
    if isinstance(value, tuple):  # a named one
        return tuple(map(spelled, value))
    held = {**getattr(value, "__dict__", {})}
    for slots in (getattr(base, "__slots__", ()) for base in type(value).__mro__):
        for slot in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, slot) and slot not in ("__dict__", "__weakref__"):
                held[slot] = getattr(value, slot)
    if not held:
        raise TypeError(f"{type(value)} cannot be compared strictly yet: teach `_inside` about it")
    return tuple((name, spelled(part)) for name, part in sorted(held.items()))


def by_value(value: Any) -> Any:
    """JSON as JSONB keeps it: numbers by value, objects without order; True is still no number."""
    if type(value) in (int, float):
        # by its digits: the float 1e23 is not the number 10 ** 23
        digits = repr(value)
        return "number", Fraction(digits) if math.isfinite(value) else digits
    if isinstance(value, dict):
        return "object", tuple(sorted((k, by_value(v)) for k, v in value.items()))
    if isinstance(value, list):
        return "array", tuple(map(by_value, value))
    return type(value).__name__, value


def sanitised(value: Any) -> Any:
    """Metadata as `on_blocker: sanitize` promises it: no NUL, lone surrogate, NaN or infinity."""
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "\ufffd", value.replace("\0", ""))
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {sanitised(key): sanitised(part) for key, part in value.items()}
    return [sanitised(part) for part in value] if isinstance(value, list) else value


class Ext:
    """A msgpack ext that nobody revived: a class that cannot be imported must keep its name too."""

    def __init__(self, code: int, data: bytes) -> None:
        self.code = code
        self.data = bytes(data)


class Unrevived(JsonPlusSerializer):
    """The savers' serializer, which leaves every ext as it is and writes it back as it was."""

    def __init__(self, **options: Any) -> None:
        super().__init__(__unpack_ext_hook__=Ext, **options)

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        return "msgpack", ormsgpack.packb(
            obj, default=lambda ext: ormsgpack.Ext(ext.code, ext.data)
        )


Reviving = Literal["revived", "raw"]
REVIVING: tuple[Reviving, ...] = ("revived", "raw")


def serializer(reviving: Reviving, *, key: bytes | None = None, pickle: bool = False) -> Any:
    """A serializer for both savers: their own, which revives what it can, or `Unrevived`."""
    kind = JsonPlusSerializer if reviving == "revived" else Unrevived
    plain = kind(pickle_fallback=pickle)
    if key is None:
        return plain
    return EncryptedSerializer.from_pycryptodome_aes(plain, key=key)


@dataclass
class Side:
    """One real saver on one database."""

    saver: BaseCheckpointSaver[Any]

    def get(self, key: Key) -> CheckpointTuple | None:
        return self.saver.get_tuple(_config(*key))

    def latest(self, thread_id: str, checkpoint_ns: str) -> CheckpointTuple | None:
        return self.saver.get_tuple(_config(thread_id, checkpoint_ns))

    def type_of(self, key: Key) -> str:
        """How SQLite's saver has serialized a checkpoint: one thread may hold several types."""
        return self.saver.conn.execute(  # type: ignore[attr-defined]
            "SELECT type FROM checkpoints WHERE (thread_id, checkpoint_ns, checkpoint_id) = (?, ?, ?)",
            key,
        ).fetchone()[0]

    def listed(self, config: Any, **options: Any) -> list[Key]:
        return [key_of(found) for found in self.saver.list(config, **options)]


@contextmanager
def sqlite_side(path: Path, serde: Any = None) -> Iterator[Side]:
    """`SqliteSaver` on a database that may be written: a copy."""
    with closing(sqlite3.connect(path, check_same_thread=False)) as conn:
        yield Side(SqliteSaver(conn, serde=serde))


@contextmanager
def postgres_side(dsn: str, serde: Any = None) -> Iterator[Side]:
    """`PostgresSaver` on a database, whose tables are there."""
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=0, row_factory=dict_row) as conn:
        yield Side(PostgresSaver(conn, serde=serde))


def keys_of(path: Path) -> list[Key]:
    """The keys of all checkpoints of a SQLite database."""
    with closing(sqlite3.connect(path)) as conn:
        return conn.execute(
            "SELECT thread_id, checkpoint_ns, checkpoint_id FROM checkpoints ORDER BY 1, 2, 3"
        ).fetchall()


def key_of(found: CheckpointTuple) -> Key:
    part = found.config["configurable"]
    return part["thread_id"], part["checkpoint_ns"], part["checkpoint_id"]


def _config(thread_id: str, checkpoint_ns: str, checkpoint_id: str | None = None) -> Any:
    named = {"checkpoint_id": checkpoint_id} if checkpoint_id is not None else {}
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns, **named}}


# --- what is held against what ------------------------------------------------------------------


def differences(
    before: Side, after: Side, keys: Iterable[Key], *, sanitized: bool = False
) -> list[str]:
    """Everything in which the target's saver reads other than the source's.

    A channel's version may be another than in the source only where the source itself has several
    contents under it, and then everywhere in that checkpoint alike.
    """
    found: list[str] = []
    by_thread: dict[str, list[Key]] = {}
    for key in keys:
        by_thread.setdefault(key[0], []).append(key)
    for mine in by_thread.values():
        found += _thread_differences(before, after, mine, sanitized)
    for thread_id, ns in dict.fromkeys(k[:2] for mine in by_thread.values() for k in mine):
        left, right = before.latest(thread_id, ns), after.latest(thread_id, ns)
        if left is None or right is None or key_of(left) != key_of(right):
            found.append(f"{thread_id!r} {ns!r}: another checkpoint is the latest")
    return found


def order_differences(
    before: Side, after: Side, keys: Iterable[Key], *, filtered: bool = True
) -> list[str]:
    """Where `list` gives others or in another order: by thread, namespace, page, filter.

    Not `filtered` where SQLite cannot: it stumbles over NaN in any metadata of the table.
    """
    found: list[str] = []

    def check(what: str, config: Any, **options: Any) -> None:
        if before.listed(config, **options) != after.listed(config, **options):
            found.append(f"list {what}: another order")

    by_namespace: dict[tuple[str, str], list[Key]] = {}
    for key in keys:
        by_namespace.setdefault(key[:2], []).append(key)
    for (thread_id, ns), mine in by_namespace.items():
        config = _config(thread_id, ns)
        middle = _config(*mine[len(mine) // 2])
        check(f"{thread_id!r} {ns!r}", config)
        check(f"{thread_id!r} {ns!r} limited", config, limit=2)
        check(f"{thread_id!r} {ns!r} before", config, before=middle)
        if filtered:
            check(f"{thread_id!r} {ns!r} filtered", config, filter={"source": "loop"})
    for thread_id in {key[0] for key in by_namespace}:
        check(repr(thread_id), {"configurable": {"thread_id": thread_id}})
    return found


def _thread_differences(
    before: Side, after: Side, keys: list[Key], sanitized: bool
) -> Iterator[str]:
    sources = [found for key in keys if (found := before.get(key)) is not None]
    assert len(sources) == len(keys)
    if sanitized:
        sources = [found._replace(metadata=sanitised(found.metadata)) for found in sources]
    graph = _graph_of(sources)
    contested = _contested(sources, [before.type_of(key) for key in keys], graph)
    for key, source in zip(keys, sources, strict=True):
        target = after.get(key)
        if target is None:
            yield f"{key}: not there"
            continue
        for what in _tuple_differences(source, target, contested, graph):
            yield f"{key}: {what}"


def _contested(
    sources: list[CheckpointTuple], types: list[str], graph: Any
) -> set[tuple[str, str, Any]]:
    """The versions of channels under which a thread has several contents, absent among them.

    Equal values that were serialized in two ways are two contents; a channel that is renamed on load
    may meet another of that name.
    """
    states: dict[tuple[str, str, Any], set[Any]] = {}
    for found, kind in zip(sources, types, strict=True):
        ns = key_of(found)[1]
        for checkpoint in (found.checkpoint, settled(found, graph)):
            values: dict[str, Any] = checkpoint["channel_values"]
            for channel, version in checkpoint["channel_versions"].items():
                state = (kind, spelled(values[channel])) if channel in values else None
                states.setdefault((ns, channel, version), set()).add(state)
    return {place for place, contents in states.items() if len(contents) > 1}


def _tuple_differences(
    before: CheckpointTuple,
    after: CheckpointTuple,
    contested: set[tuple[str, str, Any]],
    graph: Any,
) -> Iterator[str]:
    if before.config != after.config or before.parent_config != after.parent_config:
        yield "another config or parent"
    if by_value(before.metadata) != by_value(after.metadata):
        yield f"metadata {before.metadata!r} became {after.metadata!r}"
    left, right = settled(before, graph), settled(after, graph)
    if before.checkpoint["v"] < 3:
        for side in (left, right):
            _forget_nodes(side, graph)
    for channel in left["channel_values"].keys() | right["channel_values"].keys():
        a, b = (side["channel_values"].get(channel, ABSENT) for side in (left, right))
        if spelled(a) != spelled(b):
            yield f"channel {channel!r}: {a!r} became {b!r}"
    yield from _version_differences(left, right, contested, key_of(before)[1])
    rest = [{k: v for k, v in side.items() if k not in SEPARATE} for side in (left, right)]
    if by_value(rest[0]) != by_value(rest[1]):
        yield f"envelope {rest[0]!r} became {rest[1]!r}"
    writes = [_spelled_writes(side) for side in (before, after)]
    if writes[0] != writes[1]:
        yield f"pending writes {before.pending_writes!r} became {after.pending_writes!r}"


def _version_differences(
    left: dict[str, Any], right: dict[str, Any], contested: set[tuple[str, str, Any]], ns: str
) -> Iterator[str]:
    renamed = {}
    for channel, version in left["channel_versions"].items():
        new = right["channel_versions"].get(channel)
        plain = _padded(version)
        own = isinstance(new, str) and re.fullmatch(re.escape(plain) + r"\.\d+", new)
        if new != plain and not (own and (ns, channel, version) in contested):
            yield f"version of {channel!r}: {version!r} became {new!r}"
        renamed[channel, version] = new
    if left["channel_versions"].keys() != right["channel_versions"].keys():
        yield "other channels have versions"
    expected = {
        node: {c: renamed.get((c, v), _padded(v)) for c, v in seen.items()}
        for node, seen in left["versions_seen"].items()
    }
    if expected != right["versions_seen"]:
        yield f"versions_seen {expected!r} became {right['versions_seen']!r}"


def _spelled_writes(found: CheckpointTuple) -> list[Any]:
    return [(task, channel, spelled(v)) for task, channel, v in found.pending_writes or ()]


class Absent:
    """No value at all."""

    def __init__(self) -> None:
        self.absent = True

    def __repr__(self) -> str:
        return "nothing"


ABSENT = Absent()
SEPARATE = ("channel_values", "channel_versions", "versions_seen")


def settled(found: CheckpointTuple, graph: Any) -> dict[str, Any]:
    """A checkpoint as LangGraph works with it: it moves old ones into today's channels."""
    checkpoint: dict[str, Any] = {**found.checkpoint}
    checkpoint["channel_values"] = {**checkpoint["channel_values"]}
    checkpoint["channel_versions"] = {**checkpoint["channel_versions"]}
    checkpoint["versions_seen"] = {n: {**s} for n, s in checkpoint["versions_seen"].items()}
    if checkpoint["v"] < 4:
        graph._migrate_checkpoint(checkpoint)
        checkpoint["v"] = 4
    if not checkpoint.get("pending_sends"):
        checkpoint.pop("pending_sends", None)
    return checkpoint


def _forget_nodes(checkpoint: dict[str, Any], graph: Any) -> None:
    """Take out channels named like nodes, of which StateGraph takes no notice since `v` 3."""
    for node in set(graph.nodes) - {START}:
        checkpoint["channel_values"].pop(node, None)
        checkpoint["channel_versions"].pop(node, None)


def _graph_of(sources: list[CheckpointTuple]) -> Any:
    """A graph with the nodes and edges that the checkpoints of a thread show.

    A node has seen the channels that triggered it: `start:node`, `branch:from:condition:node` and,
    long ago, one that was named like the node before it.
    """
    seen: dict[str, set[str]] = {}
    for found in sources:
        for node, versions in found.checkpoint["versions_seen"].items():
            seen.setdefault(node, set()).update(versions)
        for channel in found.checkpoint["channel_versions"]:
            if channel.startswith(("start:", "branch:")):
                seen.setdefault(channel.split(":")[-1], set())
    nodes = [name for name in seen if not name.startswith("__")]
    builder: StateGraph[Any] = StateGraph(dict)
    for name in nodes:
        builder.add_node(name, lambda state: state)
        builder.add_edge(START, name)
        for before in seen[name].intersection(nodes):
            builder.add_edge(before, name)
    if not nodes:
        builder.add_edge(START, END)
    return builder.compile()


def _padded(version: Any) -> str:
    return f"{version:032}.{0.0:016}" if isinstance(version, int) else version


# --- rows that no saver lists -------------------------------------------------------------------


def write_rows(path: Path) -> list[tuple[Any, ...]]:
    """Every row of the source's pending writes, orphans included."""
    with closing(sqlite3.connect(path)) as conn:
        has_path = any(row[1] == "task_path" for row in conn.execute("PRAGMA table_info(writes)"))
        return sorted(
            conn.execute(
                "SELECT thread_id, checkpoint_ns, checkpoint_id, task_id, idx,"
                f" {'task_path' if has_path else repr('')}, channel, type, value FROM writes"
            )
        )


def orphans(path: Path) -> list[Key]:
    """The keys of checkpoints that have pending writes and are not there."""
    keys = set(keys_of(path))
    return sorted({row[:3] for row in write_rows(path)} - keys)
