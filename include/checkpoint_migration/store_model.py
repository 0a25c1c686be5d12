"""The nouns of the long-term store: what `SqliteStore` keeps, and what becomes of it. No I/O."""

from __future__ import annotations

from typing import Any, NamedTuple

from msgspec import Struct


class ItemRow(NamedTuple):
    """A row of the source's `store`."""

    prefix: Any
    key: Any
    value: Any
    created_at: Any
    updated_at: Any
    expires_at: Any
    ttl_minutes: Any


class VectorRow(NamedTuple):
    """A row of the source's `store_vectors`."""

    prefix: Any
    key: Any
    field_name: Any
    embedding: Any
    created_at: Any
    updated_at: Any


class TargetVector(NamedTuple):
    """A row of `store_vectors`, without its item: `embedding` as pgvector sends it."""

    field_name: str
    embedding: bytes
    created_at: str | None
    updated_at: str | None


class TargetItem(NamedTuple):
    """A row of `store` with its vectors; moments in ISO 8601, in UTC to the microsecond.

    `original_minutes` are the source's where they had to be rounded up.
    """

    prefix: str
    key: str
    value: bytes
    created_at: str | None
    updated_at: str | None
    expires_at: str | None
    ttl_minutes: int | None
    vectors: list[TargetVector]
    original_minutes: str | None = None


class StoreInfo(Struct, frozen=True):
    """What a look at a `SqliteStore` shows: its items, their vectors, and the dimensions of these.

    `orphan_vectors` are those of items that are gone; `vectors` does not count them.
    """

    items: int
    vectors: int = 0
    orphan_vectors: int = 0
    dimensions: tuple[int, ...] = ()


class StoreTarget(Struct, frozen=True):
    """What a look at the target's `store` tables showed, after they were made if they had to be.

    `vectors` says whether vectors are copied; where they are not, `why` names the reason.
    `warnings` tell what works today and is worth a look.
    """

    created_tables: bool
    vectors: bool
    why: str
    fingerprint: str
    warnings: tuple[str, ...] = ()
