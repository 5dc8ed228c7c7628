"""Tokens of any tokenizer, and how each is shown: what a font lacks, what has no ink, what would be markup or turn the line."""

from __future__ import annotations

import math
from typing import Any

TOKENS: tuple[tuple[str, str, str], ...] = (
    # decoded text, the vocabulary's spelling, what is shown
    (" 🦄", "x", "·⟨U+1F984⟩"),
    ("�", "â", "⟨0xE2⟩"),
    ("�", "<0xF0>", "⟨0xF0⟩"),
    ("\u0301", "Ì\u0123", "⟨U+0301⟩"),
    ("e\u0301\u0302\u0303\u0304", "e", "e\u0301\u0302⟨U+0303⟩⟨U+0304⟩"),
    ("日本語", "日本語", "⟨U+65E5⟩⟨U+672C⟩⟨U+8A9E⟩"),
    (" شجرة", "x", "·شجرة"),
    ("שלום 12%", "x", "שלום·12%"),
    ("<|endoftext|>", "<|endoftext|>", "<|endoftext|>"),
    ("", "</s>", "</s>"),
    ("land", "▁land", "·land"),
    ("", "", "⟨id 11⟩"),
    ("</desc><script>alert(1)</script>-->", "x", "</desc><script>alert(1)</script>-->"),
    ("=1+1", "x", "=1+1"),
    ("$\\frac{1}{2}$", "x", "$\\frac{1}{2}$"),
    ("\u202eevil\u2066", "x", "⟨U+202E⟩evil⟨U+2066⟩"),
    ("\x1b[31m\n\t", "x", "⟨U+001B⟩[31m⏎⇥"),
    ("x\ufe0f\u2800", "x", "x⟨U+FE0F⟩⟨U+2800⟩"),
    ("⟨0xE2⟩", "x", "⟨U+27E8⟩0xE2⟨U+27E9⟩"),
    ("नमस्ते", "x", "⟨U+0928⟩⟨U+092E⟩⟨U+0938⟩⟨U+094D⟩⟨U+0924⟩⟨U+0947⟩"),
)


def result() -> dict[str, Any]:
    """What main.py might print with these: as its prompt, and as its most likely tokens, in two precisions."""
    ps = [0.2 * 0.8**i for i in range(len(TOKENS))]
    prompt = [{"id": i, "text": text, "token": spelled} for i, (text, spelled, _) in enumerate(TOKENS)]
    top = [{**token, "p": p, "logp": math.log(p), "p_in": {"int8": p, "reference": p / 2}}
           for token, p in zip(prompt, ps, strict=True)]
    arms = [{"precision": precision, "dtype": dtype, "top": top, "top_mass": sum(ps), "warm_up": 10, "weight_bytes": 10**8,
             "first_seconds": 0.1, "load_seconds": 1.0, "samples_ms": []}
            for precision, dtype in (("int8", "float16"), ("reference", "bfloat16"))]
    return {"model": "模型-🦄 of-a-name-that-is-long", "revision": "sha256:0123", "versions": {"torch": "2 🦄"}, "device": "CPU",
            "prompt": "x", "prompt_tokens": prompt, "vocab_size": 1000, "arms": arms}
