"""Why a connection was not made: by the SQLSTATE of who refused it, else by libpq's own reason.

libpq tells the SQLSTATE of a refused connection to nobody, and the words beside it are in the
server's language. So whoever was refused asks once more, and has libpq say the SQLSTATE instead.
"""

from __future__ import annotations

import ctypes
import importlib
import re
import selectors
import time
from typing import Any, NamedTuple
from urllib.parse import quote

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from .errors import MigrationError, TargetBusy, TargetNotReady, TargetUnreachable

NOTHING_SENT = "the source is untouched; nothing was asked of PostgreSQL over this connection."
SECRETS = {b"password", b"sslpassword", b"oauth_client_secret", b"scram_client_key"}
LONGEST_REASON = 500
PATIENCE = 10.0  # seconds for asking once more
ONLY_SQLSTATE = 3  # libpq's PQERRORS_SQLSTATE

# A server's severity, in whatever language, comes with two blanks; libpq's own words do not.
ANSWERED = re.compile(r"\S:  \S")
TOLD = re.compile(r"\S:  ([0-9A-Z]{5})\s*\Z")
# What libpq and OpenSSL find themselves, in the process's language: that of Python is C, English,
# whatever the server speaks. All else that they find is the network.
CONFIGURATION = re.compile(
    r"invalid|certificate|private key|alert|does not support|not supported|required|requirement"
    r"|could not match|no password supplied|may not be used|expected authentication request"
    r"|definition of service|service file"
)
NAMES = re.compile(r"'[^']*'|\"[^\"]*\"")  # of hosts and files, which may be any word
# How they quote a wrong setting: a part of a password, where the connection's URI is malformed.
QUOTED_SETTING = re.compile(r'(invalid [\w ]*value):? ".*?"')
# pgbouncer says 08P01 of nearly all that it refuses, PostgreSQL of nothing here. It speaks English.
OF_A_POOLER = "08P01"
POOLER_REFUSES_OPTION = re.compile("unsupported startup parameter")
POOLER_REFUSES_LOGIN = re.compile(
    "password|SASL|auth|no such (user|database)|login rejected|SSL required|TLS required"
)


class Cause(NamedTuple):
    """What a refusal means: `{doing}` and `{reason}` are filled in."""

    kind: type[MigrationError]
    what: str
    next: str


NOT_REACHED = Cause(
    TargetUnreachable,
    "PostgreSQL could not be reached while {doing}: {reason}.",
    "nothing at first: the task is tried again. If it repeats, check host, port and network of "
    "the Airflow connection.",
)
NOT_NOW = Cause(
    TargetUnreachable,
    "PostgreSQL answered and took no connection while {doing}: {reason}.",
    "nothing at first: the task is tried again. If it repeats, the server's log says more.",
)
FULL = Cause(
    TargetBusy,
    "PostgreSQL has no connection left while {doing}: {reason}.",
    "nothing at first: the task is tried again. If it repeats, raise the limit of the server, role, "
    "database or pooler, or let fewer tasks run at a time.",
)
WRONG_LOGIN = Cause(
    TargetNotReady,
    "PostgreSQL was reached and refused the login while {doing}: {reason}.",
    "correct login and password of the Airflow connection; where pg_hba.conf has no entry for it, "
    "have one made, or set sslmode as the entry asks.",
)
NO_DATABASE = Cause(
    TargetNotReady,
    "the database that the connection names does not exist: {reason}.",
    "create the database, or correct the connection's database.",
)
NOT_ADMITTED = Cause(
    TargetNotReady,
    "PostgreSQL was reached and refused the connection while {doing}: {reason}.",
    "correct the Airflow connection, or have a DBA admit its role to the database.",
)
OPTION_REFUSED = Cause(
    TargetNotReady,
    "the pooler in between refused an option of the connection while {doing}: {reason}.",
    "take that option out of the extras of the Airflow connection, or add it to the pooler's "
    "ignore_startup_parameters.",
)
NOT_SET_UP = Cause(
    TargetNotReady,
    "the connection is not set up right: {reason}.",
    "correct host, certificates, sslmode and the other extras of the Airflow connection.",
)
BY_SQLSTATE = {
    "28000": WRONG_LOGIN,
    "28P01": WRONG_LOGIN,
    "3D000": NO_DATABASE,
    "53300": FULL,
    "53400": FULL,
}
PASSES = ("08", "40", "53", "57", "58", "XX")  # classes of what may be over at the next try


def not_connected(error: psycopg.Error, doing: str) -> MigrationError:
    """What a failed `connect()` means, as an error of ours.

    Configuration is terminal, network is transient. The reason is in it, unless it may hold a secret.
    """
    pgconn = error.pgconn
    text = str(error)
    state = error.sqlstate
    if state is None and pgconn is not None and ANSWERED.search(text):
        state = _ask_sqlstate(pgconn)
    cause = _cause_of(error, text, state)
    reason = _free_of_secrets(error, pgconn)
    reason += f" (SQLSTATE {state})" if state else ""
    what = cause.what.format(doing=doing, reason=reason)
    return cause.kind(what, safe=NOTHING_SENT, next=cause.next, sqlstate=state)


def _cause_of(error: psycopg.Error, text: str, state: str | None) -> Cause:
    if not isinstance(error, psycopg.OperationalError):
        return NOT_SET_UP
    if state == OF_A_POOLER:
        if POOLER_REFUSES_OPTION.search(text):
            return OPTION_REFUSED
        return WRONG_LOGIN if POOLER_REFUSES_LOGIN.search(text) else NOT_NOW
    if state is not None:
        fallback = NOT_NOW if state.startswith(PASSES) else NOT_ADMITTED
        return BY_SQLSTATE.get(state, fallback)
    if ANSWERED.search(text):
        return NOT_NOW
    needs_password = error.pgconn is not None and bool(error.pgconn.needs_password)
    wrong = needs_password or CONFIGURATION.search(NAMES.sub("", text))
    return NOT_SET_UP if wrong else NOT_REACHED


def _free_of_secrets(error: psycopg.Error, pgconn: Any) -> str:
    """The words of libpq in one line, without each of its lines that holds a secret of the connection."""
    if not isinstance(error, psycopg.OperationalError):
        return "it has an option that libpq does not know, or a value that it cannot read"
    secrets = _secrets(pgconn)
    shown: list[str] = []
    for line in str(error).splitlines():
        words = " ".join(line.split())
        for prefix in ("connection failed: ", "connection is bad: "):
            words = words.removeprefix(prefix)
        words = QUOTED_SETTING.sub(r"\1", words).rstrip(".")
        folded = (line.casefold(), words.casefold())  # psycopg writes hosts in lower case
        plain = words.isprintable() and not any(s in text for s in secrets for text in folded)
        if words and plain and words not in shown:
            shown.append(words)
    reason = "; ".join(shown) or f"{type(error).__name__}, whose words are not shown here"
    return reason if len(reason) <= LONGEST_REASON else reason[:LONGEST_REASON] + "…"


def _secrets(pgconn: Any) -> set[str]:
    """What must not show. Where psycopg has not kept it: what a malformed URI's password is cut at."""
    if pgconn is None:
        return {"@", "://", "password="}
    values = {pgconn.password, *(o.val for o in pgconn.info if o.keyword in SECRETS)}
    known = {value.decode(errors="replace") for value in values if value}
    return {form.casefold() for value in known for form in (value, quote(value, safe=""))}


def _ask_sqlstate(pgconn: Any) -> str | None:
    """Try the same connection once more, and have libpq say the SQLSTATE alone; None if it cannot."""
    given = {o.keyword.decode(): o.val.decode() for o in pgconn.info if o.val}
    try:
        again = pq.PGconn.connect_start(make_conninfo("", **given).encode())
        try:
            _only_sqlstate(again)
            _finish_connecting(again)
            told = TOLD.search(again.get_error_message())
        finally:
            again.finish()
    except (psycopg.Error, ImportError, AttributeError, OSError):
        return None
    return told[1] if told else None


def _only_sqlstate(pgconn: Any) -> None:
    """Have errors of a connection read as severity and SQLSTATE: psycopg has no call for it."""
    module = importlib.import_module(f"psycopg_{pq.__impl__}.pq")
    say = ctypes.CDLL(str(module.__file__)).PQsetErrorVerbosity
    say.argtypes = [ctypes.c_void_p, ctypes.c_int]
    say(pgconn.pgconn_ptr, ONLY_SQLSTATE)


def _finish_connecting(pgconn: Any) -> None:
    wanted = {
        pq.PollingStatus.READING: selectors.EVENT_READ,
        pq.PollingStatus.WRITING: selectors.EVENT_WRITE,
    }
    deadline = time.monotonic() + PATIENCE
    while (status := pgconn.connect_poll()) in wanted and time.monotonic() < deadline:
        with selectors.DefaultSelector() as selector:
            selector.register(pgconn.socket, wanted[status])
            selector.select(PATIENCE)
