"""Airflow's own database, its logs and the ledger after runs that went well and badly: no secret, no value."""

from __future__ import annotations

import base64
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.sqlite import SqliteSaver

from tests.faults.test_secrets import raises
from tests.support.airflow import dags_test
from tests.support.dumps import LEDGER
from tests.support.faults import CANARY, go_on, write_source
from tests.support.postgres import Database

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

KEY = "key-of-16-bytes!"
TOLD = ("xcom", "rendered_task_instance_fields", "task_instance", "log", "dag_run")


def source_of(path: Path) -> Path:
    """Two threads in clear and one that is encrypted; the marker is in every value."""
    write_source(path)
    with SqliteSaver.from_conn_string(str(path)) as saver:
        saver.serde = EncryptedSerializer.from_pycryptodome_aes(key=KEY.encode())
        go_on(saver, "sealed")
    return path


def written_as(secret: str) -> list[bytes]:
    """A secret as it is, and as hexadecimal or base64 would hide it."""
    raw = secret.encode()
    forms = [raw, raw.hex().encode()]
    for shift in range(3):  # wherever it begins within a group of three bytes
        encoded = base64.b64encode(b"\0" * shift + raw).rstrip(b"=")
        forms.append(encoded[4 if shift else 0 : -2])
    return forms


def everything_airflow_keeps(home: Path) -> dict[str, bytes]:
    """Every row of every table of the metadata database, by table, and every log below the home."""
    with closing(sqlite3.connect(home / "airflow.db")) as conn:
        conn.text_factory = bytes
        names = [
            name.decode()
            for (name,) in conn.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        ]
        kept = {name: _plain(conn.execute(f'SELECT * FROM "{name}"').fetchall()) for name in names}
    for path in home.rglob("*"):
        if path.is_file() and (
            path.suffix == ".log" or path.name in ("report.json", "report.html")
        ):
            kept[str(path)] = path.read_bytes()
    return kept


def everything_in_the_ledger(database: Database) -> dict[str, bytes]:
    tables = database.rows("SELECT tablename::text FROM pg_tables WHERE schemaname = %s", LEDGER)
    return {
        f"ledger.{name}": _plain(database.rows(f'SELECT t::text FROM {LEDGER}."{name}" AS t'))
        for (name,) in tables
    }


def _plain(rows: list[tuple[Any, ...]]) -> bytes:
    return b"\n".join(
        cell if isinstance(cell, bytes) else str(cell).encode() for row in rows for cell in row
    )


def places_of(secret: str, kept: dict[str, bytes]) -> list[str]:
    forms = written_as(secret)
    return [name for name, text in kept.items() if any(form in text for form in forms)]


def test_neither_password_nor_key_nor_value_is_kept_by_airflow_or_the_ledger(
    tmp_path: Path, database: Database, airflow_env: dict[str, str]
) -> None:
    """A run that the target refuses with a row in its message, and one that is `identical`: XComs,
    rendered fields, logs and ledger hold ids, counts and digests.
    """
    source = source_of(tmp_path / "app.sqlite")
    env = {
        **airflow_env,
        "AIRFLOW_CONN_LANGGRAPH_POSTGRES": database.dsn,
        "AIRFLOW_CONN_SEALED": f'{{"conn_type": "generic", "password": "{KEY}"}}',
        "CHECKPOINT_MIGRATION_RETRIES": "0",
    }
    asked = {"source": str(source), "aes_conn_id": "sealed"}
    with PostgresSaver.from_conn_string(database.dsn) as saver:
        saver.setup()
    raises(database, CANARY)
    refused = dags_test(env, asked)
    database.execute("DROP FUNCTION quoting() CASCADE")
    moved = dags_test(env, asked)
    assert refused.verdicts == ["unproven"]
    assert moved.verdicts == ["identical"], moved.output[-3000:]
    assert "trigger" in refused.report["error"]["what"]
    kept = everything_airflow_keeps(moved.home) | everything_in_the_ledger(database)
    for ended in (refused, moved):
        kept[f"printed by {ended.report['run_id']}"] = ended.output.encode()

    password = urlsplit(database.dsn).password
    assert password is not None
    for secret in (password, KEY, CANARY):
        assert places_of(secret, kept) == []
    for table in TOLD:  # what is searched is there, and would be found
        assert kept[table]
    assert {"xcom", "ledger.promoted"} <= set(places_of("sealed", kept))
