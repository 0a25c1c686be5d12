"""What may be told of an error that is not ours: its type and its place, for its message may hold a value."""

from __future__ import annotations

import errno
import traceback
from pathlib import Path
from types import FrameType

PROJECT = Path(__file__).resolve().parents[2]
INSTALLED = ("site-packages", "dist-packages")


def told_of(error: BaseException) -> str:
    """An error by its type, the system's name for it, and where it came up."""
    parts = [type(error).__name__]
    if isinstance(error, OSError) and (name := errno.errorcode.get(error.errno or 0)):
        parts.append(name)
    if place := place_of(error):
        parts.append(f"at {place}")
    return ", ".join(parts)


def place_of(error: BaseException) -> str:
    """The file and line where an error came up: a path within the project, or a library's module.

    Of one that came up in a library it says too where the project called it.
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames:
        return ""
    ours = [f"{path}:{line}" for frame, line in frames if (path := _path_within(frame))]
    frame, line = frames[-1]
    if _path_within(frame):
        return ours[-1]
    place = f"{frame.f_globals.get('__name__') or 'unknown'}:{line}"
    return f"{place}, called from {ours[-1]}" if ours else place


def _path_within(frame: FrameType) -> str | None:
    """A frame's file as a path within the project, unless it is of an environment kept there."""
    path = Path(frame.f_code.co_filename)
    if not path.is_relative_to(PROJECT) or any(part in INSTALLED for part in path.parts):
        return None
    return path.relative_to(PROJECT).as_posix()
