"""The charts: every token visible, every number from the result, nothing global touched."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gpurunbook import plots, tokens
from gpurunbook.stages import latency


def token(text: str, p: float, **more: Any) -> dict[str, Any]:
    return {"id": 1, "text": text, "token": text.replace(" ", "Ġ"), "p": p, "logp": float(np.log(p)), **more}


@pytest.fixture
def result() -> dict[str, Any]:
    tops = [(" small", 0.4, 0.2), ("\n", 0.2, 0.3), ("🦄", 0.1, 0.1), ("$x$", 0.05, 0.15)]
    arms = [
        {"precision": precision, "dtype": dtype, "top_mass": 0.75, "warm_up": 10, "samples_ms": samples,
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
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_top10_says_what_the_result_says(result: dict[str, Any], tmp_path: Path, theme: plots.Theme) -> None:
    path = tmp_path / "top10.png"
    figure = plots.top10(result, footer="m · CPU · REHEARSAL on CPU, not a GPU result", path=path, theme=theme)
    said = words(figure)
    for expected in ["·small", "⏎", "⟨U+1F984⟩", "$x$", "1,000 other tokens", "40.0%", "25.0%", "·b", "REHEARSAL"]:
        assert expected in said
    assert any("reference 20.0%" in text and "log p −0.92" in text for text in said)
    assert any("REHEARSAL on CPU, not a GPU result" in text for text in said)
    with Image.open(path) as image:
        assert image.width == int(8.4 * plots.DPI)
    assert path.stat().st_size < 400_000


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
    assert "■ p50 25.0 ms" in words(figure)
    assert "p50 50.0" in figure.alt


def test_summary_is_numpys_linear_quantile() -> None:
    assert latency.summary([1, 2, 3, 4, 5]) == pytest.approx({"p50": 3, "p95": 4.8, "p99": 4.96, "mean": 3, "n": 5})


def test_description_is_complete(result: dict[str, Any]) -> None:
    assert plots.describe_top10(result) == (
        "Bar chart of the 4 most likely next tokens after “a·b” in 8-bit LLM.int8 (fp16): “·small” 40.0%, “⏎” 20.0%, "
        "“⟨U+1F984⟩” 10.0%, “$x$” 5.0%; all other tokens 25.0%. A middle dot stands for a space.")


def test_a_chart_shows_itself_in_a_notebook_without_pyplot(result: dict[str, Any]) -> None:
    before = "matplotlib.pyplot" in sys.modules
    data, metadata = plots.top10(result, footer="f")._repr_mimebundle_()
    assert data["image/png"].startswith("iVBOR")
    assert metadata["image/png"]["alt"] == data["text/plain"]
    assert ("matplotlib.pyplot" in sys.modules) == before


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("palette", plots.PALETTES.values(), ids=plots.PALETTES.keys())
def test_text_contrast(palette: plots.Palette) -> None:
    for ink, paper in [(palette.text, palette.paper), (palette.muted, palette.paper), (palette.text, palette.chip)]:
        high, low = sorted([luminance(ink), luminance(paper)], reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5
