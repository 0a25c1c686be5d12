"""A rehearsal asks of the real target what the real run would, and is red where that would be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.postgres import PostgresSaver
from psycopg.conninfo import make_conninfo

from include.checkpoint_migration.errors import MigrationError, TargetNotReady
from tests.support.engine import Migration
from tests.support.postgres import Database

SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' ORDER BY 1"

# What is done to the target, the params of the run, and what the error says of it.
CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "schema missing": ("SELECT 1", {"target_schema": "agents"}, "agents.*does not exist"),
    "tables missing and not to be made": (
        "DROP TABLE checkpoints, checkpoint_blobs, checkpoint_writes, checkpoint_migrations",
        {"create_tables": False},
        "the table checkpoints is missing",
    ),
    "no INSERT": ("REVOKE INSERT ON checkpoints FROM {role}", {}, "INSERT on table"),
    "no UPDATE to replace": (
        "REVOKE UPDATE ON checkpoints FROM {role}",
        {"on_conflict": "replace"},
        "UPDATE on table",
    ),
    "a view": (
        "ALTER TABLE checkpoint_blobs RENAME TO b; CREATE VIEW checkpoint_blobs AS SELECT * FROM b",
        {},
        "checkpoint_blobs is a view",
    ),
    "another key": (
        "ALTER TABLE checkpoints DROP CONSTRAINT checkpoints_pkey",
        {},
        "checkpoints has no primary key",
    ),
    "a rule": (
        "CREATE RULE away AS ON INSERT TO checkpoint_writes DO INSTEAD NOTHING",
        {},
        "checkpoint_writes has rules",
    ),
}


@pytest.fixture
def role(database: Database) -> Iterator[str]:
    """A role that has just what a migration needs."""
    with PostgresSaver.from_conn_string(database.dsn) as saver:
        saver.setup()
    role = f"rehearser_of_{database.name}"
    database.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'made-up'")
    database.execute(f"GRANT CREATE, TEMP ON DATABASE {database.name} TO {role}")
    database.execute(f"GRANT USAGE ON SCHEMA public TO {role}")
    database.execute(f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {role}")
    yield role
    database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.fixture
def limited(database: Database, role: str) -> str:
    """That role's DSN."""
    return make_conninfo(database.dsn, user=role, password="made-up")


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_with_the_words_of_the_real_run(
    case: str, role: str, limited: str, database: Database, small_sample: Path, tmp_path: Path
) -> None:
    """Same params, same target, same error, and neither leaves anything there."""
    alter, params, told = CASES[case]
    database.execute(alter.format(role=role))
    before = database.rows(SCHEMAS)
    said = []
    for rehearsal in (False, True):
        migration = Migration(
            limited, small_sample, tmp_path / "exports", params, rehearsal=rehearsal
        )
        with pytest.raises(TargetNotReady, match=told) as refused:
            migration.all()
        said.append(refused.value.what)
        assert (migration.report["verdict"], migration.report["succeeded"]) == ("unproven", False)
    assert said[0] == said[1]
    assert database.rows(SCHEMAS) == before


def test_what_is_worth_a_look_on_the_real_tables_is_told(
    limited: str, database: Database, small_sample: Path, tmp_path: Path
) -> None:
    """A trigger of the team's own shows in a rehearsal's warnings too."""
    database.execute(
        "CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        " CREATE TRIGGER note BEFORE INSERT ON checkpoints FOR EACH ROW EXECUTE FUNCTION noted()"
    )
    rehearsal = Migration(limited, small_sample, tmp_path / "exports", rehearsal=True)
    report = rehearsal.all()
    assert report["verdict"] == "identical"
    assert any("trigger note" in warning["message"] for warning in report["warnings"])
    assert database.rows("SELECT count(*) FROM checkpoints") == [(0,)]


def test_tables_that_the_real_run_would_make_are_no_obstacle(
    database: Database, run_on: Callable[..., Migration], small_sample: Path
) -> None:
    """An empty database is rehearsed into, and stays without the saver's tables."""
    assert run_on(small_sample, rehearsal=True).all()["verdict"] == "identical"
    assert database.rows("SELECT to_regclass('public.checkpoints')") == [(None,)]


def test_a_refusal_on_a_fresh_target_ends_without_fright(
    database: Database, run_on: Callable[..., Migration], tmp_path: Path
) -> None:
    """Nothing was made on the target, so there is nothing to clean up, and no word of it."""
    (tmp_path / "x.db").write_text("no database\n" * 20)
    migration = run_on(tmp_path / "x.db")
    with pytest.raises(MigrationError):
        migration.all()
    assert not any("cleaned up" in line for line in migration.log)
    assert migration.report["sql"] == []
    assert database.rows(SCHEMAS) == [("information_schema",), ("public",)]
