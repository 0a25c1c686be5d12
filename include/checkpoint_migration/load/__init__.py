"""Import up to staging: batches of export files copied into the run's own schema, each once."""
