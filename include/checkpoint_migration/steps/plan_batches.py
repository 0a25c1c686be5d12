"""plan_batches: refuse all blockers at once; else make staging and deal out the batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ..errors import Blocked
from ..finding_places import is_of_store, place_of
from ..findings import Blocker, Caution, Counts
from ..load.batches import manifest_of, plan_loads
from ..load.staging import prepare
from ..model import Export, Load, Manifest
from ..preflight import blocked_by_strict_msgpack
from ..run import records
from ..run.run import Run
from ..texts import quoted

WHOLE = 1_000  # characters: a class name is shown whole, for it is to be allowed by name


def plan_batches(run: Run, exports: Sequence[Export]) -> list[Load]:
    """Refuse with all blockers at once if there are any; else make staging and deal out the batches.

    Raises `Blocked`, and `ExportCorrupted` for an export that is not the one that was handed on.
    """
    settings = run.settings
    with run.step(records.PlanBatches) as step:
        if step.is_done:
            return []
        manifests = [manifest_of(run.folder, export) for export in exports]
        blockers = [blocker for manifest in manifests for blocker in manifest.blockers]
        step.record.exports = list(exports)
        step.record.exported = sum((e.counts for e in exports), Counts(0, 0, 0))
        step.record.blockers = blockers
        step.record.warnings = list(_warnings(manifests))
        if blockers:
            raise _blocked(blockers, sum(manifest.curable for manifest in manifests))
        prepare(run.connect, settings)
        loads = plan_loads(exports, settings.sizes)
    run.log(f"{sum(e.batches for e in exports):,} batches in {len(loads):,} tasks")
    return loads


def _warnings(manifests: Sequence[Manifest]) -> Iterator[Caution]:
    yield from (caution for manifest in manifests for caution in manifest.warnings)
    classes: Counter[str] = Counter()
    for manifest in manifests:
        classes.update(manifest.classes)
    for name in blocked_by_strict_msgpack(classes):
        yield Caution(
            "strict_msgpack",
            f"values of {quoted(name, WHOLE)}: an application under LANGGRAPH_STRICT_MSGPACK reads them only "
            "if it allows this class",
            classes[name],
        )


def _leaving_out(blockers: Sequence[Blocker]) -> str:
    of_store = sum(map(is_of_store, blockers))
    threads = (
        "leave out the threads that report.json lists under blockers (the report has the globs for the "
        "param threads)"
    )
    ways = [threads] * (of_store < len(blockers))
    ways += ["leave the store out with store: skip"] * bool(of_store)
    return " and ".join(ways)


def _blocked(blockers: Sequence[Blocker], curable: int) -> Blocked:
    first, count = blockers[0], len(blockers)
    has = "value has" if count == 1 else "values have"
    cure = ""
    if curable:
        solved = "all of them" if curable == count else f"{curable:,} of them"
        solved = "it" if count == 1 else solved
        cure = f"run again with on_blocker: sanitize, which solves {solved} (docs/formats.md); or "
    return Blocked(
        f"{count:,} {has} no lossless place in PostgreSQL; the first is `{first.column}` in "
        f"{place_of(first)}: {first.why}.",
        next=f"{cure}{_leaving_out(blockers)}, or mend their rows in the application; then run again.",
        blockers=count,
        curable=curable,
    )
