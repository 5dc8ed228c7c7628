"""How long each rung of the ladder took, as bars in time."""

from __future__ import annotations

import textwrap
from datetime import datetime
from pathlib import Path

import matplotlib

from gpurunbook.plots.files import kept
from gpurunbook.plots.page import OURS, PALETTES, Chart, Theme, bare, page
from gpurunbook.readiness.durations import Duration, durations
from gpurunbook.readiness.rungs import BY_NAME, Ladder, NodeLadder
from gpurunbook.times import took


def rungs(ladder: Ladder, *, footer: str, path: Path | None = None, theme: Theme = "light") -> Chart:
    """What each rung took, one after the other, of the node that was last: see readiness.durations.

    Rungs of which nothing tells when they were done are left out, and said below the chart.

    Args:
        ladder: as gpurunbook.readiness made it; its steps that are done and have a time are drawn.
        footer, path, theme: as for the other charts.
    """
    if path:
        slowest, bars = _slowest(ladder)
        rows = [{"node": slowest.node if slowest else "", "rung": BY_NAME[name].title, "start": start, "seconds": seconds}
                for name, start, seconds in bars]
        return kept(lambda one: _rungs(ladder, footer, one), path, theme, rows, {"footer": footer})
    return _rungs(ladder, footer, theme)


def _slowest(ladder: Ladder) -> tuple[NodeLadder | None, list[Duration]]:
    """The node that was last, and its bars."""
    slowest = max(ladder.nodes, key=lambda n: max((t for _, t in timed(n)), default=datetime.min), default=None)
    return slowest, durations(timed(slowest), dict(ladder.commands)) if slowest else []


@matplotlib.rc_context(OURS)
def _rungs(ladder: Ladder, footer: str, theme: Theme) -> Chart:
    colours = PALETTES[theme]
    slowest, bars = _slowest(ladder)
    said = _said(ladder, slowest, bars)
    height = 2.1 + 0.16 * len(said) + 0.34 * max(len(bars), 1)
    others = f", the slowest of {len(ladder.nodes)} GPU nodes" if len(ladder.nodes) > 1 else ""
    figure, above = page("From the node to the GPU, rung by rung", footer, colours, height=height)
    figure.text(0.04, above, f"{slowest.node if slowest else 'no GPU node'}{others}", color=colours.muted, fontsize=9.5,
                va="center", parse_math=False)
    bottom = (0.85 + 0.16 * len(said)) / height
    axes = figure.add_axes((0.265, bottom, 0.695, above - bottom - 0.4 / height))
    bare(axes, colours)
    total = max((start + seconds for _, start, seconds in bars), default=1.0) or 1.0
    axes.set_xlim(0, total * 1.42)
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= total * 1.05])  # none under the column at the right
    axes.set_ylim(len(bars) - 0.4, -0.6)
    clear = {"facecolor": colours.paper, "edgecolor": "none", "pad": 1.2}  # no line of the grid runs through a figure
    for i, (name, start, seconds) in enumerate(bars):
        axes.barh(i, max(seconds, total * 0.003), left=start, height=0.62, color=colours.arms[0])
        axes.annotate(took(seconds), (start + seconds, i), (6, 0), textcoords="offset points", va="center",
                      color=colours.text, fontsize=9.5, fontweight="bold", bbox=clear)
        axes.text(1, i, "{:g} to {:g} s".format(*BY_NAME[name].usual), transform=axes.get_yaxis_transform(), ha="right",
                  va="center", color=colours.muted, fontsize=9, bbox=clear)
    axes.text(1, -0.75, "usually, on AWS", transform=axes.get_yaxis_transform(), ha="right", va="bottom", color=colours.muted,
              fontsize=9)
    axes.set_yticks(range(len(bars)), [BY_NAME[name].title for name, _, _ in bars], color=colours.text, fontsize=10)
    axes.grid(axis="x", color=colours.grid, linewidth=0.8)
    axes.set_xlabel("\n".join(said), color=colours.muted, fontsize=9, linespacing=1.4)
    figure.alt = "Time per rung: " + "; ".join(f"{BY_NAME[n].title} {took(s)}" for n, _, s in bars) + "."
    return figure


def _said(ladder: Ladder, node: NodeLadder | None, bars: list[Duration]) -> list[str]:
    """The lines below the axis."""
    asked = {rung for rung, _ in ladder.commands} & {bar.rung for bar in bars}
    untold = [BY_NAME[step.rung].title for step in node.steps if step.state == "done" and step.since is None] if node else []
    return ["seconds, rung after rung" + ("; a rung that waits for your command, from the command on" if asked else ""),
            "the API tells most times in whole seconds, so a bar may be off by one",
            *textwrap.wrap(f"not timed: {', '.join(untold)}" if untold else "", 90)]


def timed(node: NodeLadder) -> list[tuple[str, datetime]]:
    """(rung, when it was done) of the rungs that are done and whose time is known."""
    return [(step.rung, step.since) for step in node.steps if step.state == "done" and step.since]
