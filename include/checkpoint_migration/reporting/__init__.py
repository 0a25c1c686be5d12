"""What people and programs read after a run: `report.json`, `report.html`, a table for the log."""

from .build import (
    build_counts,
    build_differences,
    build_drift,
    build_error,
    build_moment,
    build_phases,
    build_report,
    build_source,
    build_threads,
    build_warnings,
    text_of,
    worded,
)
from .log import final_lines, log_lines
from .next_steps import next_steps
from .report_html import render_page
from .report_json import (
    BlobStages,
    ChangeFigures,
    DriftFigures,
    ErrorFacts,
    Phase,
    Report,
    RowCounts,
    SourceFacts,
    Stages,
    Statement,
    TargetFacts,
    ThreadLine,
    Threads,
    read_report,
)
from .sentence import Situation, counts_agree, counts_line, sentence
from .sql import statements
from .write import write_report

__all__ = [
    "BlobStages",
    "ChangeFigures",
    "DriftFigures",
    "ErrorFacts",
    "Phase",
    "Report",
    "RowCounts",
    "Situation",
    "SourceFacts",
    "Stages",
    "Statement",
    "TargetFacts",
    "ThreadLine",
    "Threads",
    "build_counts",
    "build_differences",
    "build_drift",
    "build_error",
    "build_moment",
    "build_phases",
    "build_report",
    "build_source",
    "build_threads",
    "build_warnings",
    "counts_agree",
    "counts_line",
    "final_lines",
    "log_lines",
    "next_steps",
    "read_report",
    "render_page",
    "sentence",
    "statements",
    "text_of",
    "worded",
    "write_report",
]
