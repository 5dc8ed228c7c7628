"""The charts: every token visible, every number from the result, nothing global touched."""

from __future__ import annotations

import csv
import json
import math
import re
import subprocess
import sys
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from gpurunbook import bootstrap, plots, tokens
from gpurunbook.plots.files import plain, to_csv
from gpurunbook.prediction import Prediction
from gpurunbook.readiness.rungs import Ladder, NodeLadder, Step
from gpurunbook.stages import latency


def token(text: str, p: float, **more: Any) -> dict[str, Any]:
    return {"id": 1, "text": text, "token": text.replace(" ", "Ġ"), "p": p, "logp": float(np.log(p)), **more}


@pytest.fixture
def result() -> dict[str, Any]:
    tops = [(" small", 0.4, 0.2), ("\n", 0.2, 0.3), ("🦄", 0.1, 0.1), ("$x$", 0.05, 0.15)]
    arms = [
        {"precision": precision, "dtype": dtype, "top_mass": 0.75, "warm_up": 10, "samples_ms": samples,
         "weight_bytes": 200_000_000 * (i + 1), "first_seconds": 0.5, "load_seconds": 2.0,
         "top": [token(text, ps[i], p_in={"int8": ps[0], "reference": ps[1]}) for text, *ps in tops]}
        for i, (precision, dtype, samples) in enumerate(
            [("int8", "float16", [50.0] * 99 + [900.0]), ("reference", "bfloat16", [25.0] * 100)])
    ]  # fmt: skip
    return {"schema": "gpurunbook/next-token/1", "model": "m", "revision": "sha256:0123", "versions": {"torch": "2"},
            "device": "CPU", "prompt": "a b", "prompt_tokens": [token("a", 1), token(" b", 1)], "vocab_size": 1004,
            "arms": arms}  # fmt: skip


@pytest.mark.parametrize(("text", "shown"), [
    (" small", "·small"),
    ("\n\t ", "⏎⇥·"),
    ("·", "⟨U+00B7⟩"),
    ("\u00a0", "⟨U+00A0⟩"),
    ("\x00\u200b\u202e", "⟨U+0000⟩⟨U+200B⟩⟨U+202E⟩"),
    ("🦄", "⟨U+1F984⟩"),
    ("本", "⟨U+672C⟩"),
    ("\u0301", "⟨U+0301⟩"),
    ("e\u0301", "e\u0301"),
    ("\udcf0", "⟨0xF0⟩"),
    ("�", "�"),
    ("café ال $x^2$", "café·ال·$x^2$"),
    ("", ""),
])  # fmt: skip
def test_show_token(text: str, shown: str) -> None:
    assert tokens.show_token(text) == shown


def words(figure: plots.Chart) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_top10_says_what_the_result_says(result: dict[str, Any], tmp_path: Path, theme: plots.Theme) -> None:
    path = tmp_path / "top10.png"
    figure = plots.top10(result, footer="m · CPU · REHEARSAL on CPU, not a GPU result", path=path, theme=theme)
    said = words(figure)
    for expected in ["·small", "⏎", "⟨U+1F984⟩", "$x$", "1,000 other tokens", "40.0%", "25.0%", "·b", "REHEARSAL"]:
        assert expected in said
    assert {"log p", "−0.92", "reference", "20.0%", "Δ log p", "+0.69", "−0.41"} <= set(said)
    assert "the reference puts the same token first" in said
    assert any("REHEARSAL on CPU, not a GPU result" in text for text in said)
    with Image.open(path) as image:
        assert image.width == int(8.4 * plots.DPI)
    assert path.stat().st_size < 400_000


def test_another_winner_is_said(result: dict[str, Any]) -> None:
    result["arms"][1]["top"][0] |= {"id": 2, "text": " land", "token": "Ġland"}
    figure = plots.top10(result, footer="f")
    assert "the reference puts another token first: ·land" in words(figure)
    assert "In reference (bf16), the reference puts another token first: ·land." in figure.alt


def test_a_chart_is_kept_for_both_themes_with_its_figures(result: dict[str, Any], tmp_path: Path) -> None:
    figure = plots.top10(result, footer="f", path=tmp_path / "top10.png")
    assert {p.name for p in tmp_path.iterdir()} == {f"top10{end}" for end in (
        ".png", ".svg", ".dark.png", ".dark.svg", ".csv", ".chart.json")}
    assert (tmp_path / "top10.png").read_bytes() == figure.png() != (tmp_path / "top10.dark.png").read_bytes()
    kept = json.loads((tmp_path / "top10.chart.json").read_text())
    assert kept["alt"] == figure.alt
    rows = list(csv.DictReader((tmp_path / "top10.csv").read_text().splitlines()))
    assert [float(row["p"]) for row in rows] == [row["p"] for row in kept["rows"]] == [0.4, 0.2, 0.1, 0.05]
    assert [json.loads(row["text"]) for row in rows] == [" small", "\n", "🦄", "$x$"]
    assert float(rows[0]["delta_logp"]) == pytest.approx(math.log(2))


@pytest.mark.parametrize("theme", ["", ".dark"])
def test_an_svg_is_a_described_picture_of_outlines(result: dict[str, Any], tmp_path: Path, theme: str) -> None:
    figure = plots.top10(result, footer="f", path=tmp_path / "top10.png")
    text = (tmp_path / f"top10{theme}.svg").read_text()
    root = ElementTree.fromstring(text)
    names = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert names <= {"svg", "title", "desc", "defs", "style", "g", "path", "use", "clipPath", "rect"}
    assert root.get("role") == "img"
    assert [root[0].tag[-5:], root[1].tag[-4:]] == ["title", "desc"]
    assert f"{root[0].text}: {root[1].text}" == figure.alt
    assert "<!" not in text
    plots.top10(result, footer="f", path=tmp_path / "top10.png")
    assert (tmp_path / f"top10{theme}.svg").read_text() == text, "the same chart is the same file"


@pytest.mark.parametrize(("cell", "said"), [
    ("=1+1", "'=1+1"), ("+1", "'+1"), ("-x", "'-x"), ("@SUM(A1)", "'@SUM(A1)"), ("'x", "''x"), ("\tx", "'\tx"), ("·=1", "·=1"),
    (-1.5, -1.5), (None, None), ("a\x1bb", "a\\u001bb"),
])
def test_no_cell_is_a_formula(cell: Any, said: Any) -> None:
    assert plain(cell) == said
    [row] = csv.DictReader(to_csv([{"a": cell, "b": 1}]).splitlines())
    assert row["a"] == ("" if said is None else str(said))


def test_a_users_matplotlibrc_does_not_count(result: dict[str, Any], tmp_path: Path) -> None:
    plain_one = plots.top10(result, footer="f").png()
    with matplotlib.rc_context({"font.family": "serif", "text.usetex": True, "path.sketch": (1, 2, 3)}):
        assert plots.top10(result, footer="f").png() == plain_one


def test_a_thousand_tokens_make_no_endless_chart(result: dict[str, Any]) -> None:
    result["arms"][0]["top"] = [token(f" w{i}", 0.0005) for i in range(1000)]
    figure = plots.top10(result, footer="f")
    assert figure.get_figheight() < 18
    assert "964 other tokens" in words(figure)


@pytest.fixture
def logits(tmp_path: Path) -> dict[str, Path]:
    paths = {precision: tmp_path / f"logits.{precision}.f32" for precision in ("int8", "reference")}
    for i, path in enumerate(paths.values()):
        np.random.default_rng(i).normal(scale=3, size=1004).astype("<f4").tofile(path)
    return paths


def test_spread_says_what_follows_from_the_logits(result: dict[str, Any], logits: dict[str, Path], tmp_path: Path) -> None:
    figure = plots.spread(result, logits, footer="f · REHEARSAL", path=tmp_path / "spread.png")
    kept = json.loads((tmp_path / "spread.chart.json").read_text())
    for row, temperature in zip(kept["spread"][:3], (0.7, 1, 1.3), strict=True):
        raw = np.fromfile(logits["int8"], "<f4").astype(np.float64) / temperature
        p = np.sort(np.exp(raw) / np.exp(raw).sum())[::-1]
        entropy = -(p * np.log2(p)).sum()
        assert row["entropy_bits"] == pytest.approx(entropy)
        assert row["choices"] == pytest.approx(2**entropy)
        assert row["margin"] == pytest.approx(p[0] - p[1])
        assert p[:row["kept"] - 1].sum() < 0.9 <= p[:row["kept"]].sum()
        assert {f"{entropy:.2f}", f"{p[0] - p[1]:.1%}", f"{row['kept']:,}"} <= set(words(figure))
        assert f"{row['kept']:,}" in figure.alt
    assert kept["rows"][-1]["cumulative"] == pytest.approx(1)
    assert {"top-p 0.9", "8-bit LLM.int8 (fp16)", "reference (bf16)", "REHEARSAL"} <= set(words(figure))
    assert len((tmp_path / "spread.dark.png").read_bytes()) < 500_000


def test_spread_of_one_arm(result: dict[str, Any], logits: dict[str, Path]) -> None:
    result["arms"] = result["arms"][:1]
    said = words(plots.spread(result, logits, footer="f"))
    assert not [text for text in said if "reference" in text or "Kullback" in text]


def test_no_badge_without_rehearsal_and_one_arm_is_enough(result: dict[str, Any]) -> None:
    result["arms"] = result["arms"][:1]
    assert "REHEARSAL" not in words(plots.top10(result, footer="m · Tesla T4 · eks"))


def test_long_prompt_shows_its_end(result: dict[str, Any]) -> None:
    result["prompt_tokens"] = [token(f" word{i}", 1) for i in range(500)]
    said = words(plots.top10(result, footer="f"))
    assert "·word499" in said
    assert "·word0" not in said
    assert any("500 tokens, of which the last" in text for text in said)


def test_part_of_a_character_shows_its_bytes(result: dict[str, Any]) -> None:
    result["arms"][0]["top"][0] |= {"text": " �", "token": "ĠðŁ"}
    assert "·⟨0xF0⟩⟨0x9F⟩" in words(plots.top10(result, footer="f"))


def test_no_glyph_is_missing(result: dict[str, Any], recwarn: pytest.WarningsRecorder) -> None:
    for i, text in enumerate(["🦄日本", "\U0010ffff", "ক\u09cd", "ال"]):
        result["arms"][0]["top"][i] |= {"text": text, "token": text}
    plots.top10(result, footer="f").png()
    assert not [w for w in recwarn if "missing from font" in str(w.message)]


def test_latency_says_percentiles_and_outliers(result: dict[str, Any], tmp_path: Path) -> None:
    figure = plots.latency(result, footer="f", path=tmp_path / "l.png")
    assert any("1 above the chart, up to 900 ms" in text for text in words(figure))
    assert {"p50 25.0 ms", "p50 50.0 ms"} <= set(words(figure))
    assert "p50 50.0" in figure.alt
    said = "8-bit LLM.int8 (fp16) takes 2.00 times as long as reference (bf16) (95% interval, roughly: 2.00 to 2.00)"
    assert said in words(figure)
    assert not [text for text in words(figure) if "floor" in text], "an older answer has no bandwidth"
    assert len((tmp_path / "l.csv").read_text().splitlines()) == 201


def test_percentiles_above_the_axis_are_arrows_at_its_end_with_their_values(result: dict[str, Any]) -> None:
    result["arms"][0]["samples_ms"] = [50.0] * 90 + [900.0] * 10
    figure = plots.latency(result, footer="f")
    right = figure.axes[1]
    assert {"p95 900.0 ms ↑", "p99 900.0 ms ↑", "p95 25.0 ms"} <= set(words(figure))
    arrows = [line for line in right.lines if line.get_marker() == "^"]
    end = right.get_ylim()[1]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in arrows] == [(95, end), (99, end)]
    figure.png()
    boxes = [Text.get_window_extent(text) for text in right.texts]
    assert max(box.y1 for box in boxes) < right.get_window_extent().y1 + 20, "no label stands in what is above the chart"
    ends = sorted((box.y0, box.y1) for box in boxes)
    assert all(one[1] <= other[0] + 1 for one, other in pairwise(ends)), "no label lies on another"


def test_each_label_has_the_mark_of_its_curve_beside_it(result: dict[str, Any]) -> None:
    right = plots.latency(result | {"copy_bytes_per_second": 2e10}, footer="f").axes[1]
    at = {text.get_text(): text.get_position()[1] for text in right.texts}
    marks = {line.get_ydata()[0]: (line.get_marker(), line.get_color()) for line in right.lines
             if len(line.get_xdata()) == 1 and line.get_xdata()[0] > 1 and line.get_xdata()[0] < 1.13}
    arms = plots.page.PALETTES["light"].arms
    assert marks[at["floor ~10.0 ms"]] == marks[at["p50 50.0 ms"]] == ("o", arms[0])
    assert marks[at["floor ~20.0 ms"]] == marks[at["p50 25.0 ms"]] == ("s", arms[1])


def test_the_spread_says_what_its_columns_are(result: dict[str, Any], logits: dict[str, Path]) -> None:
    [said] = [text for text in words(plots.spread(result, logits, footer="f")) if "margin: " in text]
    assert said == "margin: the first token's probability minus the second's; choices: 2 to the power of the entropy"


def test_the_roofline_is_the_weights_at_the_copy_bandwidth(result: dict[str, Any]) -> None:
    figure = plots.latency(result | {"copy_bytes_per_second": 2e10}, footer="f")
    assert {"floor ~10.0 ms", "floor ~20.0 ms"} <= set(words(figure))
    assert any("20.0 GB/s" in text for text in words(figure))
    assert "about 20.0 ms to read its weights once" in figure.alt
    table = repr(latency.table(result | {"copy_bytes_per_second": 2e10}))
    assert "10.0      20%" in table
    assert "floor" not in repr(latency.table(result))


@pytest.mark.parametrize(("paired", "holding", "width"), [(True, 0.85, 0.1), (False, 0.85, 0.25)])
def test_the_interval_of_a_ratio_holds_the_truth(paired: bool, holding: float, width: float) -> None:
    """And is narrow where pairs are drawn, since a noise of the machine's hits both arms."""
    dice = np.random.default_rng(7)
    held = 0
    for _ in range(60):
        machine = 1 + 0.3 * dice.random(100)
        one, other = 20 * machine * dice.normal(1, 0.02, 100), 10 * machine * dice.normal(1, 0.02, 100)
        if not paired:
            dice.shuffle(other)
        low, high = bootstrap.ratio_of_medians(one.tolist(), other.tolist(), paired=paired) or (0, 0)
        assert high - low < width
        held += low <= 2 <= high
    assert held >= holding * 60


def autocorrelated(dice: np.random.Generator, count: int, keeps: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Noise of deviation 1 of which each sample keeps a share of the one before (AR(1))."""
    noise = dice.normal(size=count + 100)
    for i in range(1, len(noise)):
        noise[i] = keeps * noise[i - 1] + math.sqrt(1 - keeps**2) * noise[i]
    return noise[100:]


@pytest.mark.parametrize("paired", [True, False])
def test_the_interval_knows_that_neighbours_are_alike(paired: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    held = {1: 0, bootstrap.BLOCK: 0}
    for block in held:
        monkeypatch.setattr(bootstrap, "BLOCK", block)
        dice = np.random.default_rng(7)
        for _ in range(60):
            one, other = (ms * np.exp(0.05 * autocorrelated(dice, 100, 0.9)) for ms in (20, 10))
            low, high = bootstrap.ratio_of_medians(one.tolist(), other.tolist(), paired=paired) or (0, 0)
            held[block] += low <= 2 <= high
    alone, blocks = held.values()
    assert alone < 0.55 * 60
    assert blocks > 0.7 * 60


def test_there_is_no_interval_of_a_few_samples(result: dict[str, Any]) -> None:
    samples = [1.0 + i / 100 for i in range(20)]
    assert bootstrap.ratio_of_medians(samples, samples) == bootstrap.ratio_of_medians(samples, samples) != (1, 1)
    assert bootstrap.ratio_of_medians(samples[1:], samples) is bootstrap.ratio_of_medians(samples, samples[1:]) is None
    for arm in result["arms"]:
        arm["samples_ms"] = arm["samples_ms"][:19]
    assert latency.compared(result) == "8-bit LLM.int8 (fp16) takes 2.00 times as long as reference (bf16)"


@pytest.mark.parametrize("count", [3, 20])
def test_the_order_of_few_samples_has_whole_ticks(result: dict[str, Any], count: int) -> None:
    for arm in result["arms"]:
        arm["samples_ms"] = arm["samples_ms"][:count]
    figure = plots.latency(result, footer="f")
    ticks = figure.axes[0].get_xticks()
    assert len(ticks) > 2
    assert all(tick == int(tick) for tick in ticks)


def test_no_line_runs_through_a_figure(result: dict[str, Any]) -> None:
    """The lowest floors are labelled above the axis, and in the rungs the grid ends around each figure."""
    floors = plots.latency(result | {"copy_bytes_per_second": 1e15}, footer="f")
    floors.png()
    axis = floors.axes[1].get_window_extent().y0
    drawn = [Text.get_window_extent(text) for text in floors.axes[1].texts]  # without the line that leads to it
    assert len(drawn) == 8, "three percentiles and a floor of each arm"
    assert min(box.y0 for box in drawn) > axis
    began = datetime(2026, 1, 1)
    steps = [Step(name, "done", since=began + timedelta(seconds=10 * i)) for i, name in enumerate(("joined", "ready", "driver"))]
    axes = plots.rungs(Ladder((NodeLadder("n", tuple(steps)),)), footer="f").axes[0]
    figures = [text for text in axes.texts if text.get_text().endswith(" s")]
    assert len(figures) == 4
    assert {text.get_bbox_patch().get_facecolor() for text in figures} == {axes.get_facecolor()}  # type: ignore[union-attr]


def test_a_small_probability_is_not_drawn_as_none(result: dict[str, Any], logits: dict[str, Path]) -> None:
    result["arms"][0]["top"][3] |= {"p": 0.0003, "logp": math.log(0.0003), "p_in": {"reference": 0.0004}}
    figure = plots.top10(result, footer="f")
    assert words(figure).count("<0.1%") == 2, "on the bar, and the reference's"
    assert not re.search(r"\b0\.0%", " ".join(words(figure)) + figure.alt)
    assert "“$x$” <0.1%" in figure.alt
    assert "reference <0.1%" in repr(Prediction(result | {"arms": [arm | {"samples_ms": []} for arm in result["arms"]]}))
    np.linspace(1, 1.5, 1004).astype("<f4").tofile(logits["int8"])
    assert "<0.1%" in words(plots.spread(result, logits, footer="f"))


def test_summary_is_numpys_linear_quantile() -> None:
    assert latency.summary([1, 2, 3, 4, 5]) == pytest.approx({"p50": 3, "p95": 4.8, "p99": 4.96, "mean": 3, "n": 5})


def test_description_is_complete(result: dict[str, Any]) -> None:
    assert plots.describe_top10(result) == (
        "Bar chart of the 4 most likely next tokens after “a·b” in 8-bit LLM.int8 (fp16): “·small” 40.0%, “⏎” 20.0%, "
        "“⟨U+1F984⟩” 10.0%, “$x$” 5.0%; all other tokens 25.0%. In reference (bf16), the reference puts the same token first. "
        "A middle dot stands for a space.")


def test_a_chart_shows_itself_in_a_notebook_without_pyplot(result: dict[str, Any]) -> None:
    data, metadata = plots.top10(result, footer="f")._repr_mimebundle_()
    assert data["image/png"].startswith("iVBOR")
    assert metadata["image/png"]["alt"] == data["text/plain"]
    code = ("import json, sys\nfrom gpurunbook import plots\n"
            "plots.top10(json.load(sys.stdin), footer='f')._repr_mimebundle_()\nprint('matplotlib.pyplot' in sys.modules)")
    alone = subprocess.run([sys.executable, "-c", code], input=json.dumps(result), text=True, capture_output=True, check=True)
    assert alone.stdout == "False\n"


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("palette", plots.PALETTES.values(), ids=plots.PALETTES.keys())
def test_text_contrast(palette: plots.Palette) -> None:
    for ink, paper in [(palette.text, palette.paper), (palette.muted, palette.paper), (palette.text, palette.chip)]:
        high, low = sorted([luminance(ink), luminance(paper)], reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5
