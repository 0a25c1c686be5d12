"""A line of an export file that holds an item of the store with its vectors."""

from __future__ import annotations

import msgspec

from .store_model import TargetItem, TargetVector


class _Vector(msgspec.Struct):
    field_name: str
    embedding: bytes
    created_at: str | None
    updated_at: str | None


class _Item(msgspec.Struct):
    prefix: str
    key: str
    value: msgspec.Raw
    created_at: str | None
    updated_at: str | None
    expires_at: str | None
    ttl_minutes: int | None


class _Line(msgspec.Struct, omit_defaults=True):
    store_item: _Item
    vectors: list[_Vector] = []
    original_minutes: str | None = None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Line)


def encode_item(row: TargetItem) -> bytes:
    """An item with its vectors as one line of JSON, their bytes in base64."""
    item = _Item(
        row.prefix,
        row.key,
        msgspec.Raw(row.value),
        row.created_at,
        row.updated_at,
        row.expires_at,
        row.ttl_minutes,
    )
    line = _Line(item, [_Vector(*v) for v in row.vectors], row.original_minutes)
    return _encoder.encode(line) + b"\n"


def decode_item(line: bytes) -> TargetItem:
    """The item that a line holds."""
    parsed = _decoder.decode(line)
    item = parsed.store_item
    return TargetItem(
        item.prefix,
        item.key,
        bytes(item.value),
        item.created_at,
        item.updated_at,
        item.expires_at,
        item.ttl_minutes,
        [
            TargetVector(v.field_name, v.embedding, v.created_at, v.updated_at)
            for v in parsed.vectors
        ],
        parsed.original_minutes,
    )
