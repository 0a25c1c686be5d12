"""The pipeline: a module for each task of the DAG, with the task's name."""
