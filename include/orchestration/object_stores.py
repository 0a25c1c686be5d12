"""How a task reaches an object store: by Airflow's ObjectStoragePath and the URI's connection."""

from __future__ import annotations

from typing import cast
from urllib.parse import urlsplit

from airflow.sdk import Connection, ObjectStoragePath
from airflow.sdk.exceptions import AirflowNotFoundException

from include.checkpoint_migration import Objects, ObjectStore, SettingsInvalid

from .connections import NOTHING_DONE
from .deployment import read_deployment

PACKAGE = "apache-airflow-providers-amazon[s3fs]"


def object_stores() -> Objects:
    """How the engine opens object stores, and where this worker keeps what it fetched."""
    return Objects(_open, read_deployment().scratch)


def _open(uri: str) -> tuple[ObjectStore, str]:
    """The file system of a URI, and its path in it."""
    conn_id = urlsplit(uri).username
    if conn_id:  # the provider's hook goes on without one that is not there, as nobody
        try:
            Connection.get(conn_id)
        except AirflowNotFoundException:
            raise SettingsInvalid(
                f"the Airflow connection {conn_id!r}, named by an object store's URI, is not defined, or "
                "Airflow cannot read it.",
                safe=NOTHING_DONE,
                next=f"define it in the UI, or set AIRFLOW_CONN_{conn_id.upper()}; or name another one.",
            ) from None
    try:
        place = ObjectStoragePath(uri)
        store = place.fs
        if getattr(store, "anon", False):  # the provider goes on as nobody where it finds none
            raise SettingsInvalid(
                "no credentials were found for s3://.",
                safe=NOTHING_DONE,
                next="name a connection of type aws in the URI (s3://connection@bucket/…), or give the "
                "worker's machine a role.",
            )
        return cast(ObjectStore, store), place.path.rstrip("/")
    except (ImportError, ValueError) as error:
        raise SettingsInvalid(
            f"this worker has no file system for s3:// ({type(error).__name__}).",
            safe=NOTHING_DONE,
            next=f"install {PACKAGE} wherever tasks run (requirements-s3.txt).",
        ) from error
