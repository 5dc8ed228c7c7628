"""benchmarks/inference/quality.py and table.py: what fails the gate is not shown as faster."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.inference import table
from benchmarks.inference.quality import PROMPTS, quality

REFERENCE = np.stack([np.linspace(5, 0, 50)] * 3)


def test_the_same_logits_are_perfect_and_turned_round_ones_are_not() -> None:
    assert quality(REFERENCE, REFERENCE).complaints() == []
    assert quality(REFERENCE + 3, REFERENCE).kl == pytest.approx(0, abs=1e-12)  # logits have no zero
    worse = quality(REFERENCE[:, ::-1], REFERENCE)
    assert worse.shared == 0
    assert len(worse.complaints()) == 3


def test_one_bad_prompt_of_many_is_enough() -> None:
    logits = REFERENCE.copy()
    logits[1, 2] -= 0.5
    assert [text.split()[0] for text in quality(logits, REFERENCE).complaints()] == ["log"]


def test_logits_that_are_no_numbers_fail() -> None:
    logits = REFERENCE.copy()
    logits[1, 2] = np.nan
    assert quality(logits, REFERENCE).complaints()


def test_there_are_at_least_eight_prompts() -> None:
    assert len(set(PROMPTS)) >= 8


def test_what_fails_the_gate_has_no_ratio_and_stands_below() -> None:
    def arm(ms: float, fails: list[str], ratio: tuple[float, float, float] | None) -> dict[str, Any]:
        return {"load": {"read_bytes": 1e8}, "step": {
            "p50": ms, "p95": ms, "p99": ms, "first_ms": ms, "fails": fails, "ratio": ratio,
            "quality": {"shared": 10, "delta": 0.1, "kl": 0.1}}}

    found = {"copy_bytes_per_second": 1e10, "arms": {
        "wrong": arm(1, ["KL 0.100"], None), "right": arm(20, [], (0.5, 0.4, 0.6))}}
    head, first, second = table.arms(found, "step", "LLM.int8")
    assert "of LLM.int8" in head
    assert "right" in first
    assert "0.50 (0.40 to 0.60)" in first
    assert "50%" in first  # 0.1 GB in 20 ms, of 10 GB/s
    assert "wrong" in second
    assert "FAILS: KL 0.100" in second
    assert " to " not in second
