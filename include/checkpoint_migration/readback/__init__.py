"""The last witness: a sample read back from the live tables through both of LangGraph's savers."""
