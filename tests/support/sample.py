"""The demo's sample database for tests: written once a session, copied for each test."""

from __future__ import annotations

import fcntl
import shutil
from pathlib import Path

from scripts.demo_sample import CHECKPOINTS, THREADS, write_sample

__all__ = ["CHECKPOINTS", "THREADS", "copy_sample", "write_sample"]


def copy_sample(
    shared: Path, to: Path, *, threads: int = THREADS, checkpoints: int = CHECKPOINTS
) -> Path:
    """Copy the sample of that size to `to`, writing it below `shared` if nobody has yet."""
    shared.mkdir(parents=True, exist_ok=True)
    path = shared / f"sample-{threads}-{checkpoints}.sqlite"
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        write_sample(path, threads=threads, checkpoints=checkpoints)
    return Path(shutil.copyfile(path, to))
