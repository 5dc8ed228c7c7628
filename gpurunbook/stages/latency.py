"""08: the measurement that the tutorial began: 100 timed forward passes, after a warm-up, in the pod."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpurunbook import bootstrap, show
from gpurunbook.plan import Check, Plan
from gpurunbook.prediction import arm_name
from gpurunbook.stages import next_token
from gpurunbook.stages.next_token import Facts

if TYPE_CHECKING:
    from gpurunbook.runbook import Run


def observe(run: Run) -> Facts:
    return next_token.observe(run)


def plan(run: Run, facts: Facts) -> Plan:
    """main.py has to be in the pod; the measurement itself changes nothing and runs again each time."""
    return next_token.plan(run, facts)


def summary(samples_ms: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 and mean in ms, and the count `n` (numpy's linear quantile). Of 100 samples p99 is nearly the slowest."""
    samples = np.asarray(samples_ms, dtype=np.float64)
    p50, p95, p99 = np.quantile(samples, (0.5, 0.95, 0.99))
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99), "mean": float(samples.mean()), "n": len(samples)}


def roofline(found: dict[str, Any], arm: dict[str, Any]) -> float | None:
    """Milliseconds, a rough floor: the weights that a pass reads, once, at the copy bandwidth measured in the same run.

    No bound: a copy also writes, and memory that only reads may be faster; what a cache keeps is not read at all. None for an
    older answer, in which no bandwidth was measured.
    """
    copied = found.get("copy_bytes_per_second")
    return float(arm["weight_bytes"] / copied * 1000) if copied else None


def compared(found: dict[str, Any]) -> str:
    """`8-bit LLM.int8 (fp16) takes 2.10 times as long as reference (bf16) (95% interval, roughly: 2.05 to 2.14)`.

    "" for one arm; without the interval for fewer samples than it needs.
    """
    counts = {len(arm["samples_ms"]) for arm in found["arms"][:2]}
    if len(found["arms"]) < 2 or len(counts) > 1 or counts == {0} or not all(min(a["samples_ms"]) > 0 for a in found["arms"][:2]):
        return ""
    one, other = found["arms"][:2]
    times = np.median(one["samples_ms"]) / np.median(other["samples_ms"])
    interval = bootstrap.ratio_of_medians(one["samples_ms"], other["samples_ms"], paired=True)
    return (f"{arm_name(one)} takes {times:.2f} times as long as {arm_name(other)}"
            + (f" (95% interval, roughly: {interval[0]:.2f} to {interval[1]:.2f})" if interval else ""))


def table(found: dict[str, Any]) -> show.Table:
    """Of the arms that were timed. The last columns are the roofline, and how near p50 comes to it."""
    rows: list[tuple[object, ...]] = []
    for arm in found["arms"]:
        s, floor = summary(arm["samples_ms"]), roofline(found, arm)
        rows.append((arm_name(arm), f"{s['p50']:.1f}", f"{s['p95']:.1f}", f"{s['p99']:.1f}", int(s["n"]),
                     f"{arm['first_seconds'] * 1000:.0f}", f"{arm['load_seconds']:.1f}",
                     *((f"{floor:.1f}", f"{floor / s['p50']:.0%}" if s["p50"] else "") if floor else ())))
    columns = ("precision", "p50 ms", "p95 ms", "p99 ms", "n", "first call ms", "load s")
    return show.Table(columns + ("floor ms", "floor of p50") * (len(rows[0]) > len(columns)), rows,
                      f"full forward pass of {len(found['prompt_tokens'])} tokens, {found['device']}"
                      + (f"; {said}" if (said := compared(found)) else ""))


def verify(run: Run, *, repetitions: int = 100) -> list[Check]:
    found: dict[str, Any] = json.loads((run.artifacts / "latency.json").read_text())
    counts = {arm["precision"]: len(arm["samples_ms"]) for arm in found["arms"]}
    good = all(count == repetitions for count in counts.values())
    positive = all(sample > 0 for arm in found["arms"] for sample in arm["samples_ms"])
    return [Check(f"{repetitions} samples of each precision are kept", "pass" if good else "fail",
                  ", ".join(f"{k}: {v}" for k, v in counts.items()), "run this stage again"),
            Check("every sample took time", "pass" if positive else "fail", "all above 0 ms" if positive else "a sample is 0",
                  "run this stage again")]
