"""What a batch may hold: how a line of it becomes rows of tables, and where its receipt is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .. import store_tables, tables
from ..every_table import DECLARED
from ..exportfile import decode_line
from ..itemlines import decode_item
from ..model import TargetCheckpoint
from ..run.ledger import Original
from ..run.receipts import CHECKPOINTS, ITEMS, Receipts
from ..store_model import TargetItem

# JSONB's binary form is a version byte and the text, so bytes of ours go in unparsed on this side; a
# vector comes in pgvector's own form already
JSONB_HEADER = b"\x01"
AS_SENT = {
    "jsonb": "bytea",
    "vector": "bytea",
    "integer": "int4",
    "timestamp with time zone": "timestamptz",
}


@dataclass(frozen=True, slots=True)
class Kind:
    """`decode` makes a row of a line, `add` puts it into a portion; columns and their types are by table.

    `largest` is the table that most bytes go to, or to whose rows the others' refer.
    """

    decode: Callable[[bytes], Any]
    add: Callable[[Portion, Any], None]
    columns: Mapping[str, tuple[str, ...]]
    types: Mapping[str, list[str]]
    receipts: Receipts
    largest: str


@dataclass(slots=True)
class Portion:
    """Rows of each table as COPY takes them, and what the ledger keeps of them.

    Of the bytes of `size` those not for the largest table are `beside`.
    """

    rows: dict[str, list[tuple[Any, ...]]]
    originals: list[Original] = field(default_factory=list)
    size: int = 0
    beside: int = 0

    @classmethod
    def of(cls, kind: Kind) -> Portion:
        """An empty one."""
        return cls({name: [] for name in kind.columns})

    def take(self, other: Portion) -> None:
        """Take over what another holds."""
        for name, rows in other.rows.items():
            self.rows[name] += rows
        self.originals += other.originals
        self.size += other.size
        self.beside += other.beside


def _add_checkpoint(portion: Portion, row: TargetCheckpoint) -> None:
    place = (row.thread_id, row.checkpoint_ns)
    blobs, writes = portion.rows["checkpoint_blobs"], portion.rows["checkpoint_writes"]
    size = beside = 0
    for blob in row.blobs:
        blobs.append((*place, *blob))
        size += len(blob.blob)
    if row.checkpoint is not None and row.metadata is not None:
        envelope = (JSONB_HEADER + row.checkpoint, JSONB_HEADER + row.metadata)
        key = (*place, row.checkpoint_id, row.parent_checkpoint_id)
        portion.rows["checkpoints"].append((*key, *envelope))
        beside += len(row.checkpoint) + len(row.metadata)
    if row.original_metadata is not None:
        original = Original(*place, row.checkpoint_id, "metadata", row.original_metadata)
        portion.originals.append(original)
        beside += len(row.original_metadata)
    for task_id, task_path, idx, channel, kind, value in row.writes:
        writes.append((*place, row.checkpoint_id, task_id, idx, task_path, channel, kind, value))
        beside += len(value)
    portion.size += size + beside
    portion.beside += beside


def _add_item(portion: Portion, row: TargetItem) -> None:
    place = (row.prefix, row.key)
    moments = (_moment(row.created_at), _moment(row.updated_at), _moment(row.expires_at))
    item = (*place, JSONB_HEADER + row.value, *moments, row.ttl_minutes)
    portion.rows[store_tables.STORE].append(item)
    portion.size += len(row.value)
    if row.original_minutes is not None:
        minutes = row.original_minutes.encode()
        portion.originals.append(Original("", *place, "store.ttl_minutes", minutes))
    vectors = portion.rows[store_tables.VECTORS]
    for name, embedding, created, updated in row.vectors:
        vectors.append((*place, name, embedding, _moment(created), _moment(updated)))
        portion.size += len(embedding)
        portion.beside += len(embedding)


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _types(columns: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    kinds = {name: [DECLARED[name][c].rstrip("!") for c in columns[name]] for name in columns}
    return {name: [AS_SENT.get(kind, kind) for kind in found] for name, found in kinds.items()}


OF_CHECKPOINTS = Kind(
    decode_line,
    _add_checkpoint,
    tables.COLUMNS,
    _types(tables.COLUMNS),
    CHECKPOINTS,
    "checkpoint_blobs",
)
OF_ITEMS = Kind(
    decode_item,
    _add_item,
    store_tables.COLUMNS,
    _types(store_tables.COLUMNS),
    ITEMS,
    store_tables.STORE,
)


def kind_of(*, is_store: bool) -> Kind:
    """The kind of an export's batches."""
    return OF_ITEMS if is_store else OF_CHECKPOINTS
