"""Every sample of a measurement: in order, and how they are distributed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from gpurunbook.plots.files import Row, kept
from gpurunbook.plots.names import made_by
from gpurunbook.plots.page import OURS, PALETTES, Chart, Palette, Result, Theme, bare, legend, page
from gpurunbook.prediction import arm_name
from gpurunbook.stages.latency import compared, roofline, summary

MARKERS = "os^Dv*"
SHARES = {"p50": 50, "p95": 95, "p99": 99}
Label = tuple[float, str, int]
"""(milliseconds, words, the arm's index)."""


def latency(result: Result, *, footer: str, path: Path | None = None, theme: Theme = "light") -> Chart:
    """Every sample of every arm in the order measured, beside it their distribution (ECDF) with p50, p95 and p99.

    Both share one axis of milliseconds. Samples and percentiles over four times the largest median are arrows at its end; the
    legend says how many samples and how large. The dotted line across both is the roofline of an arm: its weights read once, a
    rough floor.

    Args:
        result: what main.py printed, with samples.
        footer, path, theme: as for `top10`.
    """
    if path:
        return kept(lambda one: _latency(result, footer, one), path, theme, _rows(result),
                    {"footer": footer, "copy_bytes_per_second": result.get("copy_bytes_per_second"), "arms": _said(result)})
    return _latency(result, footer, theme)


@matplotlib.rc_context(OURS)
def _latency(result: Result, footer: str, theme: Theme) -> Chart:
    colours, arms = PALETTES[theme], result["arms"][:len(MARKERS)]
    copied, count = result.get("copy_bytes_per_second"), len(arms[0]["samples_ms"])
    lines = len(arms) + bool(copied)
    height = 5.2 + 0.22 * lines
    figure, above = page(f"Full forward pass of {len(result['prompt_tokens'])} tokens, {count} times", footer, colours,
                         height=height, made_by=made_by(result))
    order = (f"after {arms[0]['warm_up']} warm-up passes of each precision; they take turns (ABBA), so that a drift of the "
             "machine hits all alike")
    for text, colour in ((compared(result), colours.text), (order, colours.muted)):
        if text:
            figure.text(0.04, above, text, color=colour, fontsize=9.5, va="center", parse_math=False)
            above -= 0.24 / height
    bottom = (1.2 + 0.22 * lines) / height
    room = above - bottom - 0.18 / height
    left, right = figure.add_axes((0.085, bottom, 0.47, room)), figure.add_axes((0.595, bottom, 0.225, room))
    medians = [summary(arm["samples_ms"])["p50"] for arm in arms]
    top = (min(max(max(arm["samples_ms"]) for arm in arms), 4 * max(medians)) or 1) * 1.06
    for axes, title in ((left, "in the order measured"), (right, "share of passes no slower")):
        bare(axes, colours)
        axes.set_ylim(0, top)
        axes.grid(axis="y", color=colours.grid, linewidth=0.8)
        axes.tick_params(labelsize=9)
        axes.set_xlabel(title, color=colours.muted, fontsize=9)
    left.set_xlim(0, count + 1)
    left.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    left.set_title("milliseconds", loc="left", color=colours.muted, fontsize=9)
    right.set_xlim(0, 100)
    right.set_yticklabels([])
    right.set_xticks([0, 50, 95], ["0%", "50%", "95%"])
    labels = [label for i, arm in enumerate(arms) for label in _arm(left, right, arm, i, top, colours)]
    labels += _rooflines(left, right, result, colours, top)
    for (value, text, i), beside in zip(labels, _apart([v for v, _, _ in labels], top * 0.058, top), strict=True):
        right.annotate(text, (1, value), (1.13, beside), xycoords=right.get_yaxis_transform(), va="center", color=colours.text,
                       textcoords=right.get_yaxis_transform(), fontsize=9, annotation_clip=False,
                       arrowprops={"arrowstyle": "-", "color": colours.arms[i], "linewidth": 1, "shrinkA": 4, "shrinkB": 0,
                                   "relpos": (0, 0.5)})
        right.plot([1.085], [beside], MARKERS[i], transform=right.get_yaxis_transform(), color=colours.arms[i], markersize=6.5,
                   clip_on=False, zorder=4)
    handles: list[Artist] = list(left.get_legend_handles_labels()[0])
    if copied:
        handles.append(Line2D([], [], color=colours.muted, linewidth=1.3, linestyle=":", label=(
            f"rough floor: the weights read once, at the {copied / 1e9:,.1f} GB/s of a copy in the same run")))
    legend(figure, handles, colours, y=(0.56 + 0.11 * lines) / height)
    figure.alt = _describe(result)
    return figure


def _arm(left: Axes, right: Axes, arm: Result, i: int, top: float, colours: Palette) -> list[Label]:
    """Draw one arm into both; returns the labels of its percentiles. One above the axis is an arrow at its end."""
    samples, s, colour = np.asarray(arm["samples_ms"], dtype=np.float64), summary(arm["samples_ms"]), colours.arms[i]
    order, beyond = np.arange(1, len(samples) + 1), samples > top
    over = f"; {beyond.sum()} above the chart, up to {samples.max():.0f} ms" if beyond.any() else ""
    left.plot(order, np.minimum(samples, top), color=colour, linewidth=0.7, alpha=0.55)
    left.plot(order[~beyond], samples[~beyond], MARKERS[i], color=colour, markersize=3.2,
              label=f"{arm_name(arm)}: {_say(s)}{over}")
    left.plot(order[beyond], np.full(beyond.sum(), top), "^", color=colour, markersize=7, clip_on=False)
    right.step(np.concatenate(([0], 100 * order / len(order))), np.concatenate((np.sort(samples)[:1], np.sort(samples))),
               color=colour, linewidth=1.8, where="pre")
    labels = []
    for key, share in SHARES.items():
        at, above = min(s[key], top), s[key] > top
        right.plot([share], [at], "^" if above else MARKERS[i], color=colour, markersize=8, markeredgecolor=colours.text,
                   markeredgewidth=1.1, clip_on=False, zorder=3)
        right.plot([share, 100], [at] * 2, color=colour, linewidth=0.9)
        labels.append((at, f"{key} {s[key]:.1f} ms{' ↑' if above else ''}", i))
    return labels


def _rooflines(left: Axes, right: Axes, result: Result, colours: Palette, top: float) -> list[Label]:
    labels = []
    for i, arm in enumerate(result["arms"][:len(MARKERS)]):
        floor = roofline(result, arm)
        if floor is not None and floor <= top:
            for axes in (left, right):
                axes.axhline(floor, color=colours.arms[i], linewidth=1.3, linestyle=":")
            labels.append((floor, f"floor ~{floor:.1f} ms", i))
    return labels


def _say(s: dict[str, float]) -> str:
    return f"p50 {s['p50']:.1f}, p95 {s['p95']:.1f}, p99 {s['p99']:.1f} ms"


def _apart(values: Sequence[float], gap: float, top: float) -> list[float]:
    """Positions at least `gap` apart, each near its value, in the values' order; the lowest clear of the axis at 0.

    The highest is at `top`, unless so many do not fit below it.
    """
    placed: dict[int, float] = {}
    last = -0.3 * gap
    order = sorted(range(len(values)), key=lambda i: values[i])
    for i in order:
        placed[i] = last = max(float(values[i]), last + gap)
    last = max(top, (len(values) - 0.3) * gap) + gap
    for i in reversed(order):
        placed[i] = last = min(placed[i], last - gap)
    return [placed[i] for i in range(len(values))]


def _rows(result: Result) -> list[Row]:
    """A row for each sample of each arm, in the order measured."""
    return [{"arm": arm_name(arm), "repetition": i, "milliseconds": sample}
            for arm in result["arms"] for i, sample in enumerate(arm["samples_ms"], 1)]


def _said(result: Result) -> list[Row]:
    return [{"arm": arm_name(arm), **summary(arm["samples_ms"]), "roofline_ms": roofline(result, arm)} for arm in result["arms"]]


def _describe(result: Result) -> str:
    told = []
    for arm in result["arms"]:
        s, floor = summary(arm["samples_ms"]), roofline(result, arm)
        told.append(f"{arm_name(arm)} {_say(s)}, {s['n']:.0f} samples"
                    + (f", and about {floor:.1f} ms to read its weights once" if floor else ""))
    return f"Latency of the full forward pass, in order and as a distribution: {'; '.join(told)}. {compared(result)}".rstrip()
