"""check_schema: refuse, before any work, what cannot be migrated; make this run the owner."""

from __future__ import annotations

from typing import Any

from msgspec.structs import asdict, replace

from .. import source
from ..errors import SettingsInvalid
from ..model import SourceInfo
from ..preflight import check_store, check_target
from ..preflight.estimate import check_disk, estimate
from ..preflight.packages import check_packages
from ..resting import resting_connections
from ..run import lease, ledger, records, undo_ledger
from ..run.run import Run
from ..store_model import StoreInfo, StoreTarget
from ..texts import quoted


def check_schema(run: Run) -> dict[str, Any]:
    """Refuse, before any work, a source or a target that cannot be migrated; make this run the owner.

    The source is only looked at. On the target missing tables may be made, where the settings
    allow it, and the ledger is opened. Safe to repeat. Returns counts and names, no values.
    Raises whatever `source.inspect_source`, `preflight.check_target` and `lease.acquire` raise.
    """
    settings = run.settings
    run.open_folder()
    run.folder.sweep()
    with (
        resting_connections(),
        run.folder.in_use(),
        run.journal.step(records.CheckSchema) as record,
    ):
        check_packages()
        with source.at_hand(settings.source, run.objects, run.folder.path) as (path, _):
            found = source.inspect_source(
                path, settings.threads, with_store=settings.store == "auto", scratch=run.folder.path
            )
        info = record.source = replace(found, uri=settings.source)
        _refuse_unmatched(info)
        needs = estimate(info, settings)
        if not run.folder.has_frozen():
            check_disk(run.folder.path, needs.folder_bytes)
        target = record.target = check_target(run.connect, settings, conn_id=settings.conn_id)
        if settings.takes_store and info.store is not None:
            record.store = check_store(run.connect, settings, info.store)
        known = ledger.find_run(run.connect, settings.key)
        if known is not None and known.state == "undone":
            run.folder.clear(keep=frozenset())  # it begins anew, with nothing of before
        lease.acquire(run.connect, settings, owner=run.owner)
        undo_ledger.forget_expired(run.connect, settings.undo_days)
    run.log(
        f"source {quoted(info.uri, 200)}: {info.format}, {info.counts.checkpoints:,} checkpoints and "
        f"{info.counts.writes:,} writes in {info.threads:,} threads, {info.bytes:,} bytes"
    )
    if info.store is not None:
        run.log(_of_the_store(info.store, record.store))
    run.log(
        f"target {target.database!r} (PostgreSQL {target.server_version}), schema {target.schema!r}"
        + (", tables made" if target.created_tables else "")
    )
    run.log(f"estimate: {needs.sentence()}")
    return {
        "format": info.format,
        "threads": info.threads,
        "counts": asdict(info.counts),
        "store_items": None if info.store is None else info.store.items,
        "server_version": target.server_version,
    }


def _of_the_store(info: StoreInfo, target: StoreTarget | None) -> str:
    found = f"its store (long-term memory): {info.items:,} items, {info.vectors:,} vectors"
    if target is None:
        return f"{found}; left behind, for it belongs to no thread"
    return f"{found}; vectors are not copied: {target.why}" if target.why else found


def _refuse_unmatched(info: SourceInfo) -> None:
    """A glob that takes no thread is most likely misspelt; one that excludes none is told as a warning."""
    taking = [glob for glob in info.unmatched_globs if not glob.startswith("!")]
    if taking:
        named = ", ".join(quoted(glob) for glob in taking[:5])
        raise SettingsInvalid(
            f"param 'threads': no thread of the source matches {named}.",
            safe="the source was only looked at; nothing was written.",
            next="correct the glob (letters count as they are, `*` stands for anything), or leave it out.",
            param="threads",
        )
