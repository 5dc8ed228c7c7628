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
"""No smaller difference is told within a run: so far an arm may differ from itself, and one process from another by where its
memory lies."""
BETWEEN = 0.15
"""No smaller difference is told between runs. Two quiet runs of the same code, 40 minutes apart, had arms at 0.89 to 1.11 of what
the others made expect: memory lies elsewhere, and the host had other guests. No interval of one run knows of that."""


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
    """Of an arm's time now over then. `same` when all of the interval is within BETWEEN of 1, `unknown` when the interval allows
    both a difference and none."""
    _, low, high = now
    if high < 1 / (1 + BETWEEN):
        return "better"
    if low > 1 + BETWEEN:
        return "worse"
    return "same" if low >= 1 / (1 + BETWEEN) and high <= 1 + BETWEEN else "unknown"


def later(now: Mapping[str, Any], then: Mapping[str, Any], what: str) -> dict[str, tuple[Verdict, Ratio]]:
    """Each arm of both runs: (its time / the other arms') now over then. The others carry what the machine does otherwise.

    They are the median over them, in each repetition, of their times over what they took then: one arm alone as the base would
    lend its own luck to all verdicts. What makes all arms slower at once is therefore not seen.
    """
    both = [name for name in now["arms"] if name in then["arms"]]
    took = {name: np.median(then["arms"][name][what]["ms"]) for name in both}
    found = {}
    for name in both if len(both) > 1 else ():
        change = 1.0
        spread = 0.0
        for run, sign in ((now, 1), (then, -1)):
            others = np.median([np.divide(run["arms"][one][what]["ms"], took[one]) for one in both if one != name], axis=0)
            middle, low, high = ratio(run["arms"][name][what]["ms"], list(others))
            change *= middle**sign
            spread += (np.log(high / low) / 2) ** 2  # the runs are independent: variances add
        width = float(np.exp(np.sqrt(spread)))
        interval = (change, change / width, change * width)
        found[name] = verdict(interval), interval
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
