"""What a run was asked to do, validated once; no other room doubts these values again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import date
from difflib import SequenceMatcher
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args, get_type_hints

from .errors import SettingsInvalid
from .model import SourceText
from .param_values import (
    NOTHING_DONE,
    choice,
    folder_place,
    globs_of,
    invalid,
    source_place,
    text_of,
    whether,
    whole_number,
)
from .task_sizes import USUAL, TaskSizes
from .texts import quoted

DAG_ID = re.compile(r"[A-Za-z0-9_.-]{1,200}")
SCHEMA_BYTES = 63  # PostgreSQL's limit for a name
OWN_SCHEMAS = re.compile(r"checkpoint_(migration|rehearsal)_[0-9a-f]{8}")
CONN_ID_BYTES = 200  # Airflow's limit for a connection's id is near
CONNECTION = "the id of an Airflow connection"
BATCH_SIZES = (1, 100_000)
NAMED = 5  # unknown params that a refusal names

OnConflict = Literal["fail", "keep", "replace"]
OnDrift = Literal["fail", "report"]
OnBlocker = Literal["fail", "sanitize"]
Verify = Literal["full", "counts"]
Store = Literal["auto", "skip"]

PARAMS = (
    "source",
    "postgres_conn_id",
    "target_schema",
    "create_tables",
    "export_uri",
    "threads",
    "batch_size",
    "on_conflict",
    "on_drift",
    "on_blocker",
    "verify",
    "aes_conn_id",
    "allow_pickle",
    "store",
    "keep_exports",
)


@dataclass(frozen=True, slots=True)
class ThreadFilter:
    """Which threads are taken: any of the globs (all, when none includes), and none of the `!globs`."""

    globs: tuple[str, ...] = ()

    def takes(self, thread_id: SourceText) -> bool:
        if not self.globs:
            return True
        name = _name_of(thread_id)
        including = [g for g in self.globs if not g.startswith("!")]
        excluding = [g[1:] for g in self.globs if g.startswith("!")]
        included = not including or any(fnmatchcase(name, g) for g in including)
        return included and not any(fnmatchcase(name, g) for g in excluding)

    def unmatched(self, thread_ids: Iterable[SourceText]) -> tuple[str, ...]:
        """The globs, excluding ones too, that match none of these threads: most likely misspelt."""
        waiting = dict.fromkeys(self.globs)
        for name in map(_name_of, thread_ids):
            if not waiting:
                break
            for glob in [g for g in waiting if fnmatchcase(name, g.removeprefix("!"))]:
                del waiting[glob]
        return tuple(waiting)


def _name_of(thread_id: SourceText) -> str:
    """An id as globs see it."""
    return thread_id if isinstance(thread_id, str) else thread_id.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Settings:
    """A run's settings: the DAG's params, the deployment's caps, and who asked.

    `source` is an absolute path, a `file:` URI where that is no UTF-8, or a place in an object store.
    `key` (8 hex) names everything that belongs to the run: its folder, its staging schema, its ledger
    rows. Nothing of a raw run id becomes a name.
    """

    dag_id: str
    run_id: str
    source: str
    export_uri: str
    conn_id: str = "langgraph_postgres"
    target_schema: str = "public"
    create_tables: bool = True
    threads: ThreadFilter = ThreadFilter()
    batch_size: int = 1000
    on_conflict: OnConflict = "fail"
    on_drift: OnDrift = "fail"
    on_blocker: OnBlocker = "fail"
    verify: Verify = "full"
    allow_pickle: bool = False
    store: Store = "auto"
    keep_exports: bool = False
    rehearsal: bool = False
    run_date: date | None = None
    sizes: TaskSizes = USUAL
    undo_days: int = 30

    @property
    def key(self) -> str:
        return hashlib.sha256(f"{self.dag_id}\0{self.run_id}".encode()).hexdigest()[:8]

    @property
    def staging_schema(self) -> str:
        return f"checkpoint_migration_{self.key}"

    @property
    def live_schema(self) -> str:
        """The schema that promote writes: the target's, or a rehearsal's scratch schema."""
        return f"checkpoint_rehearsal_{self.key}" if self.rehearsal else self.target_schema

    @property
    def as_real(self) -> Settings:
        """A rehearsal's settings as a real run would have them: its staging, and the target's tables."""
        return replace(self, rehearsal=False)

    @property
    def takes_store(self) -> bool:
        """Whether a store in the source is taken: it belongs to no thread, so that a run which takes
        threads by name leaves it behind, and one that only excludes some does not.
        """
        return self.store == "auto" and all(glob.startswith("!") for glob in self.threads.globs)

    @property
    def folder_name(self) -> str:
        began = "" if self.run_date is None else f"{self.run_date.isoformat()}-"
        return f"{began}{self.dag_id}-{self.key}"


def default_of(param: str) -> Any:
    """A param's default, which is that of the setting of its name."""
    return next(field.default for field in fields(Settings) if field.name == param)


def choices_of(param: str) -> tuple[str, ...]:
    """What a param that is a choice may be; the default comes first."""
    return get_args(get_type_hints(Settings)[param])


def parse_settings(
    params: Mapping[str, Any],
    *,
    dag_id: str,
    run_id: str,
    default_export_uri: str,
    rehearsal: bool = False,
    run_date: date | None = None,
    sizes: TaskSizes = USUAL,
    undo_days: int = 30,
) -> Settings:
    """Return the settings that a DAG's params spell, or raise `SettingsInvalid` naming the first bad one."""
    if not DAG_ID.fullmatch(dag_id):
        raise invalid("dag_id", "is no name that can be part of a path")
    _refuse_unknown(params)
    schema = text_of(
        "target_schema",
        _given(params, "target_schema"),
        f"a name of 1 to {SCHEMA_BYTES} bytes",
        SCHEMA_BYTES,
    )
    if schema == "checkpoint_migration" or OWN_SCHEMAS.fullmatch(schema):
        raise invalid("target_schema", "is a name that this package keeps for itself")
    if (aes_conn_id := params.get("aes_conn_id")) not in (None, ""):
        text_of("aes_conn_id", aes_conn_id, CONNECTION, CONN_ID_BYTES)
    return Settings(
        dag_id=dag_id,
        run_id=run_id,
        source=source_place("source", params.get("source")),
        export_uri=folder_place(
            "export_uri", _or_default(params, "export_uri", default_export_uri)
        ),
        conn_id=text_of(
            "postgres_conn_id",
            params.get("postgres_conn_id", default_of("conn_id")),
            CONNECTION,
            CONN_ID_BYTES,
        ),
        target_schema=schema,
        create_tables=whether("create_tables", _given(params, "create_tables")),
        threads=ThreadFilter(globs_of("threads", params.get("threads"))),
        batch_size=whole_number("batch_size", _given(params, "batch_size"), *BATCH_SIZES),
        on_conflict=_choice(params, "on_conflict"),
        on_drift=_choice(params, "on_drift"),
        on_blocker=_choice(params, "on_blocker"),
        verify=_choice(params, "verify"),
        allow_pickle=whether("allow_pickle", _given(params, "allow_pickle")),
        store=_choice(params, "store"),
        keep_exports=whether("keep_exports", _given(params, "keep_exports")),
        rehearsal=rehearsal,
        run_date=run_date,
        sizes=sizes,
        undo_days=undo_days,
    )


def _refuse_unknown(params: Mapping[str, Any]) -> None:
    """Airflow hands on every key of a run's conf: one that is no param would go unheeded."""
    unknown = [str(name) for name in params if name not in PARAMS]
    if not unknown:
        return
    told = [f"{quoted(name)} (the nearest param is {_nearest(name)!r})" for name in unknown[:NAMED]]
    more = f" and {len(unknown) - NAMED:,} more" if len(unknown) > NAMED else ""
    raise SettingsInvalid(
        f"the run was given what is no param: {', '.join(told)}{more}.",
        safe=NOTHING_DONE,
        next="correct it or leave it out, and trigger the DAG again; its form lists the params. To try "
        "it all with nothing live, trigger rehearse_checkpoints.",
        params=unknown,
    )


def _nearest(name: str) -> str:
    return max(PARAMS, key=lambda param: SequenceMatcher(None, name.lower(), param).ratio())


def _given(params: Mapping[str, Any], name: str) -> Any:
    return params.get(name, default_of(name))


def _choice(params: Mapping[str, Any], name: str) -> Any:
    return choice(name, params.get(name), choices_of(name))


def _or_default(params: Mapping[str, Any], name: str, default: str) -> Any:
    """A param, or what the deployment says where nothing is given."""
    value = params.get(name)
    return default if value is None or value == "" else value
