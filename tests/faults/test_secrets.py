"""Runs that fail in every way tell no secret and no value: searched for in all that they leave."""

from __future__ import annotations

import pickle
import secrets
import sqlite3
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.sqlite import SqliteSaver
from psycopg.conninfo import make_conninfo

from include import checkpoint_migration as engine
from tests.support.engine import Migration
from tests.support.faults import CANARY, go_on, write_source
from tests.support.postgres import Database
from tests.support.undoing import Undo

KEY = "0123456789abcdef-of-a-test"[:16]
PASSWORD = f"s3cret-{secrets.token_hex(8)}"
SECRETS = (CANARY, KEY, PASSWORD)
Harm = Callable[[Database, Path, Migration], None]


def plain(path: Path) -> Path:
    return write_source(path)


def encrypted(path: Path) -> Path:
    """A source whose values are encrypted with the key."""
    with SqliteSaver.from_conn_string(str(path)) as saver:
        saver.serde = EncryptedSerializer.from_pycryptodome_aes(key=KEY.encode())
        go_on(saver, "anna")
    return path


def pickled(path: Path) -> Path:
    """A source with a pickled checkpoint that says the marker."""
    write_source(path)
    execute(
        path,
        "UPDATE checkpoints SET type = 'pickle', checkpoint = ? WHERE thread_id = 'anna'",
        pickle.dumps({"said": CANARY}),
    )
    return path


def broken(path: Path) -> Path:
    """A source whose values hold the marker and cannot be read, in metadata and in state."""
    write_source(path)
    execute(
        path,
        "UPDATE checkpoints SET metadata = ? WHERE thread_id = 'anna'",
        f'{{"said": "{CANARY}\\u0000", "n": NaN'.encode(),
    )
    execute(
        path,
        "UPDATE checkpoints SET checkpoint = ? WHERE thread_id = 'bert'",
        b"\xc1" + CANARY.encode(),
    )
    return path


def execute(path: Path, statement: str, *values: Any) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute(statement, values)


def raises(database: Database, said: str) -> None:
    """Every insert into live fails with a message that quotes the row."""
    with database.connect() as conn:
        engine_tables = "CREATE TABLE IF NOT EXISTS checkpoint_migrations (v int)"
        conn.execute(engine_tables)
        conn.execute(
            f"CREATE FUNCTION quoting() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" RAISE EXCEPTION '{said}: %', NEW; END $$".encode()
        )
        for name in ("checkpoints", "checkpoint_writes", "checkpoint_blobs"):
            conn.execute(
                f"CREATE TRIGGER t BEFORE INSERT ON {name} FOR EACH ROW"
                " EXECUTE FUNCTION quoting()".encode()
            )


def a_trigger_that_quotes(database: Database, _source: Path, migration: Migration) -> None:
    migration.check()
    raises(database, CANARY)


def a_conflict(database: Database, _source: Path, migration: Migration) -> None:
    Migration(migration.dsn, migration.source, migration.exports, run_id="earlier").all()
    database.execute(f"UPDATE checkpoint_writes SET blob = '{CANARY}'")


def a_constraint(database: Database, _source: Path, migration: Migration) -> None:
    migration.check()
    database.execute(
        f"ALTER TABLE checkpoints ADD CONSTRAINT c CHECK (metadata::text <> '{CANARY}' AND false)"
    )


def nothing(_database: Database, _source: Path, _migration: Migration) -> None: ...


def no_server(_database: Database, _source: Path, migration: Migration) -> None:
    migration.dsn = make_conninfo(migration.dsn, port=1)


def a_wrong_password(_database: Database, _source: Path, migration: Migration) -> None:
    migration.dsn = make_conninfo(migration.dsn, password=PASSWORD)


def a_wrong_key(_database: Database, _source: Path, migration: Migration) -> None:
    migration.aes_key = KEY[::-1].encode()


CASES: dict[str, tuple[Callable[[Path], Path], Harm]] = {
    "a trigger that quotes the row": (plain, a_trigger_that_quotes),
    "a constraint": (plain, a_constraint),
    "a conflict": (plain, a_conflict),
    "blockers": (broken, nothing),
    "pickle": (pickled, nothing),
    "no key": (encrypted, nothing),
    "a wrong key": (encrypted, a_wrong_key),
    "no server": (plain, no_server),
    "a wrong password": (plain, a_wrong_password),
}


def told(migration: Migration, error: BaseException) -> str:
    """Everything that a failed run says: error and facts, traceback, log, and each file but the data."""
    texts = [str(error), repr(error), repr(getattr(error, "facts", "")), *migration.log]
    texts += traceback.format_exception(error)
    texts += [
        path.read_bytes().decode("utf-8", "backslashreplace")
        for path in migration.exports.rglob("*")
        if path.is_file() and path.suffix in (".json", ".html")
    ]
    return "\n".join(texts)


@pytest.mark.parametrize(("write", "harm"), CASES.values(), ids=CASES)
def test_a_failed_run_tells_neither_password_nor_key_nor_value(
    database: Database, tmp_path: Path, write: Callable[[Path], Path], harm: Harm
) -> None:
    """However a run fails, the marker of the state, the key and the password are nowhere to be read."""
    source = write(tmp_path / "app.sqlite")
    migration = Migration(
        database.dsn, source, tmp_path / "exports", aes_key=None, max_export_tasks=1
    )
    harm(database, source, migration)
    with pytest.raises(engine.MigrationError) as caught:
        migration.all()
    everything = told(migration, caught.value)
    real = make_conninfo(migration.dsn).split("password=")[-1].split()[0].strip("'")
    for secret in (*SECRETS, real):
        assert secret not in everything
    assert "report.json" in {path.name for path in migration.folder.iterdir()}
    assert CANARY not in str(caught.value.as_dict())


def test_an_undo_that_fails_tells_no_value(database: Database, tmp_path: Path) -> None:
    """A trigger that quotes the row that is deleted is told by its name alone."""
    source = plain(tmp_path / "app.sqlite")
    migration = Migration(database.dsn, source, tmp_path / "exports", run_id="moved")
    migration.all()
    with database.connect() as conn:
        conn.execute(
            f"CREATE FUNCTION quoting() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" RAISE EXCEPTION '{CANARY}: %', OLD; END $$".encode()
        )
        conn.execute(
            "CREATE TRIGGER t BEFORE DELETE ON checkpoints FOR EACH ROW EXECUTE FUNCTION quoting()"
        )
    undo = Undo.of(migration)
    with pytest.raises(engine.MigrationError) as caught:
        undo.all()
    assert CANARY not in told(migration, caught.value) + "\n".join(undo.log)
