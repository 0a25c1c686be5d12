"""Pickled checkpoints, only where the user chose it: unpickling runs what the database says.

`pickle_fallback=True` makes the saver pickle a whole checkpoint when one of its values is beyond
msgpack. It cannot be split without being revived, so its classes have to be importable here.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from .formats import SENDS, VALUES, NotSplittable, Split

PROTOCOL = 4  # readable by every Python that LangGraph runs on


def split_pickle(blob: bytes) -> Split:
    """Revive a checkpoint and pickle each channel's value by itself. Runs code of the database."""
    return split_with(pickle.loads, blob)


def _pickled(value: Any) -> bytes:
    return pickle.dumps(value, PROTOCOL)


def split_with(
    loads: Callable[[bytes], Any],
    blob: bytes,
    dumps: Callable[[Any], bytes] = _pickled,
    value_type: str = "pickle",
) -> Split:
    """Read a checkpoint with `loads`, and write each channel's value by itself with `dumps`."""
    try:
        checkpoint = loads(blob)
    except NotSplittable:
        raise
    except Exception as error:  # noqa: BLE001 - whatever the database's code raises
        raise NotSplittable(
            f"it cannot be unpickled on this worker ({type(error).__name__})"
        ) from None
    if not isinstance(checkpoint, dict):
        raise NotSplittable("it is no pickled checkpoint")
    values: Any = checkpoint.pop(VALUES, None)
    if checkpoint.get(SENDS):
        raise NotSplittable("it is pickled and carries pending_sends")
    if not isinstance(values, dict):
        raise NotSplittable(f"it has no map of {VALUES}")
    try:
        slices = {channel: dumps(value) for channel, value in values.items()}
    except NotSplittable:
        raise
    except Exception as error:  # noqa: BLE001 - whatever the database's code raises
        raise NotSplittable(
            f"a value cannot be pickled by itself ({type(error).__name__})"
        ) from None
    envelope = {key: _plain(value) for key, value in checkpoint.items()}
    return Split(envelope, slices, value_type)


def _plain(value: Any) -> Any:
    """Maps of any kind as dicts: `versions_seen` was pickled as a `defaultdict`."""
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, dict) else value
