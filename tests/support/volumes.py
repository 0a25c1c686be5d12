"""Small volumes, really mounted, for what only a full disk or another owner can show."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def as_root(*command: str) -> None:
    """Run what only root may; left out where nobody lets us."""
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
    try:
        subprocess.run([*prefix, *command], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs root: {command[0]}: {error}")


@contextmanager
def mounted(place: Path, size: str) -> Iterator[Path]:
    """A volume of that size at `place`, ours alone."""
    place.mkdir()
    options = f"size={size},mode=700,uid={os.geteuid()},gid={os.getegid()}"
    as_root("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place))
    try:
        yield place
    finally:
        as_root("umount", str(place))
