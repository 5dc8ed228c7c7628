"""A prompt as chips: one box for each token."""

from __future__ import annotations

from collections.abc import Sequence

from gpurunbook.plots.page import Chart, Palette

LABEL = 26
"""Characters of a token that are shown; the rest is elided."""


def short(text: str) -> str:
    return text if len(text) <= LABEL else text[: LABEL - 1] + "…"


def fitting(figure: Chart, text: str, room: float) -> str:
    """As much of the start of a token as is no wider than `room`, a share of the figure's width."""
    shown = short(text)
    while len(shown) > 2 and _width(figure, shown, 11) > room:
        shown = shown.removesuffix("…")[:-1] + "…"
    return shown


def chips(figure: Chart, tokens: list[str], top: float, colours: Palette, lines: int = 3) -> float:
    """The prompt, one box for each token; of a long prompt only the end, which matters most. Returns the room left."""
    height = figure.get_figheight()
    shown = [short(token) for token in tokens[-100:]]
    width = [_width(figure, chip) + 0.022 for chip in shown]
    rows = _wrapped(width, 0.92)
    if len(rows) > lines:  # filled from the end, so that the last row is full
        rows = [[len(shown) - 1 - i for i in row[::-1]] for row in _wrapped(width[::-1], 0.92)[:lines][::-1]]
    hidden = len(tokens) - sum(map(len, rows))
    label = f"after this prompt of {len(tokens)} token{'s' * (len(tokens) != 1)}"
    label += f", of which the last {len(tokens) - hidden} are shown" if hidden else ""
    figure.text(0.04, top, label, color=colours.muted, fontsize=9.5, va="center")
    y = top - 0.29 / height
    for row in rows:
        x = 0.044
        for i in row:
            last = i == len(shown) - 1
            figure.text(x + 0.004, y, shown[i], color=colours.text, fontsize=10.5, va="center", parse_math=False,
                        bbox={"boxstyle": "round,pad=0.28", "facecolor": colours.chip,
                              "edgecolor": colours.arms[0] if last else "none", "linewidth": 1.2})
            x += width[i]
        y -= 0.3 / height
    return y + 0.06 / height


def _wrapped(widths: Sequence[float], room: float) -> list[list[int]]:
    """Indices of what goes on each row, filled in order."""
    rows: list[list[int]] = [[]]
    left = room
    for i, width in enumerate(widths):
        if width > left and rows[-1]:
            rows.append([])
            left = room
        rows[-1].append(i)
        left -= width
    return rows


def _width(figure: Chart, text: str, size: float = 10.5) -> float:
    """Width of a text, of a chip's size or another, as a share of the figure's."""
    probe = figure.text(0, 0, text, fontsize=size, parse_math=False)
    extent = probe.get_window_extent()
    probe.remove()
    return float(extent.width / figure.bbox.width)
