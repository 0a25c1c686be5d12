"""Long texts as short lines of a log, because what is longer is cut or folded where people read it."""

from __future__ import annotations

import textwrap

COLUMNS = 90


def folded(
    text: str, label: str = "", *, inside: int | None = None, columns: int = COLUMNS
) -> list[str]:
    """A text behind its label, as lines; those after the first are set in, below the text.

    No word is broken: a path stays whole, however long.
    """
    return textwrap.wrap(
        label + text,
        columns,
        subsequent_indent=" " * (max(2, len(label)) if inside is None else inside),
        break_long_words=False,
        break_on_hyphens=False,
    ) or [label.rstrip()]
