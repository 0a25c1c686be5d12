"""`make env`: the secrets that docker-compose.yaml asks for."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def made(file: Path, folder: str = "/data") -> dict[str, str]:
    environment = {**os.environ, "ENV_FILE": str(file), "SOURCE_FOLDER": folder}
    subprocess.run([ROOT / "scripts" / "env"], env=environment, check=True, capture_output=True)
    return dict(line.split("=", 1) for line in file.read_text().splitlines())


def test_it_makes_all_that_the_stand_asks_for_private_and_once(tmp_path: Path) -> None:
    """Every variable without a default has a value of its own; a file that is there is kept."""
    stand = (ROOT / "docker-compose.yaml").read_text()
    asked = set(re.findall(r"\$\{([A-Z_]+):\?", stand))
    file = tmp_path / "env"
    found = made(file)
    assert set(found) == asked
    assert all(found.values())
    assert found["SOURCE_FOLDER"] == "/data"
    assert len(set(found.values())) == len(found)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert made(file, "/elsewhere") == found
    assert made(tmp_path / "another")["TARGET_PASSWORD"] != found["TARGET_PASSWORD"]
