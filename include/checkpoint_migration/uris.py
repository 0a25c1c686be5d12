"""How a place in an object store is written: `s3://connection@bucket/prefix`."""

from __future__ import annotations

import re

SCHEME = "s3://"
# fsspec takes `*` and `[` for patterns, and a pattern of ours would name what others put there.
PLACE = re.compile(
    r"s3://(?:[A-Za-z0-9_.-]+@)?[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:/[^/\0-\x1f?#*\[\]]+)*"
)
HOW = "write s3://connection@bucket/prefix, where the connection is Airflow's"


def is_object_uri(place: str) -> bool:
    return place.startswith(SCHEME)


def object_uri_problem(place: str) -> str | None:
    """Why a URI is no place in an object store that this package has been tried with."""
    scheme = place.partition("://")[0]
    if not is_object_uri(place):
        return f"names a store ({scheme[:20]!a}) that this package has not been tried with: S3 alone has"
    if not PLACE.fullmatch(place) or any(part in (".", "..") for part in place.split("/")):
        return f"is no place in an object store: {HOW}"  # not quoted: it may hold a password
    return None
