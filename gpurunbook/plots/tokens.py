"""The most likely next tokens, as bars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.lines import Line2D

from gpurunbook.plots.names import arm_name, made_by
from gpurunbook.plots.page import PALETTES, Chart, Palette, Result, Theme, bare, legend, page, written
from gpurunbook.tokens import visible

LABEL = 26
"""Characters of a token shown beside its bar; the rest is elided."""


def top10(result: Result, *, footer: str, path: Path | None = None, theme: Theme = "light") -> Chart:
    """Bars of the first arm's most likely tokens, in order, and one for all other tokens.

    The tick on a bar is the probability that the reference precision gives the same token.

    Args:
        result: what main.py printed.
        footer: provenance: model, device, target. One with the word REHEARSAL puts a badge on the chart too.
        path: where to write the PNG.
        theme: of the page around it.
    """
    colours, arm, top = PALETTES[theme], result["arms"][0], result["arms"][0]["top"]
    reference = next((a for a in result["arms"][1:] if a["precision"] == "reference"), None)
    rows = len(top) + 1
    figure, above = page(f"The {len(top)} most likely next tokens, {arm_name(arm)}", footer, colours, height=2.75 + 0.3 * rows,
                         made_by=made_by(result))
    bottom = 1.05 / figure.get_figheight()
    above = _chips(figure, [visible(t) for t in result["prompt_tokens"]], above, colours)
    ps = [t["p"] for t in top]
    rest = max(0.0, 1 - sum(ps))
    axes = figure.add_axes((0.25, bottom, 0.71, above - bottom))
    bare(axes, colours)
    widest = max(*ps, rest)
    axes.barh(range(rows), [*ps, rest], height=0.68, color=[colours.arms[0]] * len(top) + [colours.rest])
    axes.set_ylim(rows - 0.4, -0.6)
    axes.set_xlim(0, widest * 1.5)
    axes.set_xticks([])
    names = [_short(visible(t)) for t in top] + [f"{result['vocab_size'] - len(top):,} other tokens"]
    axes.set_yticks(range(rows), [""] * rows)
    ticks = {}
    if reference:
        ticks = {i: t.get("p_in", {}).get("reference") for i, t in enumerate(top)}
        if all(p is not None for p in ticks.values()):
            ticks[len(top)] = max(0.0, 1 - sum(ticks.values()))
    for i, p in enumerate([*ps, rest]):
        tick = ticks.get(i)
        axes.annotate(names[i], (0, i), (-8, 0), textcoords="offset points", ha="right", va="center",
                      color=colours.text, fontsize=11 if i < len(top) else 9.5, parse_math=False)
        if tick is not None:
            axes.plot([tick, tick], [i - 0.42, i + 0.42], color=colours.paper, linewidth=5, solid_capstyle="butt")
            axes.plot([tick, tick], [i - 0.42, i + 0.42], color=colours.arms[1], linewidth=2.6, solid_capstyle="butt")
        behind = tick is not None and p < tick < p + 0.16 * widest  # the tick stands where the number would
        axes.annotate(f"{p:.1%}", (tick if behind else p, i), (7, 0), textcoords="offset points", va="center",
                      color=colours.text, fontsize=10.5, fontweight="bold")
        if i < len(top):
            said = "" if tick is None else f"reference {tick:.1%}   "
            axes.text(1, i, f"{said}log p {top[i]['logp']:.2f}".replace("-", "−"), transform=axes.get_yaxis_transform(),
                      ha="right", va="center", color=colours.muted, fontsize=9)
    if reference:
        tick_mark = Line2D([], [], color=colours.arms[1], linewidth=2.6, marker="|", markersize=11, markeredgewidth=2.6,
                           linestyle="none", label=f"the same token, {arm_name(reference)}")
        legend(figure, [tick_mark], colours, y=0.83 / figure.get_figheight())
    figure.alt = describe_top10(result)
    return written(figure, path)


def describe_top10(result: Result) -> str:
    """The chart in words, for those who cannot see it."""
    arm = result["arms"][0]
    listed = ", ".join(f"“{visible(t)}” {t['p']:.1%}" for t in arm["top"])
    prompt = "".join(visible(t) for t in result["prompt_tokens"])
    return (f"Bar chart of the {len(arm['top'])} most likely next tokens after “{prompt}” in {arm_name(arm)}: {listed}; "
            f"all other tokens {max(0.0, 1 - arm['top_mass']):.1%}. A middle dot stands for a space.")


def _short(text: str) -> str:
    return text if len(text) <= LABEL else text[: LABEL - 1] + "…"


def _chips(figure: Chart, tokens: list[str], top: float, colours: Palette, lines: int = 3) -> float:
    """The prompt, one box for each token; of a long prompt only the end, which matters most. Returns the room left."""
    height = figure.get_figheight()
    chips = [_short(token) for token in tokens[-100:]]
    width = [_width(figure, chip) + 0.022 for chip in chips]
    rows = _wrapped(width, 0.92)
    if len(rows) > lines:  # filled from the end, so that the last row is full
        rows = [[len(chips) - 1 - i for i in row[::-1]] for row in _wrapped(width[::-1], 0.92)[:lines][::-1]]
    hidden = len(tokens) - sum(map(len, rows))
    label = f"after this prompt of {len(tokens)} token{'s' * (len(tokens) != 1)}"
    label += f", of which the last {len(tokens) - hidden} are shown" if hidden else ""
    figure.text(0.04, top, label, color=colours.muted, fontsize=9.5, va="center")
    y = top - 0.29 / height
    for row in rows:
        x = 0.044
        for i in row:
            last = i == len(chips) - 1
            figure.text(x + 0.004, y, chips[i], color=colours.text, fontsize=10.5, va="center", parse_math=False,
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


def _width(figure: Chart, text: str) -> float:
    """Width of a chip's text as a share of the figure's."""
    probe = figure.text(0, 0, text, fontsize=10.5, parse_math=False)
    extent = probe.get_window_extent()
    probe.remove()
    return float(extent.width / figure.bbox.width)
