"""Which precision to use on this device, and why: from one answer of main.py, and from nothing else.

The rule: 16 bits, unless they leave no room in the GPU's memory, or another precision is faster and says the same. No speed is
claimed where the interval of the ratio holds 1, and what is arithmetic is called so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpurunbook import bootstrap, show
from gpurunbook.prediction import DTYPES, PRECISIONS, arm_name
from gpurunbook.tokens import visible

Arm = dict[str, Any]

SIXTEEN = ("reference", "bf16", "fp16")
"""Precisions with 16-bit weights: the others are held against the first of them that ran."""
WIDENED = {"int8": 2.0, "nf4": 4.0, "fp32": 0.5}
"""Times its weights that the same model takes in 16 bits, at most: what is not quantised has 16 bits already."""
EIGHTH = 0.62
"""Times the weights in 16 bits that LLM.int8 takes at most: half, and what it leaves in 16 bits (0.52 of dolly-v2-3b)."""
ROOM = 1.2
"""Times the weights that there should be: activations, the CUDA context, an embedding's rows that no pass reads."""
DELTA, SHARED = 0.4, 0.9
"""The gate of benchmarks/inference/quality.py: the most that a log p may be off, and the top tokens in common."""
WORTH = 0.95
"""Of the time of 16 bits that another may take at most: what it changes in the answer should bring something."""
SHORTEST = 1e-6
"""Milliseconds: no pass takes less than a nanosecond, and what is said to is not believed."""
AGAIN = 'next: precisions = "{}" in the parameters of 08, and run it again'


@dataclass(frozen=True)
class Beside:
    """An arm beside the 16-bit one.

    Attributes:
        ratio: of the medians of their times; None if one was not timed. `interval`: 95%, None for too few samples.
        delta: the largest difference of a log p over the top tokens of `truth`; of a token that is not among the arm's own
            only the least that it can be is known, and `kept` is less than `of`.
        before, after: the most likely token of the truth, and the arm's.
    """

    arm: Arm
    name: str
    ratio: float | None
    interval: tuple[float, float] | None
    truth: str
    delta: float
    kept: int
    of: int
    before: str
    after: str

    @property
    def passes(self) -> bool:
        return self.delta <= DELTA and self.kept >= SHARED * self.of

    @property
    def faster(self) -> bool:
        return self.interval is not None and self.interval[1] < 1

    @property
    def slower(self) -> bool:
        return self.interval is not None and self.interval[0] > 1

    @property
    def worth(self) -> bool:
        return self.passes and self.interval is not None and self.interval[1] < WORTH

    def speed(self, base: Arm) -> str:
        """What of its speed can be said, and what that rests on."""
        if self.ratio is None:
            return f"{self.name}: its speed beside {name(base)} was not measured."
        p50 = f"p50 {np.median(self.arm['samples_ms']):.1f} against {np.median(base['samples_ms']):.1f} ms"
        if self.interval is None:
            return (f"{self.name}: {p50}, from {len(base['samples_ms'])} passes of each; below {bootstrap.FEWEST} there is no "
                    "interval, and so no claim.")
        low, high = self.interval
        rests = f"{p50}; 95% interval of the ratio, roughly: {low:.2f} to {high:.2f}"
        if self.faster or self.slower:
            return f"{self.name} takes {self.ratio:.2f} times as long as {name(base)} ({rests})."
        return f"{self.name} and {name(base)}: no difference in speed was found ({rests}, which includes 1)."

    def change(self) -> str:
        """What it costs in the answer to this one prompt."""
        known = self.kept == self.of
        top = f"the {self.of} most likely tokens" if self.of > 1 else "the most likely token"
        first = f"stays {self.after}" if self.before == self.after else f"becomes {self.after}, from {self.before}"
        much = f"{self.delta:.2f} (a factor of {math.exp(self.delta):.2f})" if self.delta < 5 else f"{self.delta:.3g}"
        told = (f"{self.name} moves log p of {top} by {'up to' if known else 'at least'} {much} against {self.truth}"
                + ("" if known else f" and keeps {self.kept} of them") + f"; the first one {first}.")
        return told if self.passes else (f"{told} That is too much to count as the same answer: at most {DELTA:g}, and "
                                         f"{SHARED:.0%} of the tokens kept.")


def beside(arm: Arm, base: Arm, truth: Arm) -> Beside:
    """`arm` with its time against `base`'s, and its answer against `truth`'s."""
    one, other = arm["samples_ms"], base["samples_ms"]
    timed = bool(one) and len(one) == len(other) and min(*one, *other) >= SHORTEST
    there, least = {t["id"]: t["logp"] for t in arm["top"]}, arm["top"][-1]["logp"]
    # A token that is not among the arm's own is less likely there than the last of them.
    deltas = [abs(t["logp"] - there[t["id"]]) if t["id"] in there else max(0.0, t["logp"] - least) for t in truth["top"]]
    return Beside(arm, name(arm), float(np.median(one) / np.median(other)) if timed else None,
                  bootstrap.ratio_of_medians(one, other, paired=True) if timed else None, name(truth), max(deltas),
                  sum(t["id"] in there for t in truth["top"]), len(deltas), visible(truth["top"][0]), visible(arm["top"][0]))


def of(found: dict[str, Any]) -> show.Box:
    """The advice as a title, its reasons below it, and in the fold how far they reach.

    Args:
        found: what main.py printed, or what was kept of it; keys that only later versions print may be absent.
    """
    arms = found["arms"]
    base = next((arm for precision in SIXTEEN for arm in arms if arm["precision"] == precision), None)
    title, lines, state = _without(found, arms) if base is None else _with(found, base, arms)
    if on_cpu(found):
        lines += ["limits: this holds for this CPU and this model, and says nothing about a GPU. Faster ways on a CPU: "
                  "make bench-inference, in a checkout."]
    tokens = len(found["prompt_tokens"])
    fold = ["how far this goes",
            f"Measured: {found['model']} on {found['device']}, one prompt of {tokens} token{'s' * (tokens != 1)} at a time, in "
            f"{_and([arm_name(arm) for arm in arms])}. Not measured: other precisions, long prompts, many requests at once.",
            "One prompt is no test of quality: the answer to another may change more, or not at all."]
    capability = str(found.get("compute_capability"))
    if base and base["dtype"] == "float16" and re.fullmatch(r"[1-7]\.\d", capability):
        fold.append(f"16 bits are fp16 here: a GPU of compute capability {capability} does not compute in bf16.")
    return show.Box(title, tuple(lines), state, tuple(fold))


def on_cpu(found: dict[str, Any]) -> bool:
    return str(found["device"]).startswith("CPU")


def _with(found: dict[str, Any], base: Arm, arms: Sequence[Arm]) -> tuple[str, list[str], str]:
    """A 16-bit arm ran: it stays unless another is better. Title, reasons and state."""
    memory, named, where = found.get("device_memory_bytes"), name(base), _where(found)
    truth = next((arm for arm in arms if arm["precision"] == "fp32"), base)
    others = [beside(arm, base, truth) for arm in arms if name(arm) != named]
    roomy = [other for other in others if _fits(other.arm, memory)]
    timed = [other for other in others if other.interval]
    own = beside(base, base, truth)
    lines = [f"speed: {other.speed(base)}" for other in others]
    lines += [f"answer: {one.change()}" for one in (*others, own) if one.name != one.truth]
    lines += [f"memory: {_memory(found, base, others)}", *_reading(found, base, others)]
    fits = f", and {named} fits" if memory and _fits(base, memory) else ""
    if not _fits(base, memory):
        if not roomy:
            return f"Keep {named} {where}: it ran, with little room in memory, and nothing smaller did", lines, "warn"
        best = min([o for o in roomy if o.passes] or roomy, key=_order)
        but = _but(best, f"; {best.name} ")
        return f"Use {best.name} {where}: {named} leaves little room in its memory{but}", lines, "warn" if but else "pass"
    if not own.passes and _fits(truth, memory):
        return f"Use {own.truth} {where}: {named} changes the answer too much", lines, "pass"
    if worth := [other for other in roomy if other.worth]:
        best = min(worth, key=_order)
        return f"Use {best.name} {where}: it takes {best.ratio:.2f} of the time of {named}{_but(best, ', but ')}", lines, "pass"
    if not others:
        if not memory or base["weight_bytes"] * (1 + EIGHTH) * ROOM <= memory:
            lines.append(AGAIN.format("int8,reference"))
        return f"Keep {named} {where}: nothing else was measured{fits}", lines, "warn"
    if not timed:
        why = "too few passes to tell which is faster" if any(o.ratio for o in others) else "which is faster was not measured"
        return f"Keep {named} {where}: {why}{fits}", [*lines, AGAIN.replace('precisions = "{}"', "repetitions = 100")], "warn"
    best = min(timed, key=_order)
    why = "is not measurably faster"
    if best.slower:
        why = f"takes {best.ratio:.2f} times as long"
    elif best.faster:
        why = f"takes {best.ratio:.2f} of its time, " + (
            "but changes the answer too much" if not best.passes else
            "but leaves little room in memory" if best.worth else "too little to change for")
    return f"Use {named} {where}: {best.name} {why}{fits}", lines, "pass"


def _without(found: dict[str, Any], arms: Sequence[Arm]) -> tuple[str, list[str], str]:
    """No 16-bit arm ran, and what it would take is arithmetic. Title, reasons and state."""
    memory, where = found.get("device_memory_bytes"), _where(found)
    known = [(WIDENED[arm["precision"]] * arm["weight_bytes"], arm) for arm in arms if arm["precision"] in WIDENED]
    if not known or not memory:
        return f"Measure 16 bits too, before you choose {where}", [
            f"speed: only {_and([name(arm) for arm in arms])} ran: nothing in 16 bits to hold it against.",
            AGAIN.format("int8,reference")], "warn"
    most, arm = min(known, key=lambda one: one[0])
    needs = (f"memory: 16 bits would take up to {size(most)} of weights, going by the {size(arm['weight_bytes'])} of {name(arm)}"
             f"; with a fifth more for the pass itself {size(most * ROOM)} (arithmetic). This GPU has {size(memory)}.")
    if most * ROOM <= memory:
        both = most * (1 + EIGHTH) * ROOM <= memory
        return f"Measure 16 bits too, before you choose {where}: they fit", [
            needs, AGAIN.format("int8,reference" if both else "reference")], "warn"
    best = max(arms, key=lambda one: one["weight_bytes"] * (1 if _fits(one, memory) else -1))
    tight = [] if _fits(best, memory) else [f"memory: {name(best)} has little room itself; a longer prompt may not fit."]
    return f"Use {name(best)} {where}: 16 bits leave little room in its memory, or none", [
        needs, *tight, f"answer: what {name(best)} changes in it is not known: nothing in 16 bits ran beside it."], "warn"


def _reading(found: dict[str, Any], base: Arm, others: Sequence[Beside]) -> list[str]:
    """How much of the 16-bit pass is the reading of its weights, which is all that fewer bits can save."""
    copied, samples = found.get("copy_bytes_per_second"), base["samples_ms"]
    if not copied or not samples or not any(other.arm["weight_bytes"] < base["weight_bytes"] for other in others):
        return []
    floor, p50 = base["weight_bytes"] / copied * 1000, float(np.median(samples))
    return [f"reading: the weights of {name(base)} take about {floor:.1f} of its {p50:.1f} ms, at the copy bandwidth of this run "
            "(arithmetic). Fewer bits can hardly save more than that."] if floor < p50 else []


def _memory(found: dict[str, Any], base: Arm, others: Sequence[Beside]) -> str:
    memory, needs = found.get("device_memory_bytes"), base["weight_bytes"] * ROOM
    own = f"{name(base)} has {size(base['weight_bytes'])} of weights"
    smaller = [f"{o.name} {size(o.arm['weight_bytes'])}" for o in others if o.arm["weight_bytes"] < base["weight_bytes"]]
    told = f"{_and([own, *smaller])}."
    if on_cpu(found):
        return told
    if not memory:
        return f"{told} {name(base)} ran, so it fits for this prompt; how much memory this GPU has is not in this answer."
    peak = max(arm["peak_memory_bytes"] for arm in found["arms"])
    loaded = "with both loaded" if len(found["arms"]) == 2 else f"with {len(found['arms'])} loaded" * (len(found["arms"]) > 2)
    left = (f"{size(memory - needs)} are left for the cache of longer prompts" if needs <= memory
            else "a longer prompt may not fit")
    return (f"{told} With a fifth more for the pass itself {name(base)} needs {size(needs)} of this GPU's {size(memory)} "
            f"(arithmetic): {left}. Measured in use{' ' * bool(loaded)}{loaded}: {size(peak)}.")


def _fits(arm: Arm, memory: int | None) -> bool:
    """With room; taken for granted where the memory is not known, since it ran."""
    return not memory or arm["weight_bytes"] * ROOM <= memory


def _order(other: Beside) -> tuple[float, int]:
    """The fastest first; where nothing was timed, the one with the most bits."""
    return (other.ratio or float("inf"), -other.arm["weight_bytes"])


def _but(best: Beside, joint: str) -> str:
    """What to know at once of what is recommended; "" where it gives the same answer."""
    if not best.passes:
        return f"{joint}changes the answer much"
    return "" if best.before == best.after else f"{joint}puts another token first"


def name(arm: Arm) -> str:
    """`fp16`, of the reference too when that is its type; `8-bit LLM.int8`."""
    precision = str(arm["precision"])
    return DTYPES.get(arm["dtype"], str(arm["dtype"])) if precision in SIXTEEN else PRECISIONS.get(precision, precision)


def size(count: float) -> str:
    """Bytes in GB (10^9), or in MB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _where(found: dict[str, Any]) -> str:
    return f"for {str(found['model']).rsplit('/', 1)[-1].split(' (')[0]} on this {'CPU' if on_cpu(found) else found['device']}"


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
