"""A serializer for both savers that decodes plain data and revives nothing a database names."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import Any, NamedTuple

import ormsgpack

Decrypt = Callable[[str, bytes], bytes]
"""(the full type, such as `msgpack+aes`, and the bytes) -> the plain bytes."""

KEPT = "checkpoint-migration/kept"


class Opaque(NamedTuple):
    """Bytes that are compared and never opened: a msgpack ext, a pickle, a ciphertext."""

    kind: str
    data: bytes


class RawSerializer:
    """What a saver takes for its `serde`. No class is looked up, imported or called.

    Its values are plain data in which everything that a real serializer would revive stays
    `Opaque`, so both sides' values compare by the very bytes a revival would start from.
    """

    def __init__(self, decrypt: Decrypt | None = None) -> None:
        self._decrypt = decrypt
        self._kept: dict[bytes, Any] = {}

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Keep an object for one `loads_typed`: PostgresSaver repacks sends of `v < 4` this way."""
        token = secrets.token_bytes(16)
        self._kept[token] = obj
        return KEPT, token

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        kind, raw = data
        if kind == KEPT and raw in self._kept:
            return self._kept.pop(raw)
        if self._decrypt is not None and "+" in kind:
            kind, raw = kind.partition("+")[0], self._decrypt(kind, raw)
        if kind == "null":
            return None
        if kind == "bytes":
            return bytes(raw)
        if kind == "bytearray":
            return bytearray(raw)
        try:
            if kind == "msgpack":
                return ormsgpack.unpackb(raw, ext_hook=_opaque, option=ormsgpack.OPT_NON_STR_KEYS)
            if kind == "json":
                return json.loads(raw)
        except (ValueError, RecursionError):
            return Opaque(f"{kind} that does not decode", bytes(raw))
        return Opaque(kind, bytes(raw))


def _opaque(code: int, data: bytes) -> Opaque:
    return Opaque(f"ext {code}", bytes(data))
