"""The most likely next tokens, as bars."""

from __future__ import annotations

import json
import math
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gpurunbook.plots.chips import chips, fitting, short
from gpurunbook.plots.files import Row, kept
from gpurunbook.plots.names import made_by, reference_of
from gpurunbook.plots.page import OURS, PALETTES, Chart, Palette, Result, Theme, bare, legend, page
from gpurunbook.prediction import arm_name, percent
from gpurunbook.tokens import visible

BARS = 40
"""Tokens that are drawn; the CSV has them all."""
ROW = 0.3
"""Inches of a bar with its gap."""


def top10(result: Result, *, footer: str, path: Path | None = None, theme: Theme = "light") -> Chart:
    """Bars of the first arm's most likely tokens, in order, and one for all other tokens.

    The tick on a bar is the probability that the reference precision gives the same token.

    Args:
        result: what main.py printed.
        footer: provenance: model, device, target. One with the word REHEARSAL puts a badge on the chart too.
        path: where to write the PNG; the other files lie beside it, see gpurunbook.plots.files.
        theme: of the page around it.
    """
    if path:
        return kept(lambda one: _top10(result, footer, one), path, theme, token_rows(result), {"footer": footer})
    return _top10(result, footer, theme)


@matplotlib.rc_context(OURS)
def _top10(result: Result, footer: str, theme: Theme) -> Chart:
    colours, arm, reference = PALETTES[theme], result["arms"][0], reference_of(result)
    top = arm["top"][:BARS]
    rows = len(top) + 1
    height = 3.05 + ROW * rows
    figure, above = page(f"The {len(top)} most likely next tokens, {arm_name(arm)}", footer, colours, height=height,
                         made_by=made_by(result))
    above = chips(figure, [visible(t) for t in result["prompt_tokens"]], above, colours) - 0.2 / height
    bottom = (1.05 if reference else 0.7) / height
    axes = figure.add_axes((0.25, bottom, 0.71, above - bottom))
    bare(axes, colours)
    ps = [t["p"] for t in top]
    ps.append(max(0.0, 1 - sum(ps)))
    widest = max(ps)
    axes.barh(range(rows), ps, height=0.68, color=[colours.arms[0]] * len(top) + [colours.rest])
    axes.set_ylim(rows - 0.4, -0.6)
    axes.set_xlim(0, widest * 1.76)
    axes.set_xticks([])
    names = [fitting(figure, visible(t), 0.195) for t in top] + [f"{result['vocab_size'] - len(top):,} other tokens"]
    axes.set_yticks(range(rows), [""] * rows)
    ticks = _ticks(top)
    for i, p in enumerate(ps):
        axes.annotate(names[i], (0, i), (-8, 0), textcoords="offset points", ha="right", va="center",
                      color=colours.text, fontsize=11 if i < len(top) else 9.5, parse_math=False)
        tick = ticks[i]
        if tick is not None:
            for colour, width in ((colours.paper, 5.0), (colours.arms[1], 2.6)):
                axes.plot([tick, tick], [i - 0.42, i + 0.42], color=colour, linewidth=width, solid_capstyle="butt")
        behind = tick is not None and p < tick < p + 0.16 * widest  # the tick stands where the number would
        axes.annotate(percent(p), (tick if behind and tick else p, i), (7, 0), textcoords="offset points", va="center",
                      color=colours.text, fontsize=10.5, fontweight="bold")
        _figures(axes, i, [f"{top[i]['logp']:.2f}" if i < len(top) else "", "" if tick is None else percent(tick),
                           _cost(top[i]) if i < len(top) else ""], colours.muted)
    _figures(axes, -0.85, ["log p", *(["reference", "Δ log p"] if reference else [])], colours.muted)
    if reference:
        mark = Line2D([], [], color=colours.arms[1], linewidth=2.6, marker="|", markersize=11, markeredgewidth=2.6,
                      linestyle="none", label=f"{arm_name(reference)}: the same token; Δ log p in nats")
        legend(figure, [mark], colours, y=0.85 / height)
        _said(figure, result, colours, 0.85 / height)
    figure.alt = describe_top10(result)
    return figure


def _figures(axes: Axes, row: float, cells: list[str], colour: str) -> None:
    """Up to three columns at the right edge, the last of them for what quantisation costs."""
    for x, cell in zip((0.775, 0.9, 1.0), cells, strict=False):
        axes.text(x, row, cell.replace("-", "−"), transform=axes.get_yaxis_transform(), ha="right", va="center",
                  color=colour, fontsize=9)


def _ticks(top: list[Row]) -> list[float | None]:
    """What the reference gives each token, and all others together; None where that is not known."""
    ticks: list[float | None] = [t.get("p_in", {}).get("reference") for t in top]
    known = [p for p in ticks if p is not None]
    return [*ticks, max(0.0, 1 - sum(known)) if len(known) == len(ticks) else None]


def cost(token: Row) -> float | None:
    """log p of a token less that in the reference precision, in nats; None where it is not known."""
    p = token.get("p_in", {}).get("reference")
    return token["logp"] - math.log(p) if p else None


def _cost(token: Row) -> str:
    return "" if (d := cost(token)) is None else f"{d:+.2f}"


def winner(result: Result) -> str:
    """What the reference says of the first place: another token, or the same. "" without a reference."""
    reference = reference_of(result)
    if not reference:
        return ""
    first = reference["top"][0]
    if first["id"] == result["arms"][0]["top"][0]["id"]:
        return "the reference puts the same token first"
    return f"the reference puts another token first: {short(visible(first))}"


def _said(figure: Chart, result: Result, colours: Palette, y: float) -> None:
    figure.text(0.96, y, winner(result), color=colours.text, fontsize=9.5, ha="right", va="center", parse_math=False)


def token_rows(result: Result) -> list[Row]:
    """A row for each token of the first arm: probabilities, log p in nats, and `text` as JSON, which hides nothing."""
    return [{"rank": i, "id": t["id"], "token": visible(t), "text": json.dumps(t["text"]), "p": t["p"], "logp": t["logp"],
             "p_reference": t.get("p_in", {}).get("reference"), "delta_logp": cost(t)}
            for i, t in enumerate(result["arms"][0]["top"], 1)]


def describe_top10(result: Result) -> str:
    """The chart in words, for those who cannot see it."""
    arm = result["arms"][0]
    top = arm["top"][:BARS]
    listed = ", ".join(f"“{visible(t)}” {percent(t['p'])}" for t in top)
    prompt = "".join(visible(t) for t in result["prompt_tokens"][-100:])
    differs = f" In {arm_name(reference)}, {winner(result)}." if (reference := reference_of(result)) else ""
    return (f"Bar chart of the {len(top)} most likely next tokens after “{prompt}” in {arm_name(arm)}: {listed}; "
            f"all other tokens {percent(max(0.0, 1 - sum(t['p'] for t in top)))}.{differs} A middle dot stands for a space.")
