"""`report.json` and `report.html` appear whole under their names, private, or not at all."""

from __future__ import annotations

from pathlib import Path

from ..storage import FOLDER_MODE, atomic_file, storage_errors
from .page_facts import NO_FACTS, PageFacts
from .report_html import render_page
from .report_json import Report

JSON_NAME = "report.json"
HTML_NAME = "report.html"


def write_report(report: Report, folder: Path, facts: PageFacts = NO_FACTS) -> Path:
    """Write both files into `folder`, mode 0600; return the absolute path of `report.json`.

    The folder is made if it is missing. Each file is written under a temporary name, synced and
    renamed, the page first: where there is a new `report.json` there is its page. Raises
    `StorageRefused` where a link stands in a file's place, `StorageFull` where there is no room;
    what was there before then still is.
    """
    with storage_errors("making the report's folder", folder):
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    folder = folder.absolute()
    page = render_page(report, facts).encode("utf-8", "backslashreplace")
    for name, data in ((HTML_NAME, page), (JSON_NAME, report.to_json())):
        with atomic_file(folder / name) as file:
            file.write(data)
    return folder / JSON_NAME
