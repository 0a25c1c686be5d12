"""What is for the night: more of the same that a whole Airflow takes ten seconds for each time."""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")

BY_NIGHT = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"


def by_night(*cases: T) -> tuple[T, ...]:
    """Further cases of a test by night; none by day, when others of it are tried."""
    return cases if BY_NIGHT else ()
