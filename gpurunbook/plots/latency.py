"""Every sample of a measurement, in order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpurunbook.plots.names import arm_name, made_by
from gpurunbook.plots.page import PALETTES, Chart, Result, Theme, bare, legend, page, written
from gpurunbook.stages.latency import summary


def latency(result: Result, *, footer: str, path: Path | None = None, theme: Theme = "light") -> Chart:
    """Every sample of every arm in the order measured, with p50, p95 and p99.

    Samples over four times the largest median are arrows at the top; the legend says how many and how large.
    """
    colours, arms = PALETTES[theme], result["arms"]
    count, height = len(arms[0]["samples_ms"]), 5.6
    figure, above = page(f"Full forward pass of {len(result['prompt_tokens'])} tokens, {count} times", footer, colours,
                         height=height, made_by=made_by(result))
    figure.text(0.04, above, f"after {arms[0]['warm_up']} warm-up passes of each precision; they take turns (ABBA), so "
                "that a drift of the machine hits all alike", color=colours.muted, fontsize=9.5, va="center")
    bottom = (1.25 + 0.22 * len(arms)) / height
    axes = figure.add_axes((0.085, bottom, 0.735, above - bottom - 0.3 / height))
    bare(axes, colours)
    axes.grid(axis="y", color=colours.grid, linewidth=0.8)
    stats = [summary(arm["samples_ms"]) for arm in arms]
    top = min(max(max(arm["samples_ms"]) for arm in arms), 4 * max(s["p50"] for s in stats)) * 1.06
    labels: list[tuple[float, str, str]] = []
    for arm, s, colour, marker, sign in zip(arms, stats, colours.arms, "os^Dv*", "●■▲◆▼★", strict=False):
        x, y = np.arange(1, count + 1), np.asarray(arm["samples_ms"], dtype=np.float64)
        beyond = y > top
        over = f"; {beyond.sum()} above the chart, up to {y.max():.0f} ms" if beyond.any() else ""
        axes.plot(x, np.minimum(y, top), color=colour, linewidth=0.7, alpha=0.55)
        axes.plot(x[~beyond], y[~beyond], marker, color=colour, markersize=3.4, label=f"{arm_name(arm)}: {_say(s)}{over}")
        axes.plot(x[beyond], np.full(beyond.sum(), top), "^", color=colour, markersize=7, clip_on=False)
        for key, dash in [("p50", "-"), ("p95", "--"), ("p99", ":")]:
            if s[key] <= top:
                axes.axhline(s[key], color=colour, linestyle=dash, linewidth=1.3)
                labels.append((s[key], f"{sign} {key} {s[key]:.1f} ms", colour))
    axes.set_xlim(0, count + 1)
    axes.set_ylim(0, top)
    axes.set_xlabel("repetition, in the order measured", color=colours.muted, fontsize=9.5)
    axes.set_ylabel("milliseconds", color=colours.muted, fontsize=9.5)
    apart = _apart([value for value, _, _ in labels], top * 0.055)
    for (value, text, colour), beside in zip(labels, apart, strict=True):
        axes.annotate(text, (1, value), (1.025, beside), xycoords=axes.get_yaxis_transform(), va="center",
                      color=colours.text, textcoords=axes.get_yaxis_transform(), fontsize=9,
                      arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 1, "shrinkA": 1, "shrinkB": 0})
    legend(figure, axes.get_legend_handles_labels()[0], colours, y=(0.62 + 0.11 * len(arms)) / height)
    figure.alt = "Latency of the full forward pass. " + "; ".join(
        f"{arm_name(arm)}: {_say(s)}, {s['n']:.0f} samples" for arm, s in zip(arms, stats, strict=True)) + "."
    return written(figure, path)


def _say(s: dict[str, float]) -> str:
    return f"p50 {s['p50']:.1f}, p95 {s['p95']:.1f}, p99 {s['p99']:.1f} ms"


def _apart(values: Sequence[float], gap: float) -> list[float]:
    """Positions at least `gap` apart, each near its value, in the values' order."""
    placed: dict[int, float] = {}
    last = float("-inf")
    for i in sorted(range(len(values)), key=lambda i: values[i]):
        placed[i] = last = max(float(values[i]), last + gap)
    return [placed[i] for i in range(len(values))]
