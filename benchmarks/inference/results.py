"""What the samples say: ratios with intervals, an arm against itself, and whether a later run is better, same or worse."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from benchmarks.inference.harness import AGAIN, Samples
from gpurunbook import bootstrap

Ratio = tuple[float, float, float]
"""A ratio of medians, and its 95% interval; an interval of NaN where there are too few samples for one."""
LEAST = 0.05
"""No smaller difference is told: so far an arm may differ from itself, and one process from another by where its memory lies."""


def quantiles(ms: Sequence[float]) -> dict[str, float]:
    return dict(zip(("p50", "p95", "p99"), map(float, np.quantile(ms, (0.5, 0.95, 0.99))), strict=True))


def ratio(one: Sequence[float], other: Sequence[float]) -> Ratio:
    """Of arms that took turns, by a moving-block bootstrap (gpurunbook/bootstrap.py): neighbouring samples are alike."""
    low, high = bootstrap.ratio_of_medians(one, other, paired=True) or (float("nan"),) * 2
    return float(np.median(one) / np.median(other)), low, high


def against_itself(found: Mapping[str, Samples], name: str) -> str | None:
    """Why the arm `name` beside itself (`name` + AGAIN) shows that differences cannot be told, or None."""
    middle, low, high = ratio(found[name + AGAIN].ms, found[name].ms)
    if not low <= 1 <= high and abs(middle - 1) > LEAST:
        return f"{name} differs from itself: {middle:.2f} ({low:.2f} to {high:.2f})"
    if high / low > (1 + LEAST) ** 2:
        return f"{name} against itself is known only to {low:.2f} to {high:.2f}"
    return None


Verdict = Literal["better", "same", "worse", "unknown"]


def verdict(now: Ratio) -> Verdict:
    """Of an arm's time now over then. `same` when all of the interval is within LEAST of 1, `unknown` when the interval allows
    both a difference and none."""
    _, low, high = now
    if high < 1 / (1 + LEAST):
        return "better"
    if low > 1 + LEAST:
        return "worse"
    return "same" if low >= 1 / (1 + LEAST) and high <= 1 + LEAST else "unknown"


def later(now: Mapping[str, Any], then: Mapping[str, Any], what: str, base: str) -> dict[str, tuple[Verdict, Ratio]]:
    """Each arm of both runs: (its time / the base arm's) now over then. The base carries what the machine does otherwise."""
    def of(run: Mapping[str, Any], name: str) -> list[float]:
        return list(run["arms"][name][what]["ms"])

    found = {}
    for name in now["arms"]:
        if name == base or not all(name in run["arms"] and base in run["arms"] for run in (now, then)):
            continue
        change = 1.0
        spread = 0.0
        for run, sign in ((now, 1), (then, -1)):
            middle, low, high = ratio(of(run, name), of(run, base))
            change *= middle**sign
            spread += (np.log(high / low) / 2) ** 2  # the runs are independent: variances add
        width = float(np.exp(np.sqrt(spread)))
        found[name] = (verdict(both := (change, change / width, change * width)), both)
    return found


def comparable(now: Mapping[str, Any], then: Mapping[str, Any]) -> str | None:
    """Why two runs are not compared, or None."""
    for what in ("schema", "machine", "threads", "prompt"):
        if now.get(what) != then.get(what):
            return f"the earlier run had another {what}: {then.get(what)}"
    return None


def written(found: Mapping[str, Any]) -> str:
    """JSON, indented, with each list of numbers on one line."""
    text = json.dumps(found, indent=1, default=float)
    return re.sub(r"\[[\d\s.,eE+-]+\]", lambda hit: " ".join(hit[0].split()).replace("[ ", "[").replace(" ]", "]"), text) + "\n"
