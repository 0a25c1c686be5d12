"""What is live of a run's rows, and which of its threads somebody changed or went on with since.

It is noted in temporary tables of the undoing transaction, by key: nothing of a value leaves the server.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from ..row_digests import key_digest, key_number, row_digest
from ..tables import KEYS, columns, table

Conn = psycopg.Connection[Any]

BY_THREAD = tuple(name for name in KEYS if "thread_id" in KEYS[name])

# One row for each live row that the run inserted or replaced; `same`: it holds what the run wrote.
NOTE_OURS = """
CREATE TEMPORARY TABLE {ours} ON COMMIT DROP AS
SELECT {keys}, {row_digest} = n.digest AS same, n.replaced, n.key
  FROM {live} AS l
  JOIN (SELECT key, digest, false AS replaced FROM checkpoint_migration.inserted
         WHERE run_key = {key} AND table_name = {name}
         UNION ALL
        SELECT key, digest, true FROM checkpoint_migration.replaced
         WHERE run_key = {key} AND table_name = {name}) AS n ON n.key = {key_digest}
 WHERE {where}
"""
OF_THREADS = """\
l.thread_id IN (SELECT thread_id FROM checkpoint_migration.threads_before WHERE run_key = {key})"""

NOTE_LEFT = """
CREATE TEMPORARY TABLE undo_left ON COMMIT DROP AS
WITH changed AS (
    {changed}
), others AS (
    {others}
), now AS (
    SELECT thread_id, count(*) AS others, sum(number) AS sum_of_keys FROM others GROUP BY thread_id
)
SELECT b.thread_id, c.thread_id IS NOT NULL AS changed,
       (coalesce(n.others, 0), coalesce(n.sum_of_keys, 0)) <> (b.others, b.sum_of_keys) AS went_on
  FROM checkpoint_migration.threads_before AS b
  LEFT JOIN now AS n USING (thread_id)
  LEFT JOIN changed AS c USING (thread_id)
 WHERE b.run_key = {key}
   AND (c.thread_id IS NOT NULL
        OR (coalesce(n.others, 0), coalesce(n.sum_of_keys, 0)) <> (b.others, b.sum_of_keys))
"""
CHANGED = "SELECT thread_id FROM {ours} WHERE NOT same"
OTHERS = """\
SELECT l.thread_id, {number} AS number
  FROM {live} AS l
  LEFT JOIN {ours} AS o ON {on} AND NOT o.replaced
 WHERE o.key IS NULL AND {of_threads}"""


def ours(name: str) -> sql.Identifier:
    """The temporary table of a live table's rows that are the run's."""
    return sql.Identifier(f"undo_{name}")


def on_key(name: str, left: str = "l", right: str = "o") -> sql.Composed:
    """The join condition of two rows of a table."""
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(left, column), sql.Identifier(right, column))
        for column in KEYS[name]
    )


def note_ours(conn: Conn, name: str, schema: str, run_key: str) -> None:
    """Note which live rows of a table are the run's, and whether they are as it left them."""
    key = sql.Literal(run_key)
    of_threads = sql.SQL(OF_THREADS).format(key=key)
    conn.execute(
        sql.SQL(NOTE_OURS).format(
            ours=ours(name),
            keys=columns(KEYS[name], "l"),
            row_digest=row_digest(name, "l"),
            live=table(schema, name),
            key=key,
            name=sql.Literal(name),
            key_digest=key_digest(name, "l"),
            where=of_threads if name in BY_THREAD else sql.SQL("true"),
        )
    )
    conn.execute(sql.SQL("ANALYZE {}").format(ours(name)))


def note_left_threads(conn: Conn, schema: str, run_key: str) -> None:
    """Note the threads that stay whole: a row of the run was changed, or other rows came or went."""
    key = sql.Literal(run_key)
    others = [
        sql.SQL(OTHERS).format(
            number=key_number(name, "l"),
            live=table(schema, name),
            ours=ours(name),
            on=on_key(name),
            of_threads=sql.SQL(OF_THREADS).format(key=key),
        )
        for name in BY_THREAD
    ]
    changed = [sql.SQL(CHANGED).format(ours=ours(name)) for name in BY_THREAD]
    conn.execute(
        sql.SQL(NOTE_LEFT).format(
            key=key,
            changed=sql.SQL(" UNION ").join(changed),
            others=sql.SQL(" UNION ALL ").join(others),
        )
    )
    conn.execute("ANALYZE undo_left")


def may_go(name: str) -> sql.Composed:
    """Whether one of the run's rows (`o`) may go: nobody changed it, and its thread does not stay."""
    if name not in BY_THREAD:
        return sql.SQL("o.same").format()
    return sql.SQL(
        "o.same AND NOT EXISTS (SELECT FROM undo_left AS t WHERE t.thread_id = o.thread_id)"
    ).format()
