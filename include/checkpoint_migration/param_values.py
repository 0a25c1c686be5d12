"""Judges each param's value by its shape, and refuses by the param's name what has another."""

from __future__ import annotations

from typing import Any
from urllib.parse import SplitResult, quote, unquote_to_bytes, urlsplit

from .errors import SettingsInvalid
from .texts import quoted
from .uris import is_object_uri, object_uri_problem

NOTHING_DONE = "nothing was opened, read or written."
SCHEMES = ("file:", "sqlite:")


def invalid(name: str, why: str) -> SettingsInvalid:
    """The refusal of a param: its name, why, and what to do next."""
    return SettingsInvalid(
        f"param {name!r} {why}.",
        safe=NOTHING_DONE,
        next=f"trigger the DAG again with another {name!r}; its form says what is allowed.",
        param=name,
    )


def text_of(name: str, value: Any, what: str, most_bytes: int) -> str:
    """A text that names something; `what` is said of anything else."""
    sound = isinstance(value, str) and value and "\0" not in value
    if not sound or len(_bytes_of(name, value)) > most_bytes:
        raise invalid(name, f"must be {what}")
    return str(value)


def whether(name: str, value: Any) -> bool:
    """True or false and no word for it: the text "false" is true to Python."""
    if not isinstance(value, bool):
        raise invalid(name, "must be true or false")
    return value


def whole_number(name: str, value: Any, fewest: int, most: int) -> int:
    if type(value) is not int or not fewest <= value <= most:
        raise invalid(name, f"must be a whole number from {fewest:,} to {most:,}")
    return value


def choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """One of the choices; nothing means the first."""
    if value is None or value == "":
        return choices[0]
    if not isinstance(value, str) or value not in choices:
        raise invalid(name, f"must be one of {', '.join(choices)}")
    return value


def globs_of(name: str, value: Any) -> tuple[str, ...]:
    """A list of globs; nothing means none."""
    if value is None or value == "":
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(g, str) and g for g in value):
        raise invalid(name, "must be a list of globs, such as ['user-*', '!user-test-*']")
    return tuple(value)


def source_place(name: str, value: Any) -> str:
    """A path, or an object of a store: not all of a bucket."""
    if not isinstance(value, str) or not is_object_uri(value):
        return source_path(name, value)
    if problem := object_uri_problem(value):
        raise invalid(name, problem)
    if "/" not in value.removeprefix("s3://"):
        raise invalid(name, "names a bucket, and no object in it")
    return value


def folder_place(name: str, value: Any) -> str:
    """A folder, or a place in an object store."""
    if not isinstance(value, str) or "://" not in value or value.startswith("file:"):
        return folder_path(name, value)
    place = value.rstrip("/")
    if problem := object_uri_problem(place):
        raise invalid(name, problem)
    return place


def source_path(name: str, value: Any) -> str:
    """An absolute path; where its bytes are no UTF-8, a `file:` URI, which is text everywhere."""
    if not isinstance(value, str) or not value:
        raise invalid(name, "is missing: it names the SQLite database to migrate")
    if "://" in value and not value.startswith(SCHEMES):
        raise invalid(name, "must be an absolute path or a file: URI, or lie in S3")
    raw = _path_bytes(name, value, "file:///path/to/the.sqlite")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return f"file://{quote(raw)}"


def folder_path(name: str, value: Any) -> str:
    """An absolute folder, as a path or a `file:` URI."""
    if not isinstance(value, str) or not value:
        raise invalid(name, "must be an absolute folder")
    raw = _path_bytes(name, value, "file:///path/to/a/folder")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise invalid(name, "must be a folder whose name is UTF-8") from None


def _path_bytes(name: str, value: str, spelled: str) -> bytes:
    """The bytes of an absolute path on this machine, which is written as it is or as a URI."""
    path, is_uri = value, value.startswith(SCHEMES)
    if is_uri:
        path = _path_of_uri(name, value, spelled)
    raw = _bytes_of(name, path)
    if is_uri:
        raw = unquote_to_bytes(raw)
    if b"\0" in raw:
        raise invalid(name, "holds a NUL")
    if not raw.startswith(b"/"):
        raise invalid(name, f"must be absolute; {quoted(value)} depends on where a worker runs")
    return raw


def _path_of_uri(name: str, value: str, spelled: str) -> str:
    try:
        parts: SplitResult = urlsplit(value)
    except ValueError:
        raise invalid(name, f"is no URI: write {spelled}") from None
    if parts.netloc not in ("", "localhost"):
        raise invalid(name, f"must lie on this machine: write {spelled}")
    if parts.scheme != "sqlite":
        return parts.path
    # As SQLAlchemy writes it, sqlite:////absolute/path; with a slash less the path is relative.
    return parts.path[1:]


def _bytes_of(name: str, text: str) -> bytes:
    """A text's bytes; those of an argument that is no UTF-8 arrive as they were."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise invalid(name, "holds a lone surrogate, which no name can") from None
