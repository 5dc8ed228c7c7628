"""How probability is spread over the whole vocabulary: mass over rank, the top-p cut, temperatures, entropy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from gpurunbook.distribution import Spread, divergence, measure, probabilities, read_all
from gpurunbook.plots.chips import chips
from gpurunbook.plots.files import Row, kept
from gpurunbook.plots.names import made_by, reference_of
from gpurunbook.plots.page import OURS, PALETTES, Chart, Palette, Result, Theme, bare, page
from gpurunbook.prediction import arm_name, percent
from gpurunbook.tokens import visible

TOP_P = 0.9
TEMPERATURES = (0.7, 1.0, 1.3)
DASHES: tuple[Literal["--", "-", ":"], ...] = ("--", "-", ":")
POINTS = 120
"""Ranks that are drawn and kept of each curve, evenly spread on a logarithmic axis."""

DEFINED = "margin: the first token's probability minus the second's; choices: 2 to the power of the entropy"

Curves = dict[float, NDArray[np.float64]]
"""Temperature -> probabilities, most likely first."""


def spread(result: Result, logits: Mapping[str, Path], *, footer: str, path: Path | None = None,
           theme: Theme = "light") -> Chart:
    """Cumulative mass over rank, of the first arm and the reference, at three temperatures, with the top-p cut of each.

    Args:
        result: what main.py printed.
        logits: precision -> file of all its logits, as next_token.fetch returns them.
        footer, path, theme: as for `top10`.

    Raises:
        RunbookError: a file of logits is absent or broken.
    """
    arms = [result["arms"][0], *([reference] if (reference := reference_of(result)) else [])]
    raw = read_all({arm["precision"]: logits[arm["precision"]] for arm in arms})
    curves = [{t: np.sort(probabilities(raw[arm["precision"]], t))[::-1] for t in TEMPERATURES} for arm in arms]
    apart = divergence(*(probabilities(raw[arm["precision"]]) for arm in arms[::-1])) if len(arms) > 1 else None
    if path:
        return kept(lambda one: _draw(result, arms, curves, apart, footer, one), path, theme, _rows(arms, curves),
                    {"footer": footer, "top_p": TOP_P, "divergence_bits": apart, "spread": _table(arms, curves)})
    return _draw(result, arms, curves, apart, footer, theme)


@matplotlib.rc_context(OURS)
def _draw(result: Result, arms: list[Result], curves: list[Curves], apart: float | None, footer: str, theme: Theme) -> Chart:
    colours, height = PALETTES[theme], 5.6 + 0.24 * len(arms) * len(TEMPERATURES)
    figure, above = page("How sure the model is: all probability, by rank", footer, colours, height=height,
                         made_by=made_by(result))
    above = chips(figure, [visible(t) for t in result["prompt_tokens"]], above, colours, lines=1)
    table = (1.45 + 0.24 * len(arms) * len(TEMPERATURES)) / height
    bottom = table + 0.62 / height
    wide = (0.87 - 0.035 * (len(arms) - 1)) / len(arms)
    for i, (arm, curve) in enumerate(zip(arms, curves, strict=True)):
        axes = figure.add_axes((0.09 + i * (wide + 0.035), bottom, wide, above - bottom - 0.32 / height))
        bare(axes, colours)
        _panel(axes, curve, colours, colours.arms[i])
        axes.set_title(arm_name(arm), loc="left", color=colours.text, fontsize=10.5, fontweight="bold", parse_math=False)
        if i:
            axes.set_yticklabels([])
    _figures(figure, arms, curves, apart, colours, table, height)
    figure.alt = _describe(arms, curves, apart)
    return figure


def _panel(axes: Axes, curves: Curves, colours: Palette, colour: str) -> None:
    size = len(curves[1.0])
    axes.axhline(100 * TOP_P, color=colours.muted, linewidth=1)
    for (temperature, p), dash in zip(curves.items(), DASHES, strict=True):
        ranks, cut = _ranks(size), measure(p, TOP_P).kept
        mass = np.cumsum(p)
        axes.plot(ranks, 100 * mass[ranks - 1], dash, color=colour, linewidth=2.4 if temperature == 1 else 1.6)
        axes.plot([cut, cut], [0, 100 * mass[cut - 1]], dash, color=colour, linewidth=0.9, alpha=0.75)
        axes.plot([cut], [100 * mass[cut - 1]], "o", color=colour, markeredgecolor=colours.paper, markersize=7)
    axes.set_xscale("log")
    axes.set_xlim(1, size)
    axes.set_ylim(0, 103)
    decades = [10**k for k in range(8) if 10**k <= size]
    axes.set_xticks(decades, [f"{decade:,}" for decade in decades])
    axes.minorticks_off()
    axes.set_yticks(range(0, 101, 25), [f"{share}%" for share in range(0, 101, 25)])
    axes.grid(color=colours.grid, linewidth=0.8)
    axes.text(0.012, 100 * TOP_P + 1, f"top-p {TOP_P:g}", transform=axes.get_yaxis_transform(), color=colours.muted, fontsize=9,
              va="bottom")
    axes.set_xlabel("number of tokens, the most likely first", color=colours.muted, fontsize=9)
    axes.tick_params(labelsize=9)


def _figures(figure: Chart, arms: list[Result], curves: list[Curves], apart: float | None, colours: Palette, top: float,
             height: float) -> None:
    """The table below the curves."""
    columns = ((0.04, "left", ""), (0.43, "right", "temperature"), (0.57, "right", "entropy, bits"),
               (0.72, "right", "choices, 2ᴴ"), (0.84, "right", "margin"), (0.96, "right", f"in top-p {TOP_P:g}"))
    for x, side, title in columns:
        figure.text(x, top, title, ha=side, va="center", color=colours.muted, fontsize=9)
    rows = _table(arms, curves)
    for i, row in enumerate(rows):
        y = top - 0.24 * (i + 1) / height
        arm, t = divmod(i, len(TEMPERATURES))
        bold = "bold" if row["temperature"] == 1 else "normal"
        cells = (row["arm"] if t == 0 else "", f"{row['temperature']:g}", f"{row['entropy_bits']:.2f}", f"{row['choices']:,.0f}",
                 percent(row["margin"]), f"{row['kept']:,}")
        for (x, side, _), cell in zip(columns, cells, strict=True):
            figure.text(x, y, cell, ha=side, va="center", color=colours.text, fontsize=9.5, parse_math=False,
                        fontweight="bold" if x == columns[0][0] else bold)
        # A piece of the curve, so that the table is the legend too.
        figure.add_artist(Line2D([0.275, 0.325], [y, y], color=colours.arms[arm], linestyle=DASHES[t],
                                 linewidth=2.4 if row["temperature"] == 1 else 1.6))
    if apart is not None:
        figure.text(0.04, 1.06 / height, f"{arm_name(arms[0])} differs from {arm_name(arms[1])} by {apart:.2f} bits "
                    "(Kullback-Leibler)", color=colours.text, fontsize=9.5, va="center", parse_math=False)
    figure.text(0.04, 0.82 / height, DEFINED, color=colours.muted, fontsize=9, va="center", parse_math=False)


def _ranks(size: int) -> NDArray[np.int64]:
    return np.unique(np.geomspace(1, size, POINTS).round().astype(np.int64))


def _table(arms: list[Result], curves: list[Curves]) -> list[Row]:
    found: list[tuple[str, float, Spread]] = [(arm_name(arm), t, measure(p, TOP_P))
                                              for arm, curve in zip(arms, curves, strict=True) for t, p in curve.items()]
    return [{"arm": arm, "temperature": t, **vars(s)} for arm, t, s in found]


def _rows(arms: list[Result], curves: list[Curves]) -> list[Row]:
    """A row for each rank that is drawn of each curve."""
    return [{"arm": arm_name(arm), "temperature": t, "rank": int(rank), "p": float(p[rank - 1]),
             "cumulative": float(mass[rank - 1])}
            for arm, curve in zip(arms, curves, strict=True) for t, p in curve.items()
            for mass in [np.cumsum(p)] for rank in _ranks(len(p))]


def _describe(arms: list[Result], curves: list[Curves], apart: float | None) -> str:
    told = []
    for arm, curve in zip(arms, curves, strict=True):
        low, s, high = (measure(p, TOP_P) for p in curve.values())
        told.append(f"{arm_name(arm)} has an entropy of {s.entropy_bits:.2f} bits, as of {s.choices:,.0f} equal choices, a "
                    f"margin of {percent(s.margin)} between the first two tokens, and {s.kept:,} of {len(curve[1.0]):,} tokens "
                    f"within top-p {TOP_P:g} ({low.kept:,} at temperature {TEMPERATURES[0]:g}, {high.kept:,} at "
                    f"{TEMPERATURES[2]:g})")
    differ = f" They differ by {apart:.2f} bits (Kullback-Leibler)." if apart is not None else ""
    return f"Cumulative probability over rank: {'; '.join(told)}.{differ}"
