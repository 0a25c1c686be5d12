"""A whole migration over TLS with `verify-full`, against an authority of the test's own."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from include import checkpoint_migration as engine
from tests.support.engine import Migration
from tests.support.faults import write_source
from tests.support.postgres import debian_server, new_folder
from tests.support.undoing import Undo, dump

HOST = "db.example"


def openssl(*arguments: str) -> None:
    command = shutil.which("openssl")
    if command is None:
        pytest.skip("openssl is not installed (apt-get install openssl)")
    subprocess.run([command, *arguments], check=True, capture_output=True)


@pytest.fixture
def authority() -> Iterator[Path]:
    """A folder with an authority, a certificate that it signed for the server, and another authority."""
    folder = new_folder()
    for name in ("ca", "other"):
        openssl(
            *"req -x509 -newkey rsa:2048 -nodes -days 3 -addext basicConstraints=critical,CA:TRUE".split(),
            *f"-keyout {folder}/{name}.key -out {folder}/{name}.crt -subj /CN={name}".split(),
        )
    openssl(
        *f"req -newkey rsa:2048 -nodes -keyout {folder}/server.key -out {folder}/server.csr".split(),
        *f"-subj /CN={HOST} -addext subjectAltName=DNS:{HOST}".split(),
    )
    openssl(
        *f"x509 -req -in {folder}/server.csr -CA {folder}/ca.crt -CAkey {folder}/ca.key".split(),
        *f"-CAcreateserial -days 3 -copy_extensions copy -out {folder}/server.crt".split(),
    )
    (folder / "server.key").chmod(0o600)
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(folder / "server.key", nobody.pw_uid, nobody.pw_gid)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def tls(authority: Path) -> Iterator[str]:
    """A server that admits nobody without TLS; its DSN names it as its certificate does."""
    hba = authority / "pg_hba.conf"
    hba.write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")
    certificate, key = authority / "server.crt", authority / "server.key"
    with debian_server(
        ssl="on", ssl_cert_file=str(certificate), ssl_key_file=str(key), hba_file=str(hba)
    ) as server:
        yield make_conninfo(
            server.dsn,
            host=HOST,
            hostaddr="127.0.0.1",
            sslmode="verify-full",
            sslrootcert=str(authority / "ca.crt"),
        )


def test_a_whole_migration_and_its_undo_pass_verify_full(
    tls: str, authority: Path, tmp_path: Path
) -> None:
    """Every connection is encrypted and knows the server; another authority's is refused by name."""
    source = write_source(tmp_path / "app.sqlite")
    with psycopg.connect(tls, autocommit=True) as conn:
        assert conn.pgconn.ssl_in_use
        conn.execute("CREATE DATABASE moved")
    dsn = make_conninfo(tls, dbname="moved")
    distrusting = Migration(
        make_conninfo(dsn, sslrootcert=str(authority / "other.crt")), source, tmp_path / "exports"
    )
    with pytest.raises(engine.MigrationError) as caught:
        distrusting.all()
    assert (type(caught.value).__name__, caught.value.transient) == ("TargetNotReady", False)
    assert "certificate" in caught.value.what
    migration = Migration(dsn, source, tmp_path / "exports", run_id="over TLS")
    assert migration.all()["verdict"] == "identical"
    assert Undo.of(migration).all()["outcome"] == "undone"
    assert not any(rows for name, rows in dump(dsn).items() if name != "checkpoint_migrations")
