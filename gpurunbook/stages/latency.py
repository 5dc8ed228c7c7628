"""08: the measurement that the tutorial began: 100 timed forward passes, after a warm-up, in the pod."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gpurunbook import show
from gpurunbook.plan import Check, Plan
from gpurunbook.stages import next_token
from gpurunbook.stages.next_token import Facts, Prediction

if TYPE_CHECKING:
    from gpurunbook.runbook import Run


def observe(run: Run) -> Facts:
    return next_token.observe(run)


def plan(run: Run, facts: Facts) -> Plan:
    """main.py has to be in the pod; the measurement itself changes nothing and runs again each time."""
    return next_token.plan(run, facts)


def summary(samples_ms: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 and mean in ms, and the count `n` (numpy's linear quantile)."""
    samples = np.asarray(samples_ms, dtype=np.float64)
    p50, p95, p99 = np.quantile(samples, (0.5, 0.95, 0.99))
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99), "mean": float(samples.mean()), "n": len(samples)}


def table(found: Prediction) -> show.Table:
    rows = []
    for arm in found["arms"]:
        s = summary(arm["samples_ms"])
        rows.append((arm["precision"], f"{s['p50']:.1f}", f"{s['p95']:.1f}", f"{s['p99']:.1f}", int(s["n"]),
                     f"{arm['first_seconds'] * 1000:.0f}", f"{arm['load_seconds']:.1f}"))
    return show.Table(("precision", "p50 ms", "p95 ms", "p99 ms", "n", "first call ms", "load s"), rows,
                      f"full forward pass of the prompt, {found['device']}")


def verify(run: Run, *, repetitions: int = 100) -> list[Check]:
    found: Prediction = json.loads((run.artifacts / "latency.json").read_text())
    counts = {arm["precision"]: len(arm["samples_ms"]) for arm in found["arms"]}
    good = all(count == repetitions for count in counts.values())
    positive = all(sample > 0 for arm in found["arms"] for sample in arm["samples_ms"])
    return [Check(f"{repetitions} samples of each precision are kept", "pass" if good else "fail",
                  ", ".join(f"{k}: {v}" for k, v in counts.items()), "run this stage again"),
            Check("every sample took time", "pass" if positive else "fail", "all above 0 ms" if positive else "a sample is 0",
                  "run this stage again")]
