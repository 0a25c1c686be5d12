"""A run in hand: its settings, its connection, its folder, its log, and how its steps are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from Crypto.Cipher import AES

from ..postgres import Connect
from ..progress import Progress
from ..settings import Settings
from ..storage import RunFolder
from . import lease
from .journal import Journal


@dataclass(frozen=True, slots=True)
class Notes:
    """A step's facts for the report, and the run's state in the ledger when the step began."""

    facts: dict[str, Any]
    state: str

    @property
    def is_done(self) -> bool:
        """The run ended well before: its tasks were cleared, and there is nothing to do."""
        return self.state == "done"

    @property
    def is_promoted(self) -> bool:
        return self.state in ("promoted", "done")


@dataclass(frozen=True, slots=True)
class Run:
    """A run: what it was asked, how it reaches the target, where it writes, to whom it talks.

    `owner` names the process that carries the whole run, where there is one (`lease.acquire`).
    `aes_key` is kept out of the settings, and so out of every file and log.
    """

    settings: Settings
    connect: Connect
    log: Callable[[str], None]
    owner: str | None = None
    aes_key: bytes | None = field(default=None, repr=False)

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.settings.export_uri, self.settings.folder_name)

    @property
    def journal(self) -> Journal:
        return Journal(self.folder)

    @property
    def opener(self) -> Callable[[str, bytes], bytes] | None:
        """Opens an encrypted value for the oracle and the read-back; None without a key."""
        if self.aes_key is None:
            return None
        key = self.aes_key

        def opened(_kind: str, sealed: bytes) -> bytes:
            cipher = AES.new(key, AES.MODE_EAX, nonce=sealed[:16])
            return cipher.decrypt_and_verify(sealed[32:], sealed[16:32])

        return opened

    def progress(self, total: int, verb: str) -> Progress:
        return Progress(total, "checkpoints", self.log, verb=verb)

    @contextmanager
    def step(self, name: str, part: int | None = None) -> Iterator[Notes]:
        """A step that is recorded, and that keeps the run alive in the ledger while it works."""
        with (
            self.journal.step(name, part) as facts,
            lease.alive(self.connect, self.settings) as row,
        ):
            yield Notes(facts, row.state if row else "running")
