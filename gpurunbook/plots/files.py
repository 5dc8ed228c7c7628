"""A chart as files: NAME.png and NAME.svg for a light page, NAME.dark.png and NAME.dark.svg, what is drawn as NAME.csv and
NAME.chart.json (NAME.json may be the measurement itself).
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

from gpurunbook import show
from gpurunbook.files import whole
from gpurunbook.plots.page import OURS, Chart, Theme

Row = dict[str, Any]
FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")
"""A spreadsheet takes a text that begins so for a formula, or (the last) drops it."""
COMMENT = re.compile("<!--.*?-->\n? *", re.DOTALL)
"""matplotlib repeats each text in a comment; it escapes what would end one."""


def kept(draw: Callable[[Theme], Chart], path: Path, theme: Theme, rows: Sequence[Row], about: Row | None = None) -> Chart:
    """Write the chart's files beside `path`, and return the chart in `theme`.

    Args:
        draw: draws it in a theme.
        path: of the PNG for a light page; the others differ in what follows its stem.
        rows: what is drawn, one row for each mark, all with the same columns.
        about: what the JSON has beside the rows.

    Raises:
        RunbookError: a file cannot be written.
    """
    drawn = {one: draw(one) for one in ("light", "dark")}
    for one, ending in (("light", ""), ("dark", ".dark")):
        whole(path.with_name(f"{path.stem}{ending}.png"), drawn[one].png())
        whole(path.with_name(f"{path.stem}{ending}.svg"), svg(drawn[one]).encode())
    whole(path.with_suffix(".csv"), to_csv(rows).encode())
    said = json.dumps({"alt": drawn[theme].alt, **(about or {}), "rows": list(rows)}, indent=1, ensure_ascii=False)
    whole(path.with_name(f"{path.stem}.chart.json"), (show.clean(said) + "\n").encode())
    return drawn[theme]


def svg(chart: Chart) -> str:
    """The chart as SVG: letters are outlines, so no text of it can be markup; its description is a <desc>."""
    buffer = io.StringIO()
    with matplotlib.rc_context(OURS):
        chart.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    drawn = COMMENT.sub("", buffer.getvalue())
    start = drawn.index(">", drawn.index("<svg")) + 1
    opening = drawn[drawn.index("<svg"):start].replace("<svg", '<svg role="img" aria-labelledby="title desc"', 1)
    name, _, rest = chart.alt.partition(": ")
    told = (f'\n <title id="title">{html.escape(show.clean(name))}</title>'
            f'\n <desc id="desc">{html.escape(show.clean(rest.strip() or name))}</desc>')
    return f'<?xml version="1.0" encoding="utf-8"?>\n{opening}{told}{drawn[start:]}'


def to_csv(rows: Sequence[Row]) -> str:
    """Rows with a header line. Text that a spreadsheet would take for a formula gets an apostrophe before it."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(rows[0] if rows else [])
    writer.writerows([plain(cell) for cell in row.values()] for row in rows)
    return buffer.getvalue()


def plain(cell: Any) -> Any:
    """A cell of a CSV file that no spreadsheet runs: `=1+1` becomes `'=1+1`; numbers stay numbers."""
    if not isinstance(cell, str):
        return cell
    text = show.clean(cell)
    return f"'{text}" if text.startswith(FORMULA) else text
