"""Tokens of any tokenizer: none is a box, none is invisible, none is markup, none turns what stands beside it."""

from __future__ import annotations

import re
import warnings
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text

from gpurunbook import plots
from gpurunbook.prediction import Prediction
from gpurunbook.show import CONTROL
from gpurunbook.tokens import visible
from tests.hostile_tokens import TOKENS, result


@pytest.fixture
def charts(tmp_path: Path) -> list[plots.Chart]:
    """Drawn and written; a glyph that the font lacks is a warning of matplotlib's, and warnings are errors."""
    found, logits = result(), {}
    for precision in ("int8", "reference"):
        logits[precision] = tmp_path / precision
        np.random.default_rng(0).normal(size=1000).astype("<f4").tofile(logits[precision])
    footer = f"{found['model']} · {found['device']}"
    timed = {**found, "arms": [{**arm, "samples_ms": [1.0, 2.0, 3.0]} for arm in found["arms"]]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return [plots.top10(found, footer=footer, path=tmp_path / "top10.png"),
                plots.spread(found, logits, footer=footer, path=tmp_path / "spread.png"),
                plots.latency(timed, footer=footer, path=tmp_path / "latency.png")]


@pytest.mark.parametrize(("text", "spelled", "shown"), TOKENS, ids=range(len(TOKENS)))
def test_what_a_token_looks_like(text: str, spelled: str, shown: str) -> None:
    number = [one[2] for one in TOKENS].index(shown)
    assert visible({"id": number, "text": text, "token": spelled}) == shown


def test_the_font_really_lacks_what_is_escaped() -> None:
    """What the other tests rely on: matplotlib warns of a box."""
    figure = plots.top10(result(), footer="f")
    figure.text(0, 0, "日")
    with pytest.warns(UserWarning, match="missing from font"):
        figure.png()


def test_every_chart_draws_glyphs_only(charts: list[plots.Chart], tmp_path: Path) -> None:
    said = [text.get_text() for text in charts[0].findobj(Text)]
    assert {"·⟨U+1F984⟩", "⟨0xE2⟩", "⟨0xF0⟩", "⟨U+0301⟩", "⟨id 11⟩", "·land", "=1+1", "$\\frac{1}{2}$", "·شجرة"} <= set(said)
    assert any(text.startswith("⟨U+6A21⟩⟨U+578B⟩-⟨U+1F984⟩ of-a-name") for text in said), "a footer too"
    for chart in charts:
        assert chart.png().startswith(b"\x89PNG")


def test_every_label_is_on_the_page(charts: list[plots.Chart]) -> None:
    for chart in charts:
        chart.stale = True  # the SVG was written last, and extents are those of what was drawn last
        chart.png()
        edge = chart.bbox.width
        for text in chart.findobj(Text):
            if text.get_text() and text.get_visible():
                box = text.get_window_extent()
                assert box.x0 >= 0.01 * edge, text.get_text()
                assert box.x1 <= 0.995 * edge, text.get_text()


@pytest.mark.parametrize("name", ["top10.svg", "top10.dark.svg", "spread.svg", "latency.svg"])
def test_no_token_is_markup_in_an_svg(charts: list[plots.Chart], tmp_path: Path, name: str) -> None:
    text = (tmp_path / name).read_text()
    assert set(re.findall(r"<(\w+)", text)) <= {"svg", "title", "desc", "defs", "style", "g", "path", "use", "clipPath", "rect"}
    assert not re.search(r"<!|\bon\w+=|javascript:|https?://(?!www\.w3\.org/)", text)
    assert not CONTROL.search(text)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.isolated: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.add(tag)

    def handle_data(self, data: str) -> None:
        if self.get_starttag_text().startswith("<bdi"):  # type: ignore[union-attr]
            self.isolated.append(data)


def test_the_table_isolates_each_token_and_the_plain_one_has_it_last() -> None:
    found = Prediction(result())
    parser = Tags()
    parser.feed(found._repr_html_())
    assert parser.seen == {"table", "caption", "tbody", "tr", "td", "div", "bdi", "b"}
    assert {shown for _, _, shown in TOKENS} <= set(parser.isolated)
    lines = repr(found).splitlines()
    assert [line.split("%")[-1].strip() for line in lines[2:8]] == [shown for _, _, shown in TOKENS[:6]]
    assert not CONTROL.search(repr(found).replace("\n", ""))
