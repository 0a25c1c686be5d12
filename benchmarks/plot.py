"""Cost against size as a picture: microseconds for each checkpoint, by stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pygal

STAGES = ("export", "load", "verify", "promote", "witness")


def draw(found: list[dict[str, Any]], path: Path) -> None:
    """Draw what one worker took for a checkpoint at each size; the loop beside it."""
    chart = pygal.StackedBar(
        title="Microseconds for a checkpoint, one worker, by size of the database",
        legend_at_bottom=True,
        legend_at_bottom_columns=len(STAGES),
        width=900,
        height=420,
        js=(),  # nothing of it is fetched
        print_values=True,
        value_formatter=lambda value: f"{value:,.0f}" if value else "",
    )
    labels = [f"{of_size['checkpoints']:,}" for of_size in found]
    chart.x_labels = [*labels, "the loop"]
    for stage in STAGES:
        values = [
            of_size["workers_1"][stage]["seconds"] / of_size["checkpoints"] * 1e6
            for of_size in found
        ]
        chart.add(stage, [*values, None])
    loop = min(1e6 / of_size["loop_rate"] for of_size in found)
    chart.add("the savers' loop", [None] * len(found) + [loop])
    path.write_bytes(chart.render(disable_xml_declaration=True).encode())
