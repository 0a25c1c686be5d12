"""A connection of Airflow's that cannot be made: what is wrong with it, and whether another try helps."""

from __future__ import annotations

from datetime import timedelta

import pytest

from include import checkpoint_migration as engine
from include.checkpoint_migration.postgres import transaction
from include.orchestration.connections import connect_to
from tests.support.postgres import Database

HERE = "postgresql://u:Pa55word@127.0.0.1:1/db"


@pytest.mark.parametrize(
    ("uri", "kind", "said"),
    [
        (f"{HERE}?nonsense=1&odd=2", "SettingsInvalid", "'nonsense', 'odd'"),
        (f"{HERE}?connect_timeout=soon", "SettingsInvalid", "an extra"),
        (f"{HERE}?sslmode=nonsense", "TargetNotReady", "invalid sslmode value"),
        (f"{HERE}?sslmode=verify-ca&sslrootcert=/n.crt", "TargetUnreachable", "Connection refused"),
        (HERE, "TargetUnreachable", "127.0.0.1"),
        ("postgresql://u:Pa55word@no.invalid/db", "TargetUnreachable", "no.invalid"),
        ("postgresql://u:Pa55word@Pa55word.invalid/db", "TargetUnreachable", "not shown"),
    ],
)
def test_what_is_wrong_is_named_without_the_password(
    uri: str,
    kind: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Configuration is terminal and network transient, in libpq's own words where these tell no secret."""
    monkeypatch.setenv("AIRFLOW_CONN_WRONG", uri)
    connect = connect_to("wrong", timedelta(seconds=5))
    with pytest.raises(engine.MigrationError) as failed, transaction(connect, "trying"):
        pass
    error = failed.value
    assert type(error).__name__ == kind
    assert said in error.what
    assert error.transient is (kind == "TargetUnreachable")
    assert "pa55word" not in (str(error) + repr(error.facts) + caplog.text).casefold()


def test_a_connection_asks_for_utf8_at_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is said before the first transaction, an error among it, is in UTF-8 already."""
    monkeypatch.setenv("AIRFLOW_CONN_RIGHT", database.dsn)
    with connect_to("right", timedelta(seconds=5))() as conn:
        assert conn.info.encoding == "utf-8"
