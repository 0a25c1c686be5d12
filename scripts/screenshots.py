"""`make screenshots`: the README's pictures, taken in a real browser of real runs on the demo's databases.

A rehearsal and a migration of the sample are triggered through the form, before Airflow's API server,
scheduler and DAG processor; the form, the grid and the report are kept in `docs/pictures/`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts import demo, demo_airflow, demo_sample, postgres_server  # noqa: E402
from scripts.browser import Browser, chromium  # noqa: E402

PICTURES = ROOT / "docs" / "pictures"
REHEARSAL = "rehearse_checkpoints"
EXAMPLE = "/data/checkpoints.sqlite"  # in the picture: where the sample lies is nobody's business
RUNS_FOR = 600.0  # seconds that a run may take
SIZE = {"width": 1200, "height": 760}
REPORT_HEIGHT = 1240  # so that the report's tab shows the verdict, what to do and the counts


def take(browser: Browser, source: Path) -> None:
    """Go the way of a first migration, and keep what the README shows of it."""
    triggered(browser, REHEARSAL, source)
    browser.press("Migration report", "a")
    concluded(browser)
    browser.go(f"/dags/{demo.DAG}")
    browser.find("[data-testid=trigger-dag-button]").click()
    browser.fill("input[name=element_source]", EXAMPLE)
    browser.until(browser.find("[data-testid=trigger-dag-submit]").is_enabled, "it stays disabled")
    browser.picture("form")
    browser.fill("input[name=element_source]", str(source))
    browser.press_when_enabled("[data-testid=trigger-dag-submit]")
    run = browser.until(lambda: "/runs/" in browser.path and browser.path, "no run is shown")
    browser.press("Migration report", "a")
    concluded(browser)
    browser.resize(SIZE["width"], REPORT_HEIGHT)
    browser.picture("report")
    browser.resize(**SIZE)
    browser.go(run)
    browser.find("[data-testid=expand-all-button]").click()
    browser.see("verify_staged")
    browser.picture("grid")


def triggered(browser: Browser, dag: str, source: Path) -> None:
    browser.go(f"/dags/{dag}")
    browser.find("[data-testid=trigger-dag-button]").click()
    browser.fill("input[name=element_source]", str(source))
    browser.press_when_enabled("[data-testid=trigger-dag-submit]")
    browser.until(lambda: "/runs/" in browser.path, "no run is shown")


def concluded(browser: Browser) -> None:
    with browser.inside():
        browser.see("Verdict\nidentical", RUNS_FOR)


def main() -> int:
    folder = postgres_server.demo_folder()
    started = postgres_server.status(folder) is None
    server = postgres_server.start(folder)
    try:
        demo.make_database(server, reset=True)
        source = demo_sample.write_sample(demo.sample_path())
        env = demo_airflow.environment(server, demo_airflow.free_port())
        login = demo_airflow.password()
        listed = [ROOT / "scripts" / "airflow", "pools", "list"]
        subprocess.run(listed, env=env, check=True, stdout=subprocess.DEVNULL)
        airflow = demo_airflow.Airflow(env, demo.home() / "logs" / "screenshots")
        url = env["AIRFLOW__API__BASE_URL"]
        try:
            airflow.start()
            demo_airflow.wait_until_ready(airflow, url, login)
            with chromium(url, PICTURES, **SIZE) as browser:
                browser.log_in(login)
                take(browser, source)
        finally:
            airflow.stop()
    finally:
        if started:
            postgres_server.stop(folder)
    for picture in sorted(PICTURES.glob("*.png")):
        print(f"{picture.relative_to(ROOT)}: {picture.stat().st_size >> 10} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
