"""Export: the threads of a shard, from the frozen source into one export file with its manifest."""
