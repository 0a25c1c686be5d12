"""Threads that are live already with a history that is not this source's: two applications may share
a thread id, and their histories must not become one.

A live checkpoint belongs to ours if the source holds it, if an earlier run brought it from this
source, or if it descends from one that does: then the application went on. A path says nothing by itself,
for another file may lie there now: an earlier run was of this source if both hold a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from ..findings import Difference
from ..settings import Settings
from ..tables import table

Conn = psycopg.Connection[Any]
Place = tuple[str, str]
"""A namespace and a checkpoint's id, within one thread."""

# `strange`: live checkpoints of our threads that neither the source holds nor a run brought from it.
# `follows`: its parent, in its own namespace or in a graph above it, is a checkpoint of the source.
# `pruned`: its parent is gone, it is no beginning, and what this source brought earlier is gone too.
# Every comparison is an equality by itself, so that the server can join by hashing. Where nothing is
# live, staging is not even read.
STRANGE = """
WITH threads AS MATERIALIZED (
    SELECT s.thread_id FROM {staged} AS s
      LEFT JOIN {left_out} AS o USING (thread_id, checkpoint_ns, checkpoint_id)
     WHERE o.thread_id IS NULL AND EXISTS (SELECT FROM {live})
     UNION
    SELECT w.thread_id FROM {staged_writes} AS w
      LEFT JOIN {left_out} AS o USING (thread_id, checkpoint_ns, checkpoint_id)
     WHERE o.thread_id IS NULL AND EXISTS (SELECT FROM {live})
), recorded AS MATERIALIZED (
    SELECT p.thread_id, p.checkpoint_ns, p.checkpoint_id, p.source
      FROM checkpoint_migration.promoted AS p
      JOIN threads USING (thread_id)
     WHERE p.live_schema = {schema} AND NOT p.orphan
), same_source AS MATERIALIZED (
    SELECT r.thread_id, r.source
      FROM recorded AS r
      JOIN {staged} AS s USING (thread_id, checkpoint_ns, checkpoint_id)
     UNION
    SELECT thread_id, source FROM recorded
     WHERE source = {source}
       AND EXISTS (SELECT FROM recorded AS r
                     JOIN {staged} AS s USING (thread_id, checkpoint_ns, checkpoint_id)
                    WHERE r.source = {source})
), brought AS MATERIALIZED (
    SELECT r.thread_id, r.checkpoint_ns, r.checkpoint_id
      FROM recorded AS r
      JOIN same_source USING (thread_id, source)
), gone AS MATERIALIZED (
    SELECT DISTINCT b.thread_id, b.checkpoint_ns
      FROM brought AS b
      LEFT JOIN {live} AS l USING (thread_id, checkpoint_ns, checkpoint_id)
     WHERE l.thread_id IS NULL
), strange AS MATERIALIZED (
    SELECT l.thread_id, l.checkpoint_ns, l.checkpoint_id, l.parent_checkpoint_id,
           l.metadata ->> 'step' AS step,
           CASE jsonb_typeof(l.metadata -> 'parents')
                WHEN 'object' THEN l.metadata -> 'parents' ELSE '{{}}' END AS parents
      FROM {live} AS l
      JOIN threads USING (thread_id)
      LEFT JOIN {staged} AS s USING (thread_id, checkpoint_ns, checkpoint_id)
      LEFT JOIN brought AS b USING (thread_id, checkpoint_ns, checkpoint_id)
     WHERE s.thread_id IS NULL AND b.thread_id IS NULL
), above AS (
    SELECT thread_id, checkpoint_ns, checkpoint_id,
           checkpoint_ns AS above_ns, parent_checkpoint_id AS above_id
      FROM strange
     UNION ALL
    SELECT x.thread_id, x.checkpoint_ns, x.checkpoint_id, e.key, e.value
      FROM strange AS x
     CROSS JOIN LATERAL jsonb_each_text(x.parents) AS e
), follows AS MATERIALIZED (
    SELECT DISTINCT a.thread_id, a.checkpoint_ns, a.checkpoint_id
      FROM above AS a
      JOIN {staged} AS s ON s.thread_id = a.thread_id AND s.checkpoint_ns = a.above_ns
                        AND s.checkpoint_id = a.above_id
)
SELECT x.thread_id, x.checkpoint_ns, x.checkpoint_id, x.parent_checkpoint_id, x.parents,
       f.thread_id IS NOT NULL AS follows,
       g.thread_id IS NOT NULL AND p.thread_id IS NULL
           AND x.step IS DISTINCT FROM '-1' AS pruned
  FROM strange AS x
  LEFT JOIN follows AS f USING (thread_id, checkpoint_ns, checkpoint_id)
  LEFT JOIN gone AS g USING (thread_id, checkpoint_ns)
  LEFT JOIN {live} AS p ON p.thread_id = x.thread_id AND p.checkpoint_ns = x.checkpoint_ns
                       AND p.checkpoint_id = x.parent_checkpoint_id
 ORDER BY x.thread_id COLLATE "C"
"""

NEW_OF = """
SELECT DISTINCT s.thread_id COLLATE "C" AS thread_id
  FROM {staged} AS s
  LEFT JOIN {live} AS l USING (thread_id, checkpoint_ns, checkpoint_id)
  LEFT JOIN {left_out} AS o USING (thread_id, checkpoint_ns, checkpoint_id)
 WHERE l.thread_id IS NULL AND o.thread_id IS NULL AND s.thread_id = ANY(%s)
 ORDER BY 1
"""
LEAVE_OUT = """
INSERT INTO {left_out}
SELECT thread_id, checkpoint_ns, checkpoint_id, 'other_history' FROM {staged}
 WHERE thread_id = ANY(%s)
UNION
SELECT thread_id, checkpoint_ns, checkpoint_id, 'other_history' FROM {staged_writes}
 WHERE thread_id = ANY(%s)
    ON CONFLICT DO NOTHING
"""


class _Strange(NamedTuple):
    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    parent_id: str | None
    parents: dict[str, Any]
    follows: bool
    pruned: bool

    @property
    def place(self) -> Place:
        return self.checkpoint_ns, self.checkpoint_id

    def above(self) -> Iterator[Place]:
        """The checkpoints that this one came from: its parent, and those of the graphs above it."""
        if self.parent_id is not None:
            yield self.checkpoint_ns, self.parent_id
        for checkpoint_ns, checkpoint_id in self.parents.items():
            if isinstance(checkpoint_id, str):
                yield checkpoint_ns, checkpoint_id


class Histories(NamedTuple):
    """What live has of the threads of staging that staging has not."""

    others: dict[str, int]
    """Threads that are live with checkpoints of another history, with how many."""
    on_both_sides: tuple[str, ...]
    """Threads that the application went on with on live, and the source too."""


def look_at_histories(conn: Conn, settings: Settings) -> Histories:
    """Which threads of staging are live with more than staging holds, and what it is.

    Live checkpoints are read by key alone, those of one thread in memory at a time.
    """
    names = {
        "staged": table(settings.staging_schema, "checkpoints"),
        "left_out": table(settings.staging_schema, "left_out"),
        "live": table(settings.live_schema, "checkpoints"),
    }
    statement = sql.SQL(STRANGE).format(
        staged_writes=table(settings.staging_schema, "checkpoint_writes"),
        schema=sql.Literal(settings.live_schema),
        source=sql.Literal(settings.source),
        **names,
    )
    others: dict[str, int] = {}
    went_on: list[str] = []
    with conn.cursor(name="other_histories") as cursor:
        cursor.itersize = 5_000
        rows = map(_Strange._make, cursor.execute(statement))
        for thread_id, of_thread in groupby(rows, key=itemgetter(0)):
            if strange := _unrelated(list(of_thread)):
                others[thread_id] = strange
            else:
                went_on.append(thread_id)
    both = conn.execute(sql.SQL(NEW_OF).format(**names), (went_on,)).fetchall() if went_on else []
    return Histories(others, tuple(thread_id for (thread_id,) in both))


def _unrelated(rows: list[_Strange]) -> int:
    """How many of a thread's strange checkpoints do not descend from one of ours."""
    below: dict[Place, list[Place]] = {}
    for row in rows:
        for place in row.above():
            below.setdefault(place, []).append(row.place)
    ours: set[Place] = set()
    waiting = [row.place for row in rows if row.follows or row.pruned]
    while waiting:
        place = waiting.pop()
        if place not in ours:
            ours.add(place)
            waiting += below.get(place, ())
    unrelated = [row for row in rows if row.place not in ours]
    # durability="exit" stores no checkpoint of the graph above but the last: a subgraph that first ran
    # then names one that nobody has. Another application's thread would have a root of its own.
    if all(row.checkpoint_ns and row.parents for row in unrelated):
        return 0
    return len(unrelated)


def listed(histories: dict[str, int]) -> list[Difference]:
    """The threads as a report lists them among the conflicts."""
    return [
        Difference(
            thread_id,
            "",
            "",
            "checkpoints",
            "thread_id",
            f"this thread is live with {count:,} checkpoint{'' if count == 1 else 's'} of another "
            "history, which this source does not hold",
        )
        for thread_id, count in histories.items()
    ]


def leave_out(conn: Conn, settings: Settings, histories: dict[str, int]) -> None:
    """Note that nothing of these threads is to be live."""
    schema = settings.staging_schema
    threads = list(histories)
    conn.execute(
        sql.SQL(LEAVE_OUT).format(
            left_out=table(schema, "left_out"),
            staged=table(schema, "checkpoints"),
            staged_writes=table(schema, "checkpoint_writes"),
        ),
        (threads, threads),
    )
