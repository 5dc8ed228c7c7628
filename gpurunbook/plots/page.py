"""An empty page with title, footer and badge, and what all charts share.

Drawn on the Agg canvas: pyplot and its global state are not touched, nor does a matplotlibrc of the user's count. Colours
are Okabe and Ito's, told apart by colour-blind people; text has a contrast of 4.5:1 or more.
"""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gpurunbook.tokens import drawable

Result = dict[str, Any]
Theme = Literal["light", "dark"]
THEMES: tuple[Theme, ...] = ("light", "dark")
DPI = 192  # twice a screen's 96
WIDE = 8.4
"""Inches of every chart."""
FOOTER = 3
"""Lines of a footer at most: names in it come from the pod."""
OURS: dict[Any, Any] = {"font.family": "DejaVu Sans", "font.size": 10.0, "text.usetex": False, "path.sketch": None,
                        "axes.formatter.use_locale": False, "svg.fonttype": "path", "svg.hashsalt": "gpurunbook"}
"""matplotlib's settings around every drawing: the font whose glyphs gpurunbook.tokens knows; no token into TeX; letters as
outlines in an SVG, which looks the same where that font is not installed; no random ids."""


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
            with matplotlib.rc_context(OURS):
                self.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None, "Description": self.alt})
            self._drawn, self.stale = buffer.getvalue(), False
        return self._drawn

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, str], dict[str, dict[str, object]]]:
        width, height = (int(inches * DPI / 2) for inches in self.get_size_inches())
        return ({"image/png": base64.b64encode(self.png()).decode(), "text/plain": self.alt},
                {"image/png": {"width": width, "height": height, "alt": self.alt}})


def page(title: str, footer: str, colours: Palette, *, height: float, made_by: Sequence[str] = ()) -> tuple[Chart, float]:
    """An empty page with title, footer and badge. Returns it and the height (0 to 1) below which there is room.

    Args:
        height: inches.
        made_by: versions and the like, below the footer.
    """
    figure = Chart(figsize=(WIDE, height), dpi=DPI, facecolor=colours.paper)
    FigureCanvasAgg(figure)
    top = 1 - 0.34 / height
    figure.text(0.04, top, drawable(title), color=colours.text, fontsize=14, fontweight="bold", va="center", parse_math=False)
    if "REHEARSAL" in footer:
        figure.text(0.96, top, "REHEARSAL", color="#1f2328", fontsize=9, fontweight="bold", ha="right", va="center",
                    bbox={"boxstyle": "round,pad=0.4", "facecolor": "#e69f00", "edgecolor": "none"})
    lines = [line for part in (footer, " · ".join(made_by)) for line in textwrap.wrap(drawable(part), 125)]
    if len(lines) > FOOTER:
        lines = [*lines[:FOOTER - 1], lines[FOOTER - 1][:124] + "…"]
    figure.text(0.04, 0.14 / height, "\n".join(lines), color=colours.muted, fontsize=8, va="bottom", linespacing=1.4,
                parse_math=False)
    return figure, top - 0.36 / height


def bare(axes: Axes, colours: Palette) -> None:
    axes.set_facecolor(colours.paper)
    axes.set_axisbelow(True)
    axes.tick_params(colors=colours.muted, length=0)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_color(colours.grid)


def legend(figure: Chart, handles: Sequence[Artist], colours: Palette, *, y: float) -> None:
    figure.legend(handles=list(handles), loc="center left", bbox_to_anchor=(0.03, y), frameon=False, fontsize=9.5,
                  labelcolor=colours.text, handletextpad=0.6, borderaxespad=0)
