"""Compares one shard of the target with the frozen source, row by row, and lists what differs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from ..ahead import beside
from ..errors import SourceBusy, SourceUnreadable
from ..findings import Counts, Difference, ShardVerdict
from ..interrupting import cancel, was_within_sqlite
from ..model import CheckpointRow, Shard, WriteRow
from ..postgres import begin
from ..scratch import scratch_errors
from ..server_errors import translated_errors
from ..settings import ThreadFilter
from ..source import folder_of, has_old_layout, iter_checkpoints, iter_writes, show_as_today
from ..texts import printable, quoted
from .blobs import NAME, BlobKey, Blobs, Fetched
from .compare import (
    Blob,
    Envelope,
    Finding,
    Pair,
    TargetCheckpoint,
    checkpoint_key,
    compare_checkpoint,
    compare_plain_columns,
    compare_write,
    parse_envelope,
    write_key,
)
from .javascript import compare_javascript, is_javascript
from .opener import Opener
from .pairs import Pairs, Row, TargetRows, grouped
from .past import Threads
from .rules import expected_envelope
from .source_checkpoint import Decrypt, Unreadable
from .thread_ts import expected_id, with_metadata

NOT_CHANGED = "the source is untouched, and comparing writes nothing to PostgreSQL."
CHECKPOINT = ("thread_id", "checkpoint_ns", "checkpoint_id")
CHECKPOINT_COLUMNS = (
    "thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type,"
    " checkpoint::text, metadata::text"
)
WRITE = (*CHECKPOINT, "task_id", "idx")
WRITE_COLUMNS = (*WriteRow._fields[:-1], "blob")
SETTINGS = ("enable_hashjoin", "enable_mergejoin", "enable_seqscan", "jit")

Originals = Mapping[tuple[str, str, str], bytes]


def verify_shard(
    frozen: sqlite3.Connection,
    target: psycopg.Connection[Any],
    schema: str,
    shard: Shard,
    thread_filter: ThreadFilter,
    *,
    decrypt: Decrypt | None = None,
    originals: Originals | None = None,
    allow_pickle: bool = False,
    limit: int = 100,
    progress: Callable[[int], None] | None = None,
) -> ShardVerdict:
    """Prove that `schema` holds, for the shard's range of threads, exactly what the source holds.

    All rows of the three tables within the range are judged; one that the source does not account
    for is a difference. Reads in one REPEATABLE READ, READ ONLY transaction: the one that `target`
    is in, else one of its own. Memory is bounded by the largest few rows.

    `decrypt(type, bytes)` gives the plain bytes of an encrypted value. `originals` holds, by
    (thread_id, checkpoint_ns, checkpoint_id), the metadata bytes that were sanitised. Only
    `allow_pickle` revives pickled checkpoints, which runs what the database says.
    `progress` is told how many more checkpoints were compared. The verdict counts the target's
    rows, holds at most `limit` differences and counts all.

    Raises `KeyNeeded` for encrypted rows without `decrypt`, and `TargetError`s that are transient
    where another try may help.
    """
    doing = "comparing rows with the frozen source"
    with translated_errors(doing, NOT_CHANGED), _one_state(target):
        for name in SETTINGS:  # a lookup of a few hundred keys must never scan a table
            target.execute(sql.SQL("SET LOCAL {} = off").format(sql.Identifier(name)))
        is_old = has_old_layout(frozen)
        show_as_today(frozen, expected_id)
        opener = Opener(decrypt, allow_pickle=allow_pickle, is_old=is_old)
        threads = Threads(frozen, opener)
        scratch = folder_of(frozen)
        blobs = Blobs(target, schema, scratch)
        oracle = _Oracle(target, schema, shard, opener, threads, blobs, originals or {}, limit)
        try:
            with scratch_errors(scratch, NAME):
                rows = iter_checkpoints(frozen, shard, thread_filter, alone=True)
                oracle.checkpoints(map(with_metadata, rows) if is_old else rows, progress)
                oracle.writes(iter_writes(frozen, shard, thread_filter, alone=True))
                oracle.unreferenced_blobs()
        except sqlite3.Error as error:
            raise _sqlite_failed(error) from error
        finally:
            blobs.close()
    return oracle.verdict()


def _one_state(target: psycopg.Connection[Any]) -> AbstractContextManager[Any]:
    if target.info.transaction_status == TransactionStatus.IDLE:
        return begin(target, repeatable_read=True, read_only=True)
    return nullcontext()  # the caller's own


def _sqlite_failed(error: sqlite3.Error) -> SourceUnreadable | SourceBusy:
    if was_within_sqlite(error):
        return SourceBusy(
            "reading the frozen source was interrupted.",
            safe=NOT_CHANGED,
            next="nothing: the task is tried again.",
        )
    return SourceUnreadable(
        f"reading the frozen source failed ({getattr(error, 'sqlite_errorname', 'unknown')}).",
        safe=NOT_CHANGED,
        next="look at the volume behind export_uri; clear freeze_source to make the copy again.",
    )


class _Group(NamedTuple):
    """Pairs of checkpoints with the target's envelope, or why it has none, and the blobs it refers to."""

    pairs: list[tuple[CheckpointRow | None, Row | None, Envelope | Unreadable | None]]
    blobs: Fetched


def _parsed(row: Row | None) -> Envelope | Unreadable | None:
    try:
        return None if row is None else parse_envelope(TargetCheckpoint._make(row).checkpoint)
    except Unreadable as unreadable:
        return unreadable


class _Oracle:
    """One comparison: its sides, and what was found so far."""

    def __init__(
        self,
        target: psycopg.Connection[Any],
        schema: str,
        shard: Shard,
        opener: Opener,
        threads: Threads,
        blobs: Blobs,
        originals: Originals,
        limit: int,
    ) -> None:
        self._target, self._schema, self._shard = target, schema, shard
        self._opener, self._threads = opener, threads
        self._originals, self._limit = originals, limit
        self._blobs = blobs
        self._interrupt = partial(cancel, target)
        self._found = 0
        self._differences: list[Difference] = []
        self._counts = [0, 0, 0]

    def verdict(self) -> ShardVerdict:
        checkpoints, writes, blobs = self._counts
        counts = Counts(checkpoints, writes, blobs)
        return ShardVerdict(self._shard.index, counts, self._found, tuple(self._differences))

    def _note(self, key: tuple[Any, ...], finding: Finding) -> None:
        self._found += 1
        if len(self._differences) < self._limit:
            thread_id, checkpoint_ns, checkpoint_id = map(printable, key[:3])
            self._differences.append(Difference(thread_id, checkpoint_ns, checkpoint_id, *finding))

    def checkpoints(
        self, source: Iterator[CheckpointRow], progress: Callable[[int], None] | None
    ) -> None:
        """Compare all checkpoints of the shard with the blobs that they refer to."""
        rows = TargetRows(
            self._target,
            sql.Identifier(self._schema, "checkpoints"),
            sql.SQL(CHECKPOINT_COLUMNS),
            CHECKPOINT,
            self._shard,
        )
        pairs: Pairs[CheckpointRow] = Pairs(rows, checkpoint_key, head=3)

        def read(group: list[CheckpointRow]) -> Iterator[_Group]:
            return map(self._with_blobs, pairs.of(group))

        value = CheckpointRow._fields.index("checkpoint")
        with closing(beside(grouped(source, value), read, stop=self._interrupt)) as groups:
            for group in groups:
                self._compare(group)
                self._blobs.note(group.blobs.found)
                if progress is not None:
                    progress(sum(wanted is not None for wanted, _, _ in group.pairs))
        self._counts[0] = rows.read

    def _with_blobs(self, pairs: list[tuple[CheckpointRow | None, Row | None]]) -> _Group:
        """Read the blobs that the target's checkpoints refer to."""
        parsed = [(wanted, row, _parsed(row) if wanted else None) for wanted, row in pairs]
        envelopes = [
            (row[:2], envelope.blob_keys())
            for _, row, envelope in parsed
            if row is not None and isinstance(envelope, Envelope)
        ]
        return _Group(parsed, self._blobs.fetch(envelopes))

    def _compare(self, group: _Group) -> None:
        for wanted, row, envelope in group.pairs:
            if wanted is None or row is None or envelope is None:
                self._one_sided("checkpoints", wanted, row)
                continue
            target = TargetCheckpoint._make(row)
            for finding in compare_plain_columns(wanted, target, self._originals.get(row[:3])):
                self._note(row, finding)
            if isinstance(envelope, Unreadable):
                self._note(row, Finding("checkpoints", "checkpoint", str(envelope)))
                continue
            for finding in self._checkpoint(wanted, envelope, group.blobs.by_place[row[:2]]):
                self._note(row, finding)
        self._opener.plain.cache_clear()

    def _checkpoint(
        self, wanted: CheckpointRow, envelope: Envelope, blobs: Mapping[BlobKey, Blob | None]
    ) -> Iterator[Finding]:
        try:
            opened = self._opener.open(wanted)
            if is_javascript(opened):
                yield from compare_javascript(opened, envelope, blobs)
                return
            expected = expected_envelope(opened, self._threads.past(wanted))
            pair = Pair(opened, expected, envelope, blobs, self._opener.plain)
            yield from compare_checkpoint(pair)
        except Unreadable as unreadable:
            yield Finding("checkpoints", "checkpoint", str(unreadable))
        except RecursionError:
            why = "the checkpoint is nested too deep to compare"
            yield Finding("checkpoints", "checkpoint", why)

    def writes(self, source: Iterator[WriteRow]) -> None:
        """Compare all pending writes of the shard, orphans too."""
        rows = TargetRows(
            self._target,
            sql.Identifier(self._schema, "checkpoint_writes"),
            sql.SQL(", ").join(map(sql.Identifier, WRITE_COLUMNS)),
            WRITE,
            self._shard,
        )
        pairs: Pairs[WriteRow] = Pairs(rows, write_key, head=0)
        value = WriteRow._fields.index("value")
        with closing(beside(grouped(source, value), pairs.of, stop=self._interrupt)) as groups:
            for wanted, row in chain.from_iterable(groups):
                if wanted == row:
                    continue
                if wanted is None or row is None:
                    self._one_sided("checkpoint_writes", wanted, row)
                    continue
                for finding in compare_write(wanted, row):
                    self._note(row, finding)
        self._counts[1] = rows.read

    def _one_sided(
        self,
        table: str,
        wanted: CheckpointRow | WriteRow | None,
        row: Row | None,
    ) -> None:
        if wanted is not None:
            self._note(wanted, Finding(table, "", "the row is missing"))
        elif row is not None:
            self._note(row, Finding(table, "", "the source has no such row"))

    def unreferenced_blobs(self) -> None:
        """Find blob rows that no compared checkpoint refers to."""
        for thread_id, checkpoint_ns, channel, _ in self._blobs.unreferenced(self._shard):
            why = f"no checkpoint refers to this blob of channel {quoted(channel)}"
            self._note((thread_id, checkpoint_ns, ""), Finding("checkpoint_blobs", "", why))
        self._counts[2] = self._blobs.there
