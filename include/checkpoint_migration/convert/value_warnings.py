"""What migrates without loss and will bite the team after the switch: found while exporting. Pure."""

from __future__ import annotations

import math
import re
import struct
from collections import Counter

from ..findings import Caution
from ..texts import quoted
from . import jsonb
from .class_names import ClassNames

EXAMPLES = 10
INTEGER = re.compile(r"-?\d{1,19}")
NUMBER = re.compile(r"-?\d{1,16}\.0")
AS_TEXT = re.compile(rb'"thread_id":\s*"')
STR_HEADERS = {0xD9: 2, 0xDA: 3, 0xDB: 5}
PLAIN = frozenset((0xCA, 0xCB, *range(0xA0, 0xC0), *STR_HEADERS))  # floats and texts
IN_JSON = b'"lc": 2'

MESSAGES = {
    "unwritable": "state holds NaN, an infinity or NUL at the top of a channel: it reads back equal, but "
    "PostgresSaver.put will refuse the application's next write of that value",
    "integer_ids": "thread ids look like integers: SQLite's saver wrote str(id), and an application that "
    "passes an int fails on PostgreSQL",
    "encrypted": "checkpoints are encrypted: their channels stay so, but the application's own next put "
    "stores plain strings, numbers and booleans unencrypted in JSONB, and metadata is plain on both sides",
    "sanitized": "metadata held what JSONB refuses and was sanitised; the original bytes are in "
    "checkpoint_migration.originals",
    "pickled": "values are pickled: the application needs pickle_fallback=True on PostgreSQL too",
    "javascript_forks": "LangGraph.js counts its versions, and its PostgresSaver keeps one value of each: a fork "
    "that the application makes on PostgreSQL, from a checkpoint that others follow, reads their values in "
    "place of its own; threads that go on from their latest checkpoint are not concerned",
    "javascript_numbers": "thread ids end in .0: LangGraph.js's SqliteSaver stores the number 1 as '1.0', and on "
    "PostgreSQL an application that passes the number looks for '1'",
    "json_classes": "values name classes in the JSON of langgraph up to 0.1: today's JsonPlusSerializer "
    "revives its own known ones and those in allowed_json_modules (a waiting Send needs "
    "('langgraph', 'constants', 'Send') there), gives others as plain maps, and dates as None",
    "unproven_edges": "checkpoints of v < 3 had channels renamed as LangGraph does on load, and an edge of "
    "a node that never ran cannot be known from the data: try these threads before switching",
}


class ValueWarnings:
    """Collects warnings: how often, and which threads as examples."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._threads: dict[tuple[str, str], dict[str, None]] = {}
        self._keys: set[str] = set()
        self._thread: str | None = None
        self._integer: str | None = None
        self._is_text = False
        self._names = ClassNames()
        self.classes: Counter[str] = Counter()

    def note(self, kind: str, thread_id: str, message: str | None = None) -> None:
        """Once more; `message` where the kind alone does not say it."""
        known = kind, message or MESSAGES[kind]
        self._counts[known] += 1
        threads = self._threads.setdefault(known, {})
        if len(threads) < EXAMPLES:
            threads[thread_id] = None

    def note_key(self, thread_id: str, key: str) -> None:
        """Once for each key of an envelope that no known release writes."""
        if len(self._keys) < EXAMPLES:
            self._keys.add(key)
        name = f"the key {quoted(key)}" if key in self._keys else "another key"
        self.note(
            "unknown_key",
            thread_id,
            f"checkpoints have {name}, which no known release of LangGraph writes: migrated as it is",
        )

    def note_thread(self, thread_id: str, metadata: bytes | None) -> None:
        """For each checkpoint, thread by thread: an id that looks like an integer, unless it is known to
        be a text. Releases 2.0.2 to 2.0.10 of the saver repeated the id in metadata, as the application
        gave it.
        """
        if thread_id != self._thread:
            self._thread = thread_id
            self._note_integer()
            self._integer = thread_id if INTEGER.fullmatch(thread_id) else None
            self._is_text = False
        if self._integer is not None and metadata is not None and not self._is_text:
            self._is_text = AS_TEXT.search(metadata) is not None

    def note_javascript(self, thread_id: str) -> None:
        """For each checkpoint of LangGraph.js, of whose values there is nothing to warn."""
        self.note("javascript_forks", thread_id)
        if NUMBER.fullmatch(thread_id):
            self.note("javascript_numbers", thread_id)

    def _note_integer(self) -> None:
        if self._integer is not None and not self._is_text:
            self.note("integer_ids", self._integer)
        self._integer = None

    def note_value(self, thread_id: str, value_type: str, channel: str, raw: bytes) -> None:
        """Once for each value that is stored."""
        if is_unwritable(value_type, raw):
            self.note("unwritable", thread_id)
        if value_type == "msgpack":
            if names := self._names.of(channel, raw):
                self.classes.update(names)
        elif value_type == "pickle":
            self.note("pickled", thread_id)

    def note_json(self, thread_id: str, value_type: str, raw: bytes) -> None:
        """Once for each value of langgraph up to 0.1 that names a class."""
        if value_type == "json" and IN_JSON in raw:
            self.note("json_classes", thread_id)

    def warnings(self) -> tuple[Caution, ...]:
        self._note_integer()
        return tuple(
            Caution(*known, count, tuple(self._threads[known]))
            for known, count in self._counts.items()
        )


def is_unwritable(value_type: str, raw: bytes) -> bool:
    """Whether a channel's own value is a NaN, an infinity, or text with NUL or a lone surrogate."""
    if value_type == "json":
        return raw[:1] not in (b"[", b"{") and jsonb.refusal(raw) is not None
    if value_type != "msgpack" or not raw:
        return False
    first = raw[0]
    if first not in PLAIN:
        return False
    if first == 0xCB:
        return not math.isfinite(struct.unpack(">d", raw[1:9])[0])
    if first == 0xCA:
        return not math.isfinite(struct.unpack(">f", raw[1:5])[0])
    text = raw[STR_HEADERS.get(first, 1) :]
    try:
        return "\0" in text.decode()
    except UnicodeDecodeError:
        return True
