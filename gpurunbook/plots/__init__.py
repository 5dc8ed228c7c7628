"""The charts: the most likely next tokens, the whole distribution, the latency samples, and each rung of the ladder."""

from gpurunbook.plots.latency import latency
from gpurunbook.plots.page import DPI, PALETTES, Chart, Palette, Theme
from gpurunbook.plots.rungs import rungs
from gpurunbook.plots.spread import spread
from gpurunbook.plots.tokens import describe_top10, top10

__all__ = ["DPI", "PALETTES", "Chart", "Palette", "Theme", "describe_top10", "latency", "rungs", "spread", "top10"]
