"""Row after row of a shard converted, and what is found beside the rows: blockers, warnings, long keys."""

from __future__ import annotations

from ..convert.blockers import Problem, Unconvertible, key_problems
from ..convert.gathered import gathered_problems
from ..convert.metadata import convert_metadata
from ..convert.rows import Seal, convert_checkpoint, unknown_keys
from ..convert.thread_ts import NO_METADATA, time_problems
from ..convert.value_warnings import ValueWarnings
from ..convert.versions import Key
from ..convert.writes import convert_write
from ..findings import Blocker
from ..model import CheckpointRow, TargetBlob, TargetCheckpoint, TargetWrite, WriteRow
from ..settings import Settings
from ..texts import printable
from .long_keys import LongKey, long_keys
from .places import Ready
from .with_writes import row_key


class Conversion:
    """Converts rows, and keeps what is found beside them. `is_old`: they are of the `thread_ts` layout."""

    def __init__(self, settings: Settings, *, is_old: bool) -> None:
        self._settings, self._is_old = settings, is_old
        self.blockers: list[Blocker] = []
        self.long_keys: list[LongKey] = []
        self.value_warnings = ValueWarnings()
        self.curable = 0
        self._of_javascript: str | None = None  # the last thread that LangGraph.js wrote

    def convert(self, ready: Ready | None, writes: list[WriteRow]) -> TargetCheckpoint | None:
        """The row to store, or None where it is a blocker."""
        converted = self._convert(ready, writes)
        if converted is not None:
            if converted.thread_id != self._of_javascript:
                self.value_warnings.note_thread(converted.thread_id, converted.metadata)
            self.long_keys += ((converted[:3], key) for key in long_keys(converted))
        return converted

    def _convert(self, ready: Ready | None, writes: list[WriteRow]) -> TargetCheckpoint | None:
        row = None if ready is None else ready.row
        first = row if row is not None else writes[0]
        # what is taken apart has a key without problems
        problems = key_problems(first) if ready is None or ready.apart is None else []
        if self._is_old:
            problems += time_problems(first)
        converted_writes = _convert_writes(writes, problems)
        checkpoint = metadata = original = None
        blobs: list[TargetBlob] = []
        if ready is not None:
            metadata, original = self._metadata(ready.row, problems)
            problems += ready.problems
            if ready.apart is not None:
                checkpoint, blobs = self._checkpoint(ready, problems)
        split = ready.apart[0] if ready is not None and ready.apart is not None else None
        problems += gathered_problems(split, converted_writes, checkpoint or b"", metadata or b"")
        if problems:
            thread_id, ns, checkpoint_id = map(printable, row_key(first))
            self.blockers += (
                Blocker(thread_id, ns, checkpoint_id, column, why)
                for column, why in dict.fromkeys(problems)
            )
            return None
        parent = (
            None
            if row is None or row.parent_checkpoint_id is None
            else str(row.parent_checkpoint_id)
        )
        return TargetCheckpoint(
            str(first.thread_id),
            str(first.checkpoint_ns),
            str(first.checkpoint_id),
            parent,
            checkpoint,
            metadata,
            blobs,
            converted_writes,
            original,
        )

    def _metadata(
        self, row: CheckpointRow, problems: list[Problem]
    ) -> tuple[bytes | None, bytes | None]:
        """The metadata to store, and the source's bytes where it had to be sanitised."""
        if self._is_old and row.metadata is None:
            return NO_METADATA, None
        sanitize = self._settings.on_blocker == "sanitize"
        try:
            metadata, refused = convert_metadata(row.metadata, sanitize=sanitize)
        except Unconvertible as error:
            problems += error.problems
            if not sanitize:
                self.curable += _is_curable(row)
            return None, None
        if refused is None or row.metadata is None:
            return metadata, None
        self.value_warnings.note("sanitized", printable(row.thread_id))
        return metadata, row.metadata.encode() if isinstance(row.metadata, str) else row.metadata

    def _checkpoint(
        self, ready: Ready, problems: list[Problem]
    ) -> tuple[bytes | None, list[TargetBlob]]:
        assert ready.apart is not None
        split, _, stored = ready.apart
        thread_id, ns = str(ready.row.thread_id), str(ready.row.checkpoint_ns)
        seal: Seal | None = None
        if stored is not None:
            self.value_warnings.note("encrypted", thread_id)

            def seal(channel: str, version: str, raw: bytes) -> bytes:
                return stored(Key(thread_id, ns, channel, version), raw)

        try:
            checkpoint, blobs = convert_checkpoint(split, ready.resolve, seal)
        except Unconvertible as error:
            problems += error.problems
            return None, []
        if split.guessed:
            self.value_warnings.note("unproven_edges", thread_id)
        if not split.typed:
            for key in unknown_keys(split):
                self.value_warnings.note_key(thread_id, key)
        if split.javascript:
            self.value_warnings.note_javascript(thread_id)
            self._of_javascript = thread_id
            return checkpoint, blobs
        for blob in blobs:
            raw = split.values.get(blob.channel, b"")
            self.value_warnings.note_value(thread_id, split.value_type, blob.channel, raw)
            if self._is_old:
                self.value_warnings.note_json(thread_id, split.value_type, raw)
        return checkpoint, blobs


def _is_curable(row: CheckpointRow) -> bool:
    """Whether `on_blocker: sanitize` would find a place for a row's metadata."""
    try:
        convert_metadata(row.metadata, sanitize=True)
    except Unconvertible:
        return False
    return True


def _convert_writes(writes: list[WriteRow], problems: list[Problem]) -> list[TargetWrite]:
    converted: list[TargetWrite] = []
    for write in writes:
        try:
            converted.append(convert_write(write))
        except Unconvertible as error:
            problems += (Problem(f"writes.{column}", why) for column, why in error.problems)
    return converted
