"""What is safe once promote may have committed: no error may say then that live is as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import AS_PROMOTE_LEFT_IT, UNTOUCHED, MigrationError
from ..settings import Settings


@contextmanager
def after_promote(
    settings: Settings, has_committed: Callable[[], bool] = lambda: True
) -> Iterator[None]:
    """Reword what is safe in an error of the block that knows nothing of promote.

    A rehearsal's promote writes nothing to the live tables.
    """
    try:
        yield
    except MigrationError as error:
        if error.safe == UNTOUCHED and not settings.rehearsal and has_committed():
            error.safe = AS_PROMOTE_LEFT_IT
        raise
