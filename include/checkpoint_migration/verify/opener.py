"""Opens what a source row or a blob holds, as far as this run may: keys, and what only runs opened."""

from __future__ import annotations

from functools import lru_cache

from ..errors import KeyNeeded
from ..model import CheckpointRow
from ..texts import quoted
from .older_pickled import open_older_pickled
from .pickled import open_pickled
from .source_checkpoint import Decrypt, Opened, Unreadable, as_bytes, open_json, open_msgpack
from .thread_ts import with_id

OPEN = {"msgpack": open_msgpack, "json": open_json}


class Opener:
    """Opens checkpoints and decrypts values; those of one group of rows only once.

    `is_old`: the source is of the `thread_ts` layout.
    """

    def __init__(
        self, decrypt: Decrypt | None, *, allow_pickle: bool = False, is_old: bool = False
    ) -> None:
        self._decrypt, self._allow_pickle, self._is_old = decrypt, allow_pickle, is_old
        self.plain = lru_cache(maxsize=64)(self._plain)

    def open(self, row: CheckpointRow) -> Opened:
        """Open a source row, or raise `Unreadable`; `KeyNeeded` for an encrypted one without a key."""
        opened = self._open(row)
        return with_id(opened, row) if self._is_old else opened

    def _open(self, row: CheckpointRow) -> Opened:
        if row.checkpoint is None:
            raise Unreadable("the source's checkpoint is NULL")
        if not isinstance(row.type, str):
            raise Unreadable("the source's type is no text")
        data = as_bytes(row.checkpoint)
        kind, _, cipher = row.type.partition("+")
        if row.type == "pickle" and self._allow_pickle:
            return open_older_pickled(data) if self._is_old else open_pickled(data)
        if kind not in OPEN:
            name = quoted(row.type, 20)
            raise Unreadable(f"a source checkpoint of type {name} cannot be taken apart")
        return OPEN[kind](row.type, self._plain(row.type, data) if cipher else data)

    def _plain(self, kind: str, data: bytes) -> bytes:
        """Decrypt a value, or raise `Unreadable`; `KeyNeeded` without a key or with a wrong one."""
        if self._decrypt is None:
            raise KeyNeeded(
                "encrypted values cannot be compared without their key.",
                next="give the key that the application uses, and run the DAG again.",
            )
        try:
            return self._decrypt(kind, data)
        except KeyNeeded:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a cipher raises, this is unproven
            name = f"{quoted(kind, 20)} does not decrypt ({type(error).__name__})"
            raise Unreadable(f"a value of type {name}") from None
