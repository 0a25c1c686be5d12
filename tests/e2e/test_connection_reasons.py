"""Why a connection failed: told by its SQLSTATE or in libpq's own words, and never with a secret."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from include.checkpoint_migration.errors import (
    MigrationError,
    TargetBusy,
    TargetNotReady,
    TargetUnreachable,
)
from include.checkpoint_migration.postgres import transaction
from tests.support.languages import german_server
from tests.support.pooler import pooler
from tests.support.postgres import Database, TestServer, debian_server, new_folder

SECRET = "p4ss-w0rd-of-a-test"


def failure(dsn: str, **options: Any) -> MigrationError:
    """What the engine says where this connection is not made."""
    with (
        pytest.raises(MigrationError) as failed,
        transaction(lambda: psycopg.connect(dsn, **options), "checking the target"),
    ):
        pass
    told = str(failed.value) + repr(failed.value.facts)
    password = conninfo_to_dict(dsn).get("password") if "://" not in dsn else None
    for secret in (SECRET, password, options.get("password")):
        assert not secret or str(secret) not in told
    assert failed.value.__cause__ is None
    assert failed.value.__suppress_context__
    return failed.value


def is_terminal(error: MigrationError, *words: str) -> None:
    assert type(error) is TargetNotReady, error
    assert all(word in error.what for word in words), error.what


def is_transient(error: MigrationError, kind: type[MigrationError], *words: str) -> None:
    assert type(error) is kind, error
    assert error.transient
    assert all(word in error.what for word in words), error.what


# --- what the server answered -----------------------------------------------------------------


@pytest.fixture
def role(database: Database) -> Iterator[Callable[..., str]]:
    """Make a role with these options; gives the DSN with which it would log in."""
    made: list[sql.Identifier] = []

    def make(options: str = "LOGIN") -> str:
        name = f"somebody_{uuid4().hex[:8]}"
        statement = sql.SQL(f"CREATE ROLE {{}} PASSWORD {{}} {options}")
        with database.connect() as conn:
            conn.execute(statement.format(sql.Identifier(name), sql.Literal(SECRET)))
        made.append(sql.Identifier(name))
        return make_conninfo(database.dsn, user=name, password=SECRET)

    yield make
    with database.connect() as conn:
        for each in made:
            conn.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(each))


def test_a_wrong_password_is_terminal(database: Database) -> None:
    """Nothing but a correction of the connection helps; user and host are named, no password."""
    error = failure(make_conninfo(database.dsn, password="wrong"))
    is_terminal(error, "refused the login", '"postgres"', "28P01")
    assert error.facts["sqlstate"] == "28P01"


def test_a_password_that_is_missing_is_terminal(database: Database) -> None:
    """The server asks for one, and the connection has none."""
    parts = {k: v for k, v in conninfo_to_dict(database.dsn).items() if k != "password"}
    is_terminal(failure(make_conninfo("", **parts, passfile="/nowhere")), "no password supplied")


def test_a_role_that_may_not_log_in_is_terminal(role: Callable[..., str]) -> None:
    """The login is right and not permitted."""
    is_terminal(failure(role("NOLOGIN")), "refused the login", "28000")


def test_a_database_that_does_not_exist_is_terminal(database: Database) -> None:
    """The database is named."""
    error = failure(make_conninfo(database.dsn, dbname="nowhere"))
    is_terminal(error, "does not exist", '"nowhere"', "3D000")


def test_a_database_that_admits_nobody_is_terminal(
    database: Database, role: Callable[..., str]
) -> None:
    """A privilege to connect is a DBA's to give."""
    dsn = role()
    database.execute(f'REVOKE CONNECT ON DATABASE "{database.name}" FROM PUBLIC')
    is_terminal(failure(dsn), "refused the connection", "42501")


def test_too_many_connections_are_transient(role: Callable[..., str]) -> None:
    """A limit that is reached now may not be reached at the next try."""
    error = failure(role("LOGIN CONNECTION LIMIT 0"))
    is_transient(error, TargetBusy, "no connection left", "53300")


def test_an_option_that_the_server_does_not_know_is_terminal(database: Database) -> None:
    """The server's own words name the option."""
    error = failure(make_conninfo(database.dsn, options="-c nonsense=1"))
    is_terminal(error, '"nonsense"', "42704")


@pytest.fixture(scope="module")
def german() -> Iterator[TestServer]:
    with german_server() as server:
        yield server


def test_a_server_in_another_language_is_understood(german: TestServer) -> None:
    """The SQLSTATE decides; the reason is given in the words that the server chose."""
    with german.database() as database:
        wrong = failure(make_conninfo(database.dsn, password="falsch"))
        is_terminal(wrong, "Passwort-Authentifizierung", "28P01")
        nowhere = failure(make_conninfo(database.dsn, dbname="nirgendwo"))
        is_terminal(nowhere, "existiert nicht", "3D000")
        database.execute("CREATE ROLE niemand LOGIN CONNECTION LIMIT 0 PASSWORD 'x-y-z'")
        full = failure(make_conninfo(database.dsn, user="niemand", password="x-y-z"))
        is_transient(full, TargetBusy, "zu viele Verbindungen", "53300")


# --- what libpq found itself ------------------------------------------------------------------


def test_nobody_who_listens_is_transient(database: Database) -> None:
    """Host and port are named: the network is what to look at."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        error = failure(make_conninfo(database.dsn, port=port, password=SECRET))
    is_transient(error, TargetUnreachable, "127.0.0.1", str(port), "refused")


def test_a_host_without_address_is_transient(database: Database) -> None:
    """A name server may have been out of order."""
    error = failure(make_conninfo(database.dsn, host="nowhere.invalid", password=SECRET))
    is_transient(error, TargetUnreachable, "nowhere.invalid")


def test_a_server_that_answers_outweighs_one_that_does_not(database: Database) -> None:
    """Of several hosts, the one that refused the login says what to correct."""
    port = conninfo_to_dict(database.dsn)["port"]
    dsn = make_conninfo(
        database.dsn, host="127.0.0.1,127.0.0.1", port=f"1,{port}", password="wrong"
    )
    is_terminal(failure(dsn), "28P01")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"sslmode": "nonsense"}, "sslmode"),
        ({"port": "nonsense"}, "port"),
        ({"target_session_attrs": "nonsense"}, "target_session_attrs"),
        ({"sslmode": "verify-full", "sslrootcert": "system", "channel_binding": "x"}, "channel"),
    ],
)
def test_a_setting_that_libpq_does_not_know_is_terminal(
    database: Database, options: dict[str, str], word: str
) -> None:
    """The setting is named and its value is not: a malformed URI has parts of a password there."""
    error = failure(make_conninfo(database.dsn, **options))
    is_terminal(error, "not set up right", word)
    assert "nonsense" not in error.what


@pytest.mark.parametrize("options", [{"nonsense": SECRET}, {"connect_timeout": SECRET}])
def test_an_option_that_libpq_does_not_have_is_terminal(
    database: Database, options: dict[str, str]
) -> None:
    """Its value is not told."""
    is_terminal(failure(database.dsn, **options), "not set up right", "option")


# --- TLS ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates() -> Iterator[Path]:
    """A folder with two certificates that sign themselves, the server's and somebody else's."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed (apt-get install openssl)")
    folder = new_folder()
    for name in ("server", "other"):
        command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3"]
        command += ["-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.crt"]
        command += ["-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:db.example"]
        subprocess.run(command, check=True, capture_output=True)
        (folder / f"{name}.key").chmod(0o600)
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(folder / f"{name}.key", nobody.pw_uid, nobody.pw_gid)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def tls(certificates: Path) -> Iterator[TestServer]:
    """A server with TLS, which admits to the database `guarded` nobody without it."""
    hba = certificates / "pg_hba.conf"
    hba.write_text(
        "hostssl guarded all 127.0.0.1/32 scram-sha-256\n"
        "host postgres all 127.0.0.1/32 scram-sha-256\n"
    )
    with debian_server(
        ssl="on",
        ssl_cert_file=str(certificates / "server.crt"),
        ssl_key_file=str(certificates / "server.key"),
        hba_file=str(hba),
    ) as server:
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            conn.execute("CREATE DATABASE guarded")
        yield server


def guarded(tls: TestServer, **options: Any) -> str:
    return make_conninfo(tls.uri("guarded"), **options)


def test_a_right_certificate_is_fine(tls: TestServer, certificates: Path) -> None:
    """So the failures below are those of what is wrong in each."""
    dsn = guarded(tls, sslmode="verify-ca", sslrootcert=str(certificates / "server.crt"))
    with transaction(lambda: psycopg.connect(dsn), "checking the target") as conn:
        assert conn.pgconn.ssl_in_use


def test_a_certificate_file_that_is_missing_is_terminal(
    tls: TestServer, certificates: Path
) -> None:
    """The file is named."""
    missing = str(certificates / "missing.crt")
    error = failure(guarded(tls, sslmode="verify-ca", sslrootcert=missing))
    is_terminal(error, "root certificate file", missing)


def test_an_authority_that_is_not_trusted_is_terminal(tls: TestServer, certificates: Path) -> None:
    """Another authority signed it."""
    other = str(certificates / "other.crt")
    error = failure(guarded(tls, sslmode="verify-ca", sslrootcert=other))
    is_terminal(error, "certificate verify failed")


def test_a_certificate_for_another_host_is_terminal(tls: TestServer, certificates: Path) -> None:
    """Both names are told."""
    root = str(certificates / "server.crt")
    error = failure(guarded(tls, sslmode="verify-full", sslrootcert=root))
    is_terminal(error, "db.example", "127.0.0.1")


def test_a_server_that_wants_tls_alone_is_terminal(tls: TestServer) -> None:
    """The reason says that it is about encryption, and what to do says sslmode."""
    error = failure(guarded(tls, sslmode="disable"))
    is_terminal(error, "no encryption", "28000")
    assert "sslmode" in error.next


def test_a_server_without_tls_is_terminal(postgres_server: TestServer) -> None:
    """A connection that requires TLS does not get it from a server that has none."""
    error = failure(make_conninfo(postgres_server.dsn, sslmode="require"))
    is_terminal(error, "does not support SSL")


# --- poolers ----------------------------------------------------------------------------------


def test_a_pooler_that_refuses_options_is_terminal(database: Database) -> None:
    """The option is named, and both places where it can be put right."""
    with pooler(database) as dsn:
        error = failure(make_conninfo(dsn, options="-c search_path=chat"))
    is_terminal(error, "pooler", "options")
    assert "ignore_startup_parameters" in error.next


def test_a_pooler_that_refuses_the_login_is_terminal(database: Database) -> None:
    """It has users of its own."""
    with pooler(database, auth_type="scram-sha-256") as dsn:
        error = failure(make_conninfo(dsn, password="wrong"))
    is_terminal(error, "refused the login")


def test_a_pooler_that_is_full_is_transient(database: Database) -> None:
    """It says so in the same SQLSTATE as everything else that it refuses."""
    with pooler(database, max_client_conn=1) as dsn, psycopg.connect(dsn):
        error = failure(dsn)
    assert error.transient
    assert "max_client_conn" in error.what


# --- secrets ----------------------------------------------------------------------------------


def test_a_line_that_holds_the_password_is_not_shown(
    database: Database, role: Callable[..., str], tls: TestServer
) -> None:
    """Wherever else a connection has the text that is its password: libpq's line is left out whole."""
    for dsn in (
        make_conninfo(database.dsn, user=SECRET, password=SECRET),
        make_conninfo(role(), dbname=f"the {SECRET}"),
    ):
        assert "words are not shown" in failure(dsn).what
    file = f"/tmp/{SECRET}"
    dsn = guarded(tls, sslmode="verify-ca", sslrootcert=file, password=SECRET)
    is_terminal(failure(dsn), "Either provide the file")


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://u:Pa55@Wor7@127.0.0.1:1/db",
        "postgresql://u:Pa55/Wor7@127.0.0.1:1/db",
        "postgresql://u:Pa55%zzWor7@127.0.0.1:1/db",
        "postgresql://u:Pa55?Wor7@127.0.0.1:1/db",
        "postgresql://u:Pa55#Wor7@127.0.0.1:1/db",
        "postgresql://u:Pa55%40Wor7@127.0.0.1:1/db",
        "host=127.0.0.1 port=1 password=Pa55 Wor7",
        "host=127.0.0.1 port=1 password='Pa55 Wor7",
    ],
)
def test_no_part_of_a_malformed_uri_shows(uri: str) -> None:
    """A password that is not quoted as it should be spills into host, port and options."""
    with (
        pytest.raises(MigrationError) as failed,
        transaction(lambda: psycopg.connect(uri), "checking the target"),
    ):
        pass
    told = str(failed.value) + repr(failed.value.facts)
    assert "Pa55" not in told
    assert "Wor7" not in told
