"""The tab *Migration report* on every run, and the list of past migrations in the navigation."""

from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

PREFIX = "/checkpoint-migrations"


async def pages(scope: Any, receive: Any, send: Any) -> None:
    """The pages, imported at the first request: every process of Airflow loads plugins, tasks too."""
    from include.run_page import app

    await app(scope, receive, send)


class MigrationReport(AirflowPlugin):
    """Where the pages are, and where Airflow's UI shows them."""

    name = "checkpoint_migration"
    fastapi_apps: ClassVar = [{"app": pages, "url_prefix": PREFIX, "name": "Checkpoint migrations"}]
    external_views: ClassVar = [
        {
            "name": "Migration report",
            "href": f"{PREFIX[1:]}/runs/{{DAG_ID}}/{{RUN_ID}}",
            "destination": "dag_run",
            "url_route": "migration-report",
        },
        {
            "name": "Checkpoint migrations",
            "href": f"{PREFIX[1:]}/",
            "destination": "nav",
            "category": "browse",
            "url_route": "checkpoint-migrations",
        },
    ]
