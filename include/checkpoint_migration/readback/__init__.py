"""The last witness: a sample read back from the live tables through both of LangGraph's savers."""

from .equality import first_difference, same
from .read_back import ReadBack, read_back

__all__ = ["ReadBack", "first_difference", "read_back", "same"]
