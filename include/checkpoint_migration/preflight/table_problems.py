"""Whether the tables that stand in a schema are the saver's own, and what setup() would mend."""

from __future__ import annotations

from collections.abc import Iterable

from ..tables import DECLARED, MIGRATIONS, PRIMARY_KEYS
from ..texts import quoted
from .layout import Layout, Table

SHALLOW_KEYS = {
    "checkpoints": ("thread_id", "checkpoint_ns"),
    "checkpoint_blobs": ("thread_id", "checkpoint_ns", "channel"),
}
# The version that makes a table; setup() does not make it again once that is recorded.
MADE_BY = {MIGRATIONS: 0, "checkpoints": 1, "checkpoint_blobs": 2, "checkpoint_writes": 3}
# What setup() itself still adds or relaxes in tables of an older version.
ADDED_BY = {("checkpoint_writes", "task_path"): 9}
RELAXED_BY = {("checkpoint_blobs", "blob"): 4}
# Neither the saver nor a migration names it when it inserts: a default would fill it.
UNNAMED = ("checkpoints", "type")

KINDS = {
    "v": "a view",
    "m": "a materialized view",
    "f": "a foreign table",
    "i": "an index",
    "I": "an index",
    "S": "a sequence",
    "c": "a composite type",
}


def older_than(layout: Layout, version: int) -> bool:
    """Whether setup() would bring tables up to date; of an unreadable version, by their looks."""
    if layout.version is not None:
        return layout.version < version
    return MIGRATIONS in layout.tables and any(
        name in layout.tables and layout.tables[name].column(column) is None
        for name, column in ADDED_BY
    )


def problems(layout: Layout, library_version: int, *, to_be_set_up: bool) -> list[str]:
    """Why these tables cannot be written as the saver's own; what setup() will mend is none."""
    if shallow := _shallow(layout):
        return [shallow]
    version = layout.version
    if version is not None and version > library_version:
        newer = f"its tables are of version {version}, newer than version {library_version}, the"
        return [f"{newer} last that the installed langgraph-checkpoint-postgres knows"]
    lost = [t for t in layout.missing if version is not None and version >= MADE_BY[t]]
    found = [f"{MIGRATIONS} records version {version}, yet the table {t} is missing" for t in lost]
    if not to_be_set_up:
        found += [f"the table {t} is missing" for t in layout.missing if t not in lost]
        if version is not None and version < library_version:
            found.append(
                f"its tables are of version {version}, older than {library_version},"
                " and create_tables is false"
            )
    assumed = (-1 if version is None else version) if to_be_set_up else library_version
    for table in layout.tables.values():
        found += _table_problems(table, assumed)
    return found


def _shallow(layout: Layout) -> str | None:
    for name, key in SHALLOW_KEYS.items():
        table = layout.tables.get(name)
        if table is not None and table.key == key:
            return (
                f"its table {name} is that of ShallowPostgresSaver, which keeps the latest"
                " checkpoint only: the history has no place there"
            )
    return None


def unlike_any_saver(table: Table) -> list[str]:
    """Why no insert into a table, be it a checkpoint's or the store's, would be what it seems."""
    name, found = table.name, []
    if table.rules:
        found.append(f"{name} has rules, which rewrite what is inserted")
    if table.row_security:
        found.append(f"row level security hides rows of {name} from this role")
    if table.children:
        found.append(f"{name} has tables that inherit from it, whose rows would pass for its own")
    if table.deferrable_key:
        found.append(f"the primary key of {name} is DEFERRABLE, which ON CONFLICT does not bear")
    return found


def _table_problems(table: Table, version: int) -> list[str]:
    name = table.name
    if not table.ordinary:
        return [f"{name} is {KINDS.get(table.kind, 'no table')}"]
    found = unlike_any_saver(table)
    key = PRIMARY_KEYS[name]
    if table.key != key:
        found.append(
            f"the primary key of {name} should be ({', '.join(key)}), is ({', '.join(table.key)})"
            if table.key
            else f"{name} has no primary key"
        )
    columns = {c.name: c for c in table.columns}
    for expected, spec in DECLARED[name].items():
        column = columns.pop(expected, None)
        label = f"{name}.{expected}"
        if column is None:
            if version >= ADDED_BY.get((name, expected), -1):
                found.append(f"the column {label} is missing")
        elif column.type != spec.rstrip("!"):
            found.append(f"the column {label} should be {spec.rstrip('!')}, is {column.type}")
        elif column.generated:
            found.append(f"the column {label} is generated")
        elif (name, expected) == UNNAMED and column.has_default:
            found.append(f"the column {label} has a default, and the saver leaves it NULL")
        elif (
            column.not_null
            and not spec.endswith("!")
            and version >= RELAXED_BY.get((name, expected), -1)
        ):
            found.append(f"the column {label} is NOT NULL, which the saver's is not")
    found += [
        f"the column {name}.{quoted(c.name)} is NOT NULL without a default, and not the saver's"
        for c in columns.values()
        if c.not_null and not c.has_default and not c.generated
    ]
    return found


def warnings(tables: Iterable[Table], whose: str = "saver") -> list[str]:
    """What works today and is worth a look, of the tables of the saver or the store."""
    found = []
    for table in tables:
        found += [f"{table.name} has {note}" for note in table.notes]
        if table.kind == "p":
            found.append(f"{table.name} is partitioned; the {whose}'s own is not")
        if table.unlogged:
            found.append(f"{table.name} is unlogged: a crash of the server empties it")
    return found
