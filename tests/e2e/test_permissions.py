"""The GRANTs of docs/permissions.md suffice for everything, and each of them is needed."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.postgres import PostgresSaver
from psycopg.conninfo import conninfo_to_dict

from include import checkpoint_migration as engine
from tests.support.engine import Migration
from tests.support.faults import grow, write_source
from tests.support.postgres import Database
from tests.support.stores import postgres_store, sqlite_store, write_many
from tests.support.undoing import Undo, dump

DOCUMENT = (Path(__file__).parents[2] / "docs" / "permissions.md").read_text()
[TO_MIGRATE, TO_REPLACE, TO_UNDO, TO_MIGRATE_STORE, TO_UNDO_STORE] = [
    [line for line in block.splitlines() if line.startswith("GRANT")]
    for block in re.findall(r"```sql\n(.*?)```", DOCUMENT, re.DOTALL)
]


class Stand:
    """A database whose tables are the application's, and a role that has what was granted alone."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database, self.folder = database, folder
        self.role, self.password = f"migration_{secrets.token_hex(4)}", secrets.token_hex(8)
        database.execute(f"CREATE ROLE {self.role} LOGIN PASSWORD '{self.password}'")
        database.execute(f"REVOKE ALL ON DATABASE {database.name} FROM PUBLIC")
        database.execute(f"GRANT CONNECT ON DATABASE {database.name} TO {self.role}")
        database.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        with database.connect() as conn:
            PostgresSaver(conn).setup()  # type: ignore[arg-type]
        parts = conninfo_to_dict(database.dsn)
        self.dsn = (
            f"postgresql://{self.role}:{self.password}@{parts['host']}:{parts.get('port', 5432)}"
            f"/{database.name}"
        )
        (folder / "app").mkdir()
        self.source = write_source(folder / "app" / "app.sqlite")

    def grant(self, statements: list[str], verb: str = "GRANT", to: str = "TO") -> None:
        for statement in statements:
            ours = statement.replace("DATABASE app", f"DATABASE {self.database.name}")
            ours = ours.replace("TO migration;", f"{to} {self.role};")
            self.database.execute(ours.replace("GRANT", verb, 1))

    def revoke(self, statement: str) -> None:
        self.grant([statement], "REVOKE", "FROM")

    def run(self, run_id: str, **params: Any) -> Migration:
        rehearsal = run_id == "rehearsal"
        return Migration(
            self.dsn,
            self.source,
            self.folder / "exports",
            params,
            run_id=run_id,
            rehearsal=rehearsal,
            dag_id="rehearse_checkpoints" if rehearsal else "migrate_checkpoints",
        )


@pytest.fixture
def stand(database: Database, tmp_path: Path) -> Iterator[Stand]:
    stand = Stand(database, tmp_path)
    yield stand
    database.execute(f"DROP OWNED BY {stand.role} CASCADE")
    database.execute(f"DROP ROLE {stand.role}")


def test_a_whole_migration_its_replacing_and_its_undo_need_no_more_than_the_document_grants(
    stand: Stand,
) -> None:
    """No superuser, no owner of a live table: rehearsed, moved, caught up with replace, undone."""
    stand.grant(TO_MIGRATE)
    empty = dump(stand.database.dsn)
    assert stand.run("rehearsal").all()["verdict"] == "identical"
    first = stand.run("first")
    assert first.all()["verdict"] == "identical"
    before = dump(stand.database.dsn)
    stand.grant(TO_REPLACE)
    stand.database.execute("UPDATE checkpoint_writes SET blob = 'x' WHERE idx = 0")
    changed = dump(stand.database.dsn)
    assert changed != before
    grow(stand.source, "anna")
    second = stand.run("second", on_conflict="replace")
    assert second.all()["verdict"] == "identical"
    stand.grant(TO_UNDO)
    Undo.of(second, "undo-second").all()
    assert dump(stand.database.dsn) == changed
    stand.database.execute("DELETE FROM checkpoint_writes")
    Undo.of(first, "undo-first").all()
    assert dump(stand.database.dsn) == empty
    [(superuser, owned)] = stand.database.rows(
        "SELECT rolsuper, (SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        " AND tableowner = rolname) FROM pg_roles WHERE rolname = %s",
        stand.role,
    )
    assert (superuser, owned) == (False, 0)


def needed(
    stand: Stand, granted: list[str], ask: Callable[[], Any], kinds: tuple[str, ...]
) -> None:
    """Without any one of the GRANTs the run is refused, and the statement that it names is enough."""
    for statement in granted:
        stand.revoke(statement)
        with pytest.raises(engine.MigrationError) as caught:
            ask()
        assert type(caught.value).__name__ in kinds
        for told in caught.value.facts["statements"]:
            stand.database.execute(told)


def test_each_grant_is_needed_and_named_with_its_statement(stand: Stand) -> None:
    """What check_schema names when one is missing is what the document grants; then it passes."""
    stand.grant([*TO_MIGRATE, *TO_REPLACE])
    run = stand.run("asks", on_conflict="replace")
    needed(stand, [*TO_MIGRATE, *TO_REPLACE], run.check, ("TargetNotReady",))
    run.check()


def test_a_store_and_its_undo_need_no_more_than_the_document_grants(stand: Stand) -> None:
    """Each GRANT on the store is needed, named with its statement, and all of them suffice."""
    with sqlite_store(stand.source) as store:
        write_many(store, 12)
    with postgres_store(stand.database.dsn) as store:
        store.setup()
    empty = dump(stand.database.dsn)
    stand.grant([*TO_MIGRATE, *TO_UNDO, *TO_MIGRATE_STORE])
    moved = stand.run("moved")
    needed(stand, TO_MIGRATE_STORE, moved.check, ("TargetNotReady",))
    assert moved.all()["verdict"] == "identical"
    before = dump(stand.database.dsn)
    undo = Undo.of(moved)
    with pytest.raises(engine.MigrationError) as caught:
        undo.all()
    assert dump(stand.database.dsn) == before
    assert [told.partition(" ON ")[0] for told in caught.value.facts["statements"]] == [
        TO_UNDO_STORE[0].partition(" ON ")[0]
    ]
    stand.grant(TO_UNDO_STORE)
    undo.all()
    assert dump(stand.database.dsn) == empty


def test_all_that_is_missing_is_named_at_once(stand: Stand) -> None:
    """A DBA gets every statement in one error, and after them nothing is missing any more."""
    run = stand.run("asks", on_conflict="replace")
    with pytest.raises(engine.MigrationError) as caught:
        run.check()
    statements = caught.value.facts["statements"]
    assert len(statements) >= len(TO_MIGRATE)
    for statement in statements:
        stand.database.execute(statement)
    assert run.all()["verdict"] == "identical"


def test_an_undo_without_its_privileges_is_refused_before_anything_goes(stand: Stand) -> None:
    """DELETE and UPDATE are named for all tables at once, with the statements that suffice."""
    stand.grant(TO_MIGRATE)
    empty = dump(stand.database.dsn)
    first = stand.run("first")
    first.all()
    before = dump(stand.database.dsn)
    with pytest.raises(engine.MigrationError) as caught:
        Undo.of(first).all()
    assert dump(stand.database.dsn) == before
    statements = caught.value.facts["statements"]
    assert len(statements) == 3
    for statement in statements:
        stand.database.execute(statement)
    Undo.of(first).all()
    assert dump(stand.database.dsn) == empty
