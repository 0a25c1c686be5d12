"""The witness on live: after promote, every staged row is looked for in the live tables once more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from ..load.staging import KEYS, as_counts, count
from ..model import Counts, Difference
from ..postgres import Connect, table, transaction
from ..settings import Settings
from .left_out import count_rows
from .relations import identical, on_key, same_row, wanted
from .transaction import DIGEST

SHOWN = 100


@dataclass(frozen=True, slots=True)
class LiveCheck:
    """What of staging is live and equal. `removed` and kept rows are not looked for."""

    staged: Counts
    wanted: Counts
    live: Counts
    differences: tuple[Difference, ...]
    found: int


def check_live(connect: Connect, settings: Settings) -> LiveCheck:
    """Compare every row of staging that should be live with the live row of its key, in content."""
    with transaction(connect, "comparing live with staging", repeatable_read=True) as conn:
        conn.execute("SET TRANSACTION READ ONLY")
        should = {name: count_rows(conn, wanted(name, settings)) for name in KEYS}
        live = {name: count_rows(conn, identical(name, settings)) for name in KEYS}
        differences: list[Difference] = []
        found = 0
        for name in KEYS:
            if live[name] != should[name]:
                found += should[name] - live[name]
                differences += _differences(conn, name, settings)
        return LiveCheck(
            count(conn, settings.staging_schema),
            as_counts(should),
            as_counts(live),
            tuple(differences[:SHOWN]),
            found,
        )


def _differences(conn: psycopg.Connection[Any], name: str, settings: Settings) -> list[Difference]:
    is_blob = name == "checkpoint_blobs"
    rows = conn.execute(
        sql.SQL(
            "SELECT s.thread_id, s.checkpoint_ns, {checkpoint_id}, {column},"
            " EXISTS (SELECT 1 FROM {live} l WHERE {on}) FROM {wanted}"
            " AND NOT EXISTS (SELECT 1 FROM {live} l WHERE {on} AND {same})"
            " LIMIT {limit}"
        ).format(
            checkpoint_id=sql.SQL("''" if is_blob else "s.checkpoint_id"),
            column=sql.SQL("s.channel" if is_blob else "''"),
            live=table(settings.live_schema, name),
            on=on_key(name),
            wanted=wanted(name, settings),
            same=same_row(name, settings),
            limit=sql.Literal(SHOWN),
        )
    ).fetchall()
    return [
        Difference(
            thread_id,
            ns,
            checkpoint_id,
            name,
            column,
            "the live row has other content" if there else "the row is not live",
        )
        for thread_id, ns, checkpoint_id, column, there in rows
    ]


@dataclass(frozen=True, slots=True)
class LateCheck:
    """What became of the checkpoints that a run recorded when it was promoted."""

    recorded: int
    unchanged: int
    changed: int
    missing: int


def check_recorded(connect: Connect, settings: Settings) -> LateCheck:
    """Compare the live checkpoints with what the ledger recorded of them, once staging is gone."""
    with transaction(connect, "comparing live with the ledger", repeatable_read=True) as conn:
        row = conn.execute(
            sql.SQL(
                "SELECT count(*), count(*) FILTER (WHERE l.thread_id IS NOT NULL AND {digest} = p.digest),"
                " count(*) FILTER (WHERE l.thread_id IS NOT NULL AND {digest} <> p.digest),"
                " count(*) FILTER (WHERE l.thread_id IS NULL)"
                " FROM checkpoint_migration.promoted p LEFT JOIN {live} l"
                " USING (thread_id, checkpoint_ns, checkpoint_id)"
                " WHERE p.run_key = {key} AND p.live_schema = {schema} AND NOT p.orphan"
            ).format(
                digest=DIGEST,
                live=table(settings.live_schema, "checkpoints"),
                key=sql.Literal(settings.key),
                schema=sql.Literal(settings.live_schema),
            )
        ).fetchone()
        assert row is not None
        return LateCheck(*map(int, row))


def removed_in_source(connect: Connect, settings: Settings) -> tuple[int, tuple[str, ...]]:
    """Checkpoints that an earlier run of the same source made live and that the source has no more.

    They are left as they are. Only threads that this run takes are looked at.
    """
    with transaction(connect, "looking for rows gone from the source") as conn:
        rows = conn.execute(
            sql.SQL(
                "SELECT p.thread_id, count(*) FROM checkpoint_migration.promoted p"
                " JOIN {live} l USING (thread_id, checkpoint_ns, checkpoint_id)"
                " WHERE p.live_schema = {schema} AND p.source = {source} AND NOT p.orphan"
                " AND NOT EXISTS (SELECT 1 FROM {staged} s WHERE s.thread_id = p.thread_id AND"
                "  s.checkpoint_ns = p.checkpoint_ns AND s.checkpoint_id = p.checkpoint_id)"
                " GROUP BY 1 ORDER BY 1"
            ).format(
                live=table(settings.live_schema, "checkpoints"),
                staged=table(settings.staging_schema, "checkpoints"),
                schema=sql.Literal(settings.live_schema),
                source=sql.Literal(settings.source),
            )
        ).fetchall()
    gone = [(thread, number) for thread, number in rows if settings.threads.takes(thread)]
    return sum(number for _, number in gone), tuple(thread for thread, _ in gone[:SHOWN])


def is_left_out(connect: Connect, settings: Settings, key: tuple[str, str, str]) -> bool:
    """Whether promote left a checkpoint out: removed from live before, or beside a row that is kept."""
    with transaction(connect, "looking at what was left out") as conn:
        row = conn.execute(
            sql.SQL(
                "SELECT 1 FROM {} WHERE (thread_id, checkpoint_ns, checkpoint_id) = (%s, %s, %s)"
            ).format(table(settings.staging_schema, "left_out")),
            key,
        ).fetchone()
    return row is not None
