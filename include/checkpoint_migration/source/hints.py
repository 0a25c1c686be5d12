"""Says more of a refusal where what lies beside the database, or does not, explains it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from ..errors import MigrationError, SourceHasNoTables
from .failures import named, source_error
from .file_state import Look

NOT_COPIED = (
    "copy the database together with its -wal while the application is stopped (or run `sqlite3 FILE "
    "'PRAGMA wal_checkpoint(TRUNCATE)'` where it came from, and copy it then), and name that copy."
)


def explained(
    error: sqlite3.Error | MigrationError, path: str | Path, seen: Look
) -> MigrationError:
    """The refusal of a source, with what its files show about the cause."""
    refusal = source_error(error, path) if isinstance(error, sqlite3.Error) else error
    tables = refusal.facts.get("tables")
    if tables is not None and seen.in_wal_mode and not seen.has_wal:
        return _without_its_wal(refusal, path)
    if seen.has_wal and (tables == 0 or refusal.facts.get("malformed")):
        return _beside_another_wal(refusal)
    return refusal


def _without_its_wal(refusal: MigrationError, path: str | Path) -> SourceHasNoTables:
    if refusal.facts.get("tables") == 0:
        return SourceHasNoTables(
            f"{named(path)} holds no tables: it was used in WAL mode, and its -wal, where the rows then "
            "are, was not copied along.",
            next=NOT_COPIED,
            **refusal.facts,
        )
    return SourceHasNoTables(
        refusal.what,
        next=f"{refusal.next} If it is a copy: it was used in WAL mode and has no -wal beside it; "
        f"{NOT_COPIED}",
        **refusal.facts,
    )


def _beside_another_wal(refusal: MigrationError) -> MigrationError:
    return type(refusal)(
        f"{refusal.what} A -wal lies beside it, which may be another copy's.",
        next=f"if the files were copied: {NOT_COPIED} Else: {refusal.next}",
        **refusal.facts,
    )
