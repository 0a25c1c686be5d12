"""Every way in which a migration can fail, as one tree; read this first.

MigrationError
├── SettingsInvalid            a param or setting makes no sense                         terminal
├── SourceError
│   ├── SourceUnreadable       missing, not SQLite, malformed, hot journal, wrong owner  terminal
│   ├── SourceHasNoTables      SQLite, but not LangGraph's layout                        terminal
│   ├── SourceBusy             somebody holds a lock                                     transient
│   └── SourceDrifted          written since it was frozen, and `on_drift` is `fail`     terminal
├── StorageError
│   ├── StorageFull            no room for exports or the frozen source                  transient
│   ├── StorageUnreachable     an object store that does not answer, or breaks off       transient
│   ├── StorageRefused         a folder that cannot be used safely                       terminal
│   └── ExportCorrupted        an export file does not match its manifest                terminal
├── Blocked                    rows that PostgreSQL has no lossless place for            terminal
├── KeyNeeded                  encrypted values, and no key that opens them              terminal
├── TargetError
│   ├── TargetUnreachable      no connection, or it broke                                transient
│   ├── TargetBusy             deadlock, serialization failure, locks, no connection     transient
│   ├── TargetNotReady         login, connection, privileges, tables, encoding, version  terminal
│   ├── TargetConflict         live rows with the same keys and other content            terminal
│   └── StagingLost            staging is not what the receipts say                      terminal
├── RunError
│   ├── AnotherRunIsAlive      a second run on the same live tables                      terminal
│   ├── RunSuperseded          a newer run took over; this one may not commit            terminal
│   ├── RunUndone              what it made live was taken out again                     terminal
│   └── NotUndoable            a run that cannot be undone, or not any more              terminal
└── VerificationFailed         something is not equal, or could not be compared          terminal

*Transient* failures are worth another try as they are; *terminal* ones need somebody first.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

from .folding import folded
from .foreign import told_of

UNTOUCHED = "the source is untouched; the live tables are exactly as they were."
AS_PROMOTE_LEFT_IT = "the source is untouched; live is as promote left it, before or after."


class MigrationError(Exception):
    """Says what happened, what is safe and what to do next; its facts are its `facts`.

    Survives pickling. No part of it holds a value, a password or a DSN.
    """

    transient: ClassVar[bool] = False
    _in_log = False

    def __init__(self, what: str, *, safe: str = UNTOUCHED, next: str, **facts: Any) -> None:
        super().__init__(what)
        self.what = what
        self.safe = safe
        self.next = next
        self.facts = facts

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.what, self.safe, self.next, self.facts))

    def __str__(self) -> str:
        what = [self.what]
        if self._in_log:  # where a traceback has the type before it
            before = f"{type(self).__module__}.{type(self).__name__}: "
            first, *more = folded(self.what, "-" * len(before), inside=2)
            what = [first[len(before) :], *more]
        safe = folded(self.safe, "  What is safe:  ")
        return "\n".join([*what, *safe, *folded(self.next, "  What to do:    ")])

    def for_log(self) -> Self:
        """Itself with short lines, and without the frames and errors that it came through."""
        self._in_log = True
        self.__cause__ = self.__context__ = None
        return self.with_traceback(None)

    def as_dict(self) -> dict[str, Any]:
        """The error as `report.json` has it."""
        return {
            "type": type(self).__name__,
            "what": self.what,
            "safe": self.safe,
            "next": self.next,
            "transient": self.transient,
        }


def described(error: BaseException) -> dict[str, Any]:
    """Any exception as `report.json` has it. Of one that is not ours the type and the place are told,
    because its message may hold a value.
    """
    if isinstance(error, MigrationError):
        return error.as_dict()
    return {
        "type": type(error).__name__,
        "what": f"an error that this package does not know ({told_of(error)}) ended a task.",
        "safe": "the source is never written, and promote is one transaction: all of it or nothing.",
        "next": "read the failed task's log, which has the error itself; see to its cause, and clear the "
        "task: the run goes on from there.",
        "transient": False,
    }


def failures() -> list[type[MigrationError]]:
    """Every kind of failure."""
    found: list[type[MigrationError]] = []
    waiting = [MigrationError]
    while waiting:
        kinds = waiting.pop().__subclasses__()
        found += kinds
        waiting += kinds
    return found


def _rebuild(
    kind: type[MigrationError], what: str, safe: str, next: str, facts: dict[str, Any]
) -> MigrationError:
    return kind(what, safe=safe, next=next, **facts)


class SettingsInvalid(MigrationError): ...


class SourceError(MigrationError): ...


class SourceUnreadable(SourceError): ...


class SourceHasNoTables(SourceError): ...


class SourceBusy(SourceError):
    transient = True


class SourceDrifted(SourceError): ...


class StorageError(MigrationError): ...


class StorageFull(StorageError):
    transient = True


class StorageUnreachable(StorageError):
    transient = True


class StorageRefused(StorageError): ...


class ExportCorrupted(StorageError): ...


class Blocked(MigrationError): ...


class KeyNeeded(MigrationError): ...


class TargetError(MigrationError): ...


class TargetUnreachable(TargetError):
    transient = True


class TargetBusy(TargetError):
    transient = True


class TargetNotReady(TargetError): ...


class TargetConflict(TargetError): ...


class StagingLost(TargetError): ...


class RunError(MigrationError): ...


class AnotherRunIsAlive(RunError): ...


class RunSuperseded(RunError): ...


class RunUndone(RunError): ...


class NotUndoable(RunError): ...


class VerificationFailed(MigrationError): ...
