"""An S3 server on loopback that remembers what it was asked, and the engine's way to it."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import s3fs
from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from include import checkpoint_migration as engine

BUCKET = "migrations"
KEY, SECRET = "somebody", "a-secret-of-the-bucket's"


class Asked(NamedTuple):
    """A request: what for, for which object, and the range of it."""

    method: str
    path: str
    range: str | None


class _Quiet(MotoRequestHandler):
    def log(self, *_: Any, **__: Any) -> None: ...


@dataclass
class Store:
    """A bucket in an S3 server. `port` may be that of a proxy in front of it."""

    port: int
    asked: list[Asked] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def connection(self) -> str:
        """As Airflow reads it from AIRFLOW_CONN_…."""
        extra = {"endpoint_url": self.endpoint, "region_name": "eu-central-1"}
        told = {"conn_type": "aws", "login": KEY, "password": SECRET, "extra": extra}
        return json.dumps(told)

    def file_system(self) -> s3fs.S3FileSystem:
        """One for all of a test: what a client loads at first takes half a second."""
        return self._files

    @cached_property
    def _files(self) -> s3fs.S3FileSystem:
        return s3fs.S3FileSystem(
            key=KEY,
            secret=SECRET,
            endpoint_url=self.endpoint,
            client_kwargs={"region_name": "eu-central-1"},
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    def objects(self, scratch: Path) -> engine.Objects:
        """How a worker with its own scratch folder reaches the store."""
        files = self.file_system()
        return engine.Objects(lambda uri: (files, uri.removeprefix("s3://")), scratch)

    def names(self) -> set[str]:
        """What lies in the bucket."""
        found = self.file_system().find(BUCKET)
        return {name.removeprefix(f"{BUCKET}/") for name in found}

    def put(self, name: str, data: bytes) -> None:
        self.file_system().pipe_file(f"{BUCKET}/{name}", data)

    def fetched(self, name: str) -> list[Asked]:
        """The requests that brought something of the objects whose names end so."""
        return [a for a in self.asked if a.method == "GET" and a.path.endswith(name)]


@contextlib.contextmanager
def s3_server() -> Iterator[Store]:
    """Moto's server with an empty bucket."""
    app = DomainDispatcherApplication(create_backend_app)
    store = Store(0)

    def remembering(environ: dict[str, Any], start: Any) -> Any:
        store.asked.append(
            Asked(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("HTTP_RANGE"))
        )
        return app(environ, start)

    server = make_server("127.0.0.1", 0, remembering, threaded=True, request_handler=_Quiet)
    store.port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        files = store.file_system()
        if files.exists(BUCKET):  # moto's backend outlives a server of this process
            files.rm(BUCKET, recursive=True)
        files.mkdir(BUCKET)
        yield store
    finally:
        server.shutdown()
