"""One digest for all that a run exported: whoever has it can tell whether it was these very files."""

from __future__ import annotations

import hashlib

from . import records
from .run import Run


def digest_of_exports(run: Run) -> str | None:
    """The SHA-256 of the manifests' digests (hex, a line each, in the order of the shards).

    A manifest holds the digest of each batch of its file. None where nothing was planned yet.
    """
    exports = run.journal.record(records.PlanBatches).exports
    if exports is None:
        return None
    lines = "".join(f"{export.manifest_sha256}\n" for export in exports)
    return hashlib.sha256(lines.encode()).hexdigest()
