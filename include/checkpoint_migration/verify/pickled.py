"""Pickled checkpoints, where the user allowed it: reviving them runs what the database says."""

from __future__ import annotations

import pickle
from typing import Any

from .source_checkpoint import SENDS, VALUES, Opened, Unreadable

TRUE = pickle.dumps(True, 4)


class Pickled(Opened):
    """A revived checkpoint; `data` is its values, pickled one by one.

    A revived value need not be pickled into the same bytes again (a set has no order), so two
    pickles are equal too if what they revive to is.
    """

    __slots__ = ()

    def holds(self, span: tuple[int, int], blob: bytes) -> bool:
        if super().holds(span, blob):
            return True
        try:
            ours, theirs = self.value(span), self.revive(blob)
            if pickle.dumps(ours) == pickle.dumps(theirs):
                return True
            return type(ours) is type(theirs) and bool(ours == theirs)
        except Exception:  # noqa: BLE001 - whatever the database's code raises, it is not equal
            return False

    def is_true(self, span: tuple[int, int]) -> bool:
        return self.data[slice(*span)] == TRUE

    def is_snapshot(self, span: tuple[int, int]) -> bool:  # noqa: ARG002 - only msgpack has them
        return False

    def value(self, span: tuple[int, int]) -> Any:
        return self.revive(self.data[slice(*span)])

    @staticmethod
    def revive(data: bytes) -> Any:
        return pickle.loads(data)  # noqa: S301 - allowed by the user


def open_pickled(data: bytes, kind: type[Pickled] = Pickled) -> Opened:
    """Revive a checkpoint, or raise `Unreadable`. Runs code of the database."""
    try:
        fields = kind.revive(data)
        values = fields.pop(VALUES, {})
        pieces = {channel: pickle.dumps(value, 4) for channel, value in values.items()}
        fields = {name: as_plain(value) for name, value in fields.items()}
    except Exception as error:  # noqa: BLE001 - whatever the database's code raises
        why = f"a pickled checkpoint cannot be revived ({type(error).__name__})"
        raise Unreadable(why) from None
    if fields.get(SENDS):
        raise Unreadable("a pickled checkpoint carries pending_sends")
    spans, end = {}, 0
    for channel, piece in pieces.items():
        spans[channel] = (end, end + len(piece))
        end += len(piece)
    return kind("pickle", b"".join(pieces.values()), fields, spans, None)


def as_plain(value: Any) -> Any:
    return (
        {key: as_plain(part) for key, part in value.items()} if isinstance(value, dict) else value
    )
