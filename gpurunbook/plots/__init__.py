"""The charts: the most likely next tokens, the latency samples, and how long each rung of the ladder took."""

from gpurunbook.plots.latency import latency
from gpurunbook.plots.page import DPI, PALETTES, Chart, Palette, Theme
from gpurunbook.plots.rungs import rungs
from gpurunbook.plots.tokens import describe_top10, top10

__all__ = ["DPI", "PALETTES", "Chart", "Palette", "Theme", "describe_top10", "latency", "rungs", "top10"]
