"""A PostgreSQL server that speaks German, whether the machine knows that language or not."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from tests.support.postgres import TestServer, debian_server, new_folder

TRANSLATIONS = "/usr/share/locale/de/LC_MESSAGES"


@contextlib.contextmanager
def german_server(**settings: str) -> Iterator[TestServer]:
    """Run Debian's server with `lc_messages` German, and a locale made for it."""
    if not list(Path(TRANSLATIONS).glob("postgres-*.mo")):
        pytest.skip("Debian's PostgreSQL has no German messages (apt-get install postgresql)")
    folder = new_folder()
    try:
        made = subprocess.run(
            ["localedef", "-i", "de_DE", "-f", "UTF-8", str(folder / "de_DE.UTF-8")],
            capture_output=True,
            check=False,
        )
        if not (folder / "de_DE.UTF-8").exists():
            pytest.skip(f"no German locale (apt-get install locales): {made.stderr.decode()}")
        with (
            mock.patch.dict(os.environ, LOCPATH=str(folder)),
            debian_server(lc_messages="de_DE.UTF-8", **settings) as server,
        ):
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)
