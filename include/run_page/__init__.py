"""The report in Airflow's UI: a tab on every run and a list of them, from Airflow's own records alone.

The API server that shows it may be on another machine than exports and target.
"""

from .app import app

__all__ = ["app"]
