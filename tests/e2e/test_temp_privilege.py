"""A role that may make no temporary tables: asked for before any work, and enough once granted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from include.checkpoint_migration.errors import TargetNotReady
from tests.support.engine import Migration
from tests.support.faults import write_source
from tests.support.postgres import Database

SECRET = "p4ss-w0rd-of-a-test"


@pytest.fixture
def dsn(database: Database) -> Iterator[str]:
    """A role without any privilege, on a database that gives TEMP to nobody."""
    name = f"migrator_{uuid4().hex[:8]}"
    role = sql.Identifier(name)
    with database.connect() as conn:
        conn.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, sql.Literal(SECRET)))
        revoke = sql.SQL("REVOKE TEMP ON DATABASE {} FROM PUBLIC")
        conn.execute(revoke.format(sql.Identifier(database.name)))
        conn.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    yield make_conninfo(database.dsn, user=name, password=SECRET)
    with database.connect() as conn:
        conn.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(role))
        conn.execute(sql.SQL("DROP ROLE {}").format(role))


def test_temp_is_named_together_with_all_else_that_is_missing(
    database: Database, dsn: str, tmp_path: Path
) -> None:
    """One error names all privileges, and its statements suffice for a key that has to be tried."""
    source = write_source(tmp_path / "app.sqlite", "anna", "l" * 2_000)
    with pytest.raises(TargetNotReady) as refused:
        Migration(dsn, source, tmp_path / "a").check()
    missing, statements = refused.value.facts["missing"], refused.value.facts["statements"]
    assert f'CREATE, TEMP on database "{database.name}"' in missing
    assert any("USAGE, CREATE on schema" in what for what in missing)
    assert all(statement in refused.value.next for statement in statements)
    for statement in statements:
        database.execute(statement)
    assert Migration(dsn, source, tmp_path / "b").all()["verdict"] == "identical"


def test_temp_alone_is_asked_for_alone(database: Database, dsn: str, tmp_path: Path) -> None:
    """What is there is not asked for again."""
    role = sql.Identifier(str(conninfo_to_dict(dsn)["user"]))
    with database.connect() as conn:
        grant = sql.SQL("GRANT CREATE ON DATABASE {} TO {}")
        conn.execute(grant.format(sql.Identifier(database.name), role))
        conn.execute(sql.SQL("GRANT ALL ON SCHEMA public TO {}").format(role))
    source = write_source(tmp_path / "app.sqlite")
    with pytest.raises(TargetNotReady) as refused:
        Migration(dsn, source, tmp_path / "a").check()
    assert refused.value.facts["missing"] == [f'TEMP on database "{database.name}"']
