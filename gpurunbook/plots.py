"""The two charts: the most likely next tokens, and the latency samples in order.

Both take what main.py printed (schema gpurunbook/next-token/1) and draw on the Agg canvas: pyplot and its global state
are not touched. Colours are Okabe and Ito's, told apart by colour-blind people; text has a contrast of 4.5:1 or more.
"""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gpurunbook.stages.latency import summary
from gpurunbook.tokens import visible

Result = dict[str, Any]
Theme = Literal["light", "dark"]
DPI = 192  # twice a screen's 96
DTYPES = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}
PRECISIONS = {"int8": "8-bit LLM.int8", "nf4": "4-bit NF4"}
LABEL = 26
"""Characters of a token shown beside its bar; the rest is elided."""


@dataclass(frozen=True)
class Palette:
    paper: str
    text: str
    muted: str
    grid: str
    chip: str
    rest: str
    arms: tuple[str, ...]


PALETTES: dict[Theme, Palette] = {
    "light": Palette("#ffffff", "#1f2328", "#57606a", "#d8dee4", "#eaf3fa", "#afb8c1",
                     ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")),
    "dark": Palette("#0d1117", "#e6edf3", "#9da7b3", "#30363d", "#1b2b3a", "#6e7681",
                    ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#0072b2", "#d55e00")),
}  # fmt: skip


class Chart(Figure):
    """A figure that shows itself in a notebook, sharp, with its description as alternative text."""

    alt = ""
    _drawn = b""

    def png(self) -> bytes:
        """The picture; drawn again only when the figure was changed since."""
        if self.stale or not self._drawn:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None, "Description": self.alt})
            self._drawn, self.stale = buffer.getvalue(), False
        return self._drawn

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, str], dict[str, dict[str, object]]]:
        width, height = (int(inches * DPI / 2) for inches in self.get_size_inches())
        return ({"image/png": base64.b64encode(self.png()).decode(), "text/plain": self.alt},
                {"image/png": {"width": width, "height": height, "alt": self.alt}})


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
    figure, above = _page(f"The {len(top)} most likely next tokens, {_arm(arm)}", footer, result, colours,
                          height=2.75 + 0.3 * rows)
    bottom = 1.05 / figure.get_figheight()
    above = _chips(figure, [visible(t) for t in result["prompt_tokens"]], above, colours)
    ps = [t["p"] for t in top]
    rest = max(0.0, 1 - sum(ps))
    axes = figure.add_axes((0.25, bottom, 0.71, above - bottom))
    _bare(axes, colours)
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
                           linestyle="none", label=f"the same token, {_arm(reference)}")
        _legend(figure, [tick_mark], colours, y=0.83 / figure.get_figheight())
    figure.alt = describe_top10(result)
    return _written(figure, path)


def latency(result: Result, *, footer: str, path: Path | None = None, theme: Theme = "light") -> Chart:
    """Every sample of every arm in the order measured, with p50, p95 and p99.

    Samples over four times the largest median are arrows at the top; the legend says how many and how large.
    """
    colours, arms = PALETTES[theme], result["arms"]
    count, height = len(arms[0]["samples_ms"]), 5.6
    figure, above = _page(f"Full forward pass of {len(result['prompt_tokens'])} tokens, {count} times", footer, result,
                          colours, height=height)
    figure.text(0.04, above, f"after {arms[0]['warm_up']} warm-up passes of each precision; they take turns (ABBA), so "
                "that a drift of the machine hits all alike", color=colours.muted, fontsize=9.5, va="center")
    bottom = (1.25 + 0.22 * len(arms)) / height
    axes = figure.add_axes((0.085, bottom, 0.735, above - bottom - 0.3 / height))
    _bare(axes, colours)
    axes.grid(axis="y", color=colours.grid, linewidth=0.8)
    stats = [summary(arm["samples_ms"]) for arm in arms]
    top = min(max(max(arm["samples_ms"]) for arm in arms), 4 * max(s["p50"] for s in stats)) * 1.06
    labels: list[tuple[float, str, str]] = []
    for arm, s, colour, marker, sign in zip(arms, stats, colours.arms, "os^Dv*", "●■▲◆▼★", strict=False):
        x, y = np.arange(1, count + 1), np.asarray(arm["samples_ms"], dtype=np.float64)
        beyond = y > top
        over = f"; {beyond.sum()} above the chart, up to {y.max():.0f} ms" if beyond.any() else ""
        axes.plot(x, np.minimum(y, top), color=colour, linewidth=0.7, alpha=0.55)
        axes.plot(x[~beyond], y[~beyond], marker, color=colour, markersize=3.4, label=f"{_arm(arm)}: {_say(s)}{over}")
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
    _legend(figure, axes.get_legend_handles_labels()[0], colours, y=(0.62 + 0.11 * len(arms)) / height)
    figure.alt = "Latency of the full forward pass. " + "; ".join(
        f"{_arm(arm)}: {_say(s)}, {s['n']:.0f} samples" for arm, s in zip(arms, stats, strict=True)) + "."
    return _written(figure, path)


def describe_top10(result: Result) -> str:
    """The chart in words, for those who cannot see it."""
    arm = result["arms"][0]
    listed = ", ".join(f"“{visible(t)}” {t['p']:.1%}" for t in arm["top"])
    prompt = "".join(visible(t) for t in result["prompt_tokens"])
    return (f"Bar chart of the {len(arm['top'])} most likely next tokens after “{prompt}” in {_arm(arm)}: {listed}; "
            f"all other tokens {max(0.0, 1 - arm['top_mass']):.1%}. A middle dot stands for a space.")


def _short(text: str) -> str:
    return text if len(text) <= LABEL else text[: LABEL - 1] + "…"


def _arm(arm: Result) -> str:
    """`8-bit LLM.int8 (fp16)`: the precision and, in brackets, the type of what is not quantised."""
    precision = str(arm["precision"])
    dtype = DTYPES.get(arm["dtype"], str(arm["dtype"]))
    return dtype if precision == dtype else f"{PRECISIONS.get(precision, precision)} ({dtype})"


def _say(s: dict[str, float]) -> str:
    return f"p50 {s['p50']:.1f}, p95 {s['p95']:.1f}, p99 {s['p99']:.1f} ms"


def _apart(values: Sequence[float], gap: float) -> list[float]:
    """Positions at least `gap` apart, each near its value, in the values' order."""
    placed: dict[int, float] = {}
    last = float("-inf")
    for i in sorted(range(len(values)), key=lambda i: values[i]):
        placed[i] = last = max(float(values[i]), last + gap)
    return [placed[i] for i in range(len(values))]


def _page(title: str, footer: str, result: Result, colours: Palette, *, height: float) -> tuple[Chart, float]:
    """An empty page with title, footer and badge. Returns it and the height (0 to 1) below which there is room."""
    figure = Chart(figsize=(8.4, height), dpi=DPI, facecolor=colours.paper)
    FigureCanvasAgg(figure)
    top = 1 - 0.34 / height
    figure.text(0.04, top, title, color=colours.text, fontsize=14, fontweight="bold", va="center", parse_math=False)
    if "REHEARSAL" in footer:
        figure.text(0.96, top, "REHEARSAL", color="#1f2328", fontsize=9, fontweight="bold", ha="right", va="center",
                    bbox={"boxstyle": "round,pad=0.4", "facecolor": "#e69f00", "edgecolor": "none"})
    made_by = [f"revision {str(result['revision'])[:19]}", *(f"{k} {v}" for k, v in result["versions"].items())]
    lines = [line for part in (footer, " · ".join(made_by)) for line in textwrap.wrap(part, 125)]
    figure.text(0.04, 0.14 / height, "\n".join(lines), color=colours.muted, fontsize=8, va="bottom", linespacing=1.4,
                parse_math=False)
    return figure, top - 0.36 / height


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


def _bare(axes: Axes, colours: Palette) -> None:
    axes.set_facecolor(colours.paper)
    axes.set_axisbelow(True)
    axes.tick_params(colors=colours.muted, length=0)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_color(colours.grid)


def _legend(figure: Chart, handles: Sequence[Artist], colours: Palette, *, y: float) -> None:
    figure.legend(handles=list(handles), loc="center left", bbox_to_anchor=(0.03, y), frameon=False, fontsize=9.5,
                  labelcolor=colours.text, handletextpad=0.6, borderaxespad=0)


def _written(figure: Chart, path: Path | None) -> Chart:
    if path:
        path.write_bytes(figure.png())
    return figure
