"""Foreign keys of a team's own tables whose rows would go or change together with those of a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg

from ..errors import TargetNotReady
from ..tables import table
from ..texts import quoted

FOLLOWING = """
SELECT c.conname::text, c.conrelid::regclass::text
  FROM pg_catalog.pg_constraint AS c
 WHERE c.contype = 'f' AND c.confdeltype IN ('c', 'n', 'd')
   AND c.confrelid = ANY (%(ours)s::regclass[]) AND NOT c.conrelid = ANY (%(ours)s::regclass[])
 ORDER BY 1
"""


def refuse_what_follows(conn: psycopg.Connection[Any], schema: str, names: Iterable[str]) -> None:
    """Raise `TargetNotReady` where deleting rows of these tables would delete or change others silently."""
    ours = [table(schema, name).as_string(None) for name in names]
    found = conn.execute(FOLLOWING, {"ours": ours}).fetchall()
    if found:
        named = ", ".join(f"{quoted(name)} of {quoted(place)}" for name, place in found[:5])
        raise TargetNotReady(
            f"rows of other tables would go or change with those of this run, by the foreign key {named}.",
            safe="nothing was undone: the live tables are as they were.",
            next="take those rows out first and drop that foreign key, or let it refuse (NO ACTION): "
            "then what still refers to a row keeps the undo from doing anything.",
        )
