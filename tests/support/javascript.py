"""LangGraph.js as its users have it: the packages of `tests/javascript`, run by node."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent / "javascript"


def packages() -> Path:
    """The folder that `tests/javascript/install` made; skips where it or node is missing."""
    if shutil.which("node") is None:
        pytest.skip("node is missing (apt-get install nodejs npm libnode-dev)")
    abi = _node("-p", "process.versions.modules").strip()
    digest = hashlib.sha256((FOLDER / "package-lock.json").read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = cache / "checkpoint-migration" / f"node-{abi}-{digest}"
    if not (kept / ".ready").exists():
        pytest.skip("LangGraph.js is not installed (run tests/javascript/install)")
    return kept


def _node(*arguments: str, cwd: Path | None = None) -> str:
    done = subprocess.run(
        ["node", *arguments], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Application:
    """`app.mjs`, which runs and shows the same threads on either of LangGraph.js's savers."""

    def __init__(self, folder: Path) -> None:
        """In `folder`, which is empty."""
        self._folder = folder
        (folder / "node_modules").symlink_to(packages() / "node_modules")
        for name in ("app.mjs", "package.json"):
            shutil.copy(FOLDER / name, folder / name)

    def half(self, *where: str) -> None:
        """Run every thread up to its middle."""
        _node("app.mjs", "half", *where, cwd=self._folder)

    def rest(self, *where: str, only: tuple[str, ...] = ()) -> None:
        """Run every thread, or these, from its middle to its end."""
        _node("app.mjs", "rest", *where, *only, cwd=self._folder)

    def show(self, *where: str) -> dict[str, dict[str, list[dict[str, Any]]]]:
        """All that the saver (`tuples`) and the graphs (`states`) say of each thread."""
        shown: dict[str, dict[str, list[dict[str, Any]]]] = json.loads(
            _node("app.mjs", "show", *where, cwd=self._folder)
        )
        return shown


def sqlite(path: Path) -> tuple[str, str]:
    return "sqlite", str(path)


def postgres(dsn: str) -> tuple[str, str]:
    return "postgres", dsn
