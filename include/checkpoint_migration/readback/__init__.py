"""The last witness: a sample read back from the live tables through both of LangGraph's savers."""

from .same import first_difference, same
from .walk import ReadBack, read_back

__all__ = ["ReadBack", "first_difference", "read_back", "same"]
