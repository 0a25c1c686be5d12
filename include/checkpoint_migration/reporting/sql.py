"""SQL that a person can run after a run: to look, to count, to take rows out, to tidy up. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import sql

from ..finding_places import is_of_store
from ..findings import Difference, Verdict
from ..settings import Settings
from ..texts import quoted
from .report_json import Report, Statement
from .sentence import Situation
from .store_sql import count_items, look_at_item, take_items_out

LEDGER = sql.Identifier("checkpoint_migration", "promoted")
BATCHES = sql.Identifier("checkpoint_migration", "batches")
LOOKS = 3

COUNT = """\
SELECT p.thread_id,
       count(*) FILTER (WHERE NOT p.orphan) AS recorded,
       count(c.checkpoint_id) AS live,
       sum((SELECT count(*) FROM {writes} AS w
             WHERE (w.thread_id, w.checkpoint_ns, w.checkpoint_id)
                 = (p.thread_id, p.checkpoint_ns, p.checkpoint_id))) AS live_writes
  FROM {ledger} AS p
  LEFT JOIN {checkpoints} AS c USING (thread_id, checkpoint_ns, checkpoint_id)
 WHERE p.run_key = {key} AND p.live_schema = {schema}
 GROUP BY p.thread_id
 ORDER BY p.thread_id COLLATE "C";"""

TOTAL = """\
SELECT 'staged, by its receipts' AS stage, sum(checkpoints) AS checkpoints,
       sum(writes) AS pending_writes, sum(blobs) AS blobs
  FROM {batches} WHERE run_key = {key}
UNION ALL
SELECT 'live', (SELECT count(*) FROM {ledger} AS p JOIN {checkpoints} AS c
                 USING (thread_id, checkpoint_ns, checkpoint_id)
                 WHERE p.run_key = {key} AND p.live_schema = {schema}),
       (SELECT count(*) FROM {ledger} AS p JOIN {writes} AS w
         USING (thread_id, checkpoint_ns, checkpoint_id)
         WHERE p.run_key = {key} AND p.live_schema = {schema}),
       (SELECT count(*) FROM {blobs} AS b
         WHERE (b.thread_id, b.checkpoint_ns, b.channel, b.version) IN
               (SELECT c.thread_id, c.checkpoint_ns, v.channel, v.version
                  FROM {ledger} AS p JOIN {checkpoints} AS c
                 USING (thread_id, checkpoint_ns, checkpoint_id)
                 CROSS JOIN LATERAL jsonb_each_text(c.checkpoint -> 'channel_versions')
                    AS v(channel, version)
                 WHERE p.run_key = {key} AND p.live_schema = {schema}));"""

LOOK = """\
SELECT checkpoint_id, parent_checkpoint_id, jsonb_pretty(checkpoint), jsonb_pretty(metadata)
  FROM {checkpoints}
 WHERE thread_id = {thread} AND checkpoint_ns = {ns} AND checkpoint_id = {id};
SELECT b.channel, b.version, b.type, length(b.blob) AS bytes,
       encode(sha256(b.blob), 'hex') AS sha256
  FROM {checkpoints} AS c
 CROSS JOIN LATERAL jsonb_each_text(c.checkpoint -> 'channel_versions') AS v(channel, version)
  JOIN {blobs} AS b USING (thread_id, checkpoint_ns, channel, version)
 WHERE c.thread_id = {thread} AND c.checkpoint_ns = {ns} AND c.checkpoint_id = {id}
 ORDER BY b.channel COLLATE "C";
SELECT task_id, task_path, idx, channel, type, length(blob) AS bytes,
       encode(sha256(blob), 'hex') AS sha256
  FROM {writes}
 WHERE thread_id = {thread} AND checkpoint_ns = {ns} AND checkpoint_id = {id}
 ORDER BY task_id COLLATE "C", idx;"""

GONE_ON = """\
SELECT c.thread_id, c.checkpoint_ns, count(*) AS checkpoints_of_the_application
  FROM {checkpoints} AS c
 WHERE (c.thread_id, c.checkpoint_ns) IN (SELECT p.thread_id, p.checkpoint_ns FROM {ledger} AS p
                                           WHERE p.run_key = {key} AND p.live_schema = {schema})
   AND NOT EXISTS (SELECT FROM {ledger} AS p
                    WHERE p.live_schema = {schema}
                      AND (p.thread_id, p.checkpoint_ns, p.checkpoint_id)
                        = (c.thread_id, c.checkpoint_ns, c.checkpoint_id))
 GROUP BY c.thread_id, c.checkpoint_ns
 ORDER BY c.thread_id COLLATE "C", c.checkpoint_ns COLLATE "C";"""

# Blobs go by what is left: one that another checkpoint still names stays. The ledger's record goes
# too, or a later run would take these rows for some that the application deleted.
TAKE_OUT = """\
BEGIN;
DELETE FROM {writes} AS w USING {ledger} AS p
 WHERE p.run_key = {key} AND p.live_schema = {schema}
   AND (w.thread_id, w.checkpoint_ns, w.checkpoint_id)
     = (p.thread_id, p.checkpoint_ns, p.checkpoint_id);
DELETE FROM {checkpoints} AS c USING {ledger} AS p
 WHERE p.run_key = {key} AND p.live_schema = {schema}
   AND (c.thread_id, c.checkpoint_ns, c.checkpoint_id)
     = (p.thread_id, p.checkpoint_ns, p.checkpoint_id);
DELETE FROM {blobs} AS b
 WHERE (b.thread_id, b.checkpoint_ns) IN (SELECT p.thread_id, p.checkpoint_ns FROM {ledger} AS p
                                           WHERE p.run_key = {key} AND p.live_schema = {schema})
   AND NOT EXISTS (SELECT FROM {checkpoints} AS c
                    WHERE c.thread_id = b.thread_id AND c.checkpoint_ns = b.checkpoint_ns
                      AND c.checkpoint -> 'channel_versions' ->> b.channel = b.version);
DELETE FROM {ledger} AS p WHERE p.run_key = {key} AND p.live_schema = {schema};
COMMIT;"""


def statements(report: Report, situation: Situation) -> list[Statement]:
    """Return the statements that make sense after this run; none without settings."""
    settings = situation.settings
    if settings is None:
        return []
    return list(_statements(report, situation, settings))


def _statements(report: Report, situation: Situation, settings: Settings) -> Iterator[Statement]:
    live = settings.live_schema
    maybe_live = situation.promoted is not False and not settings.rehearsal
    if maybe_live:
        yield Statement(
            "Count this run's checkpoints for each thread: as recorded, and as they are live now.",
            _say(COUNT, settings, live),
        )
        yield Statement(
            "Total of this run's rows: as its batches committed them, and as they are live now.",
            _say(TOTAL, settings, live),
        )
        if report.counts.store is not None:
            yield count_items(settings, literal)
    staged = live if situation.promoted is not False else settings.staging_schema
    looks = [(live, c) for c in report.conflicts[:LOOKS]]
    looks += [(staged, d) for d in report.differences[:LOOKS]]
    for schema, place in looks:
        if (look := _look(settings, schema, place)) is not None:
            yield look
    if maybe_live and report.verdict is Verdict.DIFFERENT:
        yield Statement(
            "Before taking rows out: count the checkpoints that the application has added to this "
            "run's threads; those would lose their history.",
            _say(GONE_ON, settings, live),
        )
        yield Statement(
            "Take this run's rows out again: those it made live, and those it found live and "
            "equal. Stop the application first.",
            _say(TAKE_OUT, settings, live),
        )
        if report.counts.store is not None:
            yield take_items_out(settings, literal)
    if not report.succeeded and situation.staging_left:
        yield Statement(
            "Drop what this run staged. Do it only if you will neither clear its tasks nor look "
            "at staging any more.",
            _drop(settings.staging_schema),
        )


def _look(settings: Settings, schema: str, place: Difference) -> Statement | None:
    keys = (place.thread_id, place.checkpoint_ns, place.checkpoint_id)
    if not place.checkpoint_id or not all(_has_a_place(key) for key in keys):
        return None
    if is_of_store(place):
        return look_at_item(settings, schema, place, literal)
    names = {"thread": keys[0], "ns": keys[1], "id": keys[2]}
    return Statement(
        f"Look at checkpoint {quoted(place.checkpoint_id)} of thread {quoted(place.thread_id)} "
        f"in schema {quoted(schema)}.",
        _say(LOOK, settings, schema, **names),
    )


def _drop(schema: str) -> str:
    return sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE;").format(sql.Identifier(schema)).as_string()


def _say(template: str, settings: Settings, schema: str, **texts: str) -> str:
    return (
        sql.SQL(template)
        .format(
            ledger=LEDGER,
            batches=BATCHES,
            checkpoints=sql.Identifier(schema, "checkpoints"),
            writes=sql.Identifier(schema, "checkpoint_writes"),
            blobs=sql.Identifier(schema, "checkpoint_blobs"),
            key=literal(settings.key),
            schema=literal(settings.live_schema),
            **{name: literal(text) for name, text in texts.items()},
        )
        .as_string()
    )


def _has_a_place(text: str) -> bool:
    """Whether PostgreSQL can hold the text at all."""
    return not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text)


def literal(text: str) -> sql.Composable:
    """A text as a literal; one with characters that do not print is written in ASCII alone.

    So nobody copies a statement that reads otherwise than it runs, or that breaks on the way.
    """
    if text.isprintable():
        return sql.Literal(text)
    written = "".join(_escaped(character) for character in text)
    return sql.SQL(f"E'{written}'")


def _escaped(character: str) -> str:
    if character in "'\\":
        return character * 2
    if " " <= character <= "~":
        return character
    return f"\\U{ord(character):08x}"
