"""The pages' routes: who may see what, and under which policy a browser shows it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import get_user, requires_access_dag
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException

from include.checkpoint_migration import (
    policy,
    read_undo,
    render_notice,
    render_page,
    render_runs,
    render_undo,
)

from .listing import LISTED, list_runs
from .records import DAGS, UNDO, RunRecord, read_run
from .so_far import page_of

REFRESH_SECONDS = 5
HEADERS = {
    "Content-Security-Policy": f"{policy(live=True)}; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
TITLES = {
    401: "Log in to see this page",
    403: "You may not see this page",
    404: "There is no such migration",
}

# No schema and no documentation of the routes: they are pages for people.
app = FastAPI(title="Checkpoint migrations", docs_url=None, redoc_url=None, openapi_url=None)


@app.middleware("http")
async def with_policy(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    """Every answer has the policy, an error too."""
    response = await call_next(request)
    for name, value in HEADERS.items():
        response.headers[name] = value
    return response


@app.exception_handler(StarletteHTTPException)
async def told(_request: Request, error: StarletteHTTPException) -> HTMLResponse:
    """An error as a page: it may stand in a tab."""
    title = TITLES.get(error.status_code, "This page cannot be shown")
    page = render_notice(title, str(error.detail))
    return HTMLResponse(page, status_code=error.status_code, headers=error.headers)


@app.get("/", response_class=HTMLResponse)
def runs(user: Annotated[Any, Depends(get_user)], session: SessionDep) -> HTMLResponse:
    """The past migrations of the DAGs that the user may read."""
    readable = get_auth_manager().get_authorized_dag_ids(user=user, method="GET") & set(DAGS)
    lines, more = list_runs(session, readable, LISTED)
    return HTMLResponse(render_runs(lines, more=more))


@app.get(
    "/runs/{dag_id}/{run_id:path}",
    response_class=HTMLResponse,
    dependencies=[Depends(requires_access_dag(method="GET", access_entity=DagAccessEntity.XCOM))],
)
def run(dag_id: str, run_id: str, session: SessionDep) -> HTMLResponse:
    """The report of a run: so far while it goes on, final afterwards."""
    found = read_run(session, dag_id, run_id) if dag_id in DAGS else None
    if found is None:
        names = f"{', '.join(DAGS[:-1])} and {DAGS[-1]}"
        raise HTTPException(404, f"Only runs of {names} have a migration report.")
    refresh = REFRESH_SECONDS if found.goes_on else None
    return HTMLResponse(_undo(found, refresh) if dag_id == UNDO else _report(found, refresh))


def _report(run: RunRecord, refresh: int | None) -> str:
    summary = page_of(run)
    return render_page(summary.report, summary.facts, refresh_seconds=refresh, list_href="../../")


def _undo(run: RunRecord, refresh: int | None) -> str:
    asked = run.conf.get("run_id")
    return render_undo(
        read_undo(run.last_summary),
        run_id=run.run_id,
        asked=asked if isinstance(asked, str) else None,
        state=run.state,
        refresh_seconds=refresh,
        list_href="../../",
    )
