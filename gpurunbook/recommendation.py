"""Which precision to use on this device, and why: from one answer of main.py, and from nothing else.

The rule: of the precisions that leave room in the GPU's memory and give the same answer, one that is clearly faster than 16
bits; if there is none, 16 bits; if these are not among them, the fastest. No speed is claimed where the interval of the ratio
holds 1, and what is arithmetic is called so.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpurunbook import bootstrap, show
from gpurunbook.prediction import DTYPES, PRECISIONS, arm_name
from gpurunbook.tokens import visible

Arm = dict[str, Any]
Advice = tuple[str, str, list[str], str]
"""What to do, why, the reasons, and the state of the box."""
SIXTEEN = ("reference", "bf16", "fp16")
"""Precisions with 16-bit weights: the others are held against the first of them that ran."""
WIDENED = {"int8": 2.0, "nf4": 4.0, "fp32": 0.5}
"""Times its weights that the same model takes in 16 bits, at most: what is not quantised has 16 bits already."""
ROOM = 1.2
"""Times the weights that there should be: activations, the CUDA context, an embedding's rows that no pass reads."""
DELTA = 0.4
"""The most that a log p may be off, as in benchmarks/inference/quality.py."""
WORTH = 0.95
"""Of the time of 16 bits that another may take at most: what it changes in the answer should bring something."""
AGAIN = "next: {} in the parameters of 08, and run it again"
BOTH = AGAIN.format('precisions = "int8,reference"') + "; if they do not fit at once, each alone"


@dataclass(frozen=True)
class Beside:
    """An arm beside the 16-bit one.

    Attributes:
        ratio: of the medians of their times, `low` and `high` the ends of its 95% interval: NaN where there is none.
        delta: the largest difference of a log p over the `of` top tokens of `truth`. Of a token that the arm does not show its
            log p is not known: if fewer are `kept`, the least that it can be.
        before, after: the most likely token of the truth, and the arm's.
    """

    arm: Arm
    name: str
    ratio: float
    low: float
    high: float
    truth: str
    delta: float
    kept: int
    of: int
    before: str
    after: str

    def flaw(self, memory: int | None) -> str:
        """Why not to choose it, "" for no reason. It ran, so in a memory of unknown size it fits."""
        if not _fits(self.arm, memory):
            return "leaves little room in memory"
        if self.delta > DELTA:
            return "changes the answer too much"
        return "" if self.kept == self.of else "may change the answer too much"

    def speed(self, base: Arm) -> str:
        """What of its speed can be said, and what that rests on."""
        one, other = _times(self.arm), _times(base)
        if math.isnan(self.high):
            return (f"speed: no claim, from {len(one)} passes of {self.name} and {len(other)} of {name(base)}: an interval takes "
                    f"as many of both, and at least {bootstrap.FEWEST}.")
        rests = (f"p50 {np.median(one):.1f} against {np.median(other):.1f} ms; 95% interval of the ratio, roughly: "
                 f"{self.low:.2f} to {self.high:.2f}")
        if self.low <= 1 <= self.high:
            return f"speed: no difference between {self.name} and {name(base)} was found ({rests}, which includes 1)."
        return f"speed: {self.name} takes {self.ratio:.2f} times as long as {name(base)} ({rests})."

    def change(self) -> str:
        """What it costs in the answer to this one prompt."""
        top = f"the {self.of} most likely tokens" if self.of > 1 else "the most likely token"
        much = f"{self.delta:.2f} (a factor of {math.exp(self.delta):.2f})" if self.delta < 5 else f"{self.delta:.3g}"
        told = f"up to {much} against {self.truth}"
        if self.kept < self.of:
            told = f"at least {much} against {self.truth} and keeps {self.kept} of them"
        first = f"stays {self.after}" if self.before == self.after else f"becomes {self.after}, from {self.before}"
        same = (" That does not count as the same answer, which keeps all of them and moves none by more than "
                f"{DELTA:g}.") * bool(self.flaw(None))
        return f"answer: {self.name} moves log p of {top} by {told}; the first one {first}.{same}"


def beside(arm: Arm, base: Arm, truth: Arm) -> Beside:
    """`arm` with its time against `base`'s, and its answer against `truth`'s."""
    one, other = _times(arm), _times(base)
    ends = bootstrap.ratio_of_medians(one, other, paired=True) if len(one) == len(other) else None
    speed = (float(np.median(one) / np.median(other)), *ends) if ends else (math.nan, math.nan, math.nan)
    there, least = {t["id"]: t["logp"] for t in arm["top"]}, arm["top"][-1]["logp"]
    # A token that is not among the arm's own is less likely there than the last of them.
    deltas = [abs(t["logp"] - there[t["id"]]) if t["id"] in there else max(0.0, t["logp"] - least) for t in truth["top"]]
    return Beside(arm, name(arm), *speed, name(truth), max(deltas), sum(t["id"] in there for t in truth["top"]), len(deltas),
                  visible(truth["top"][0]), visible(arm["top"][0]))


def of(found: dict[str, Any]) -> show.Box:
    """The advice as a title, its reasons below it, and in the fold how far they reach.

    Args:
        found: what main.py printed, or what was kept of it; keys that only later versions print may be absent.
    """
    device, arms, tokens = str(found["device"]), found["arms"], len(found["prompt_tokens"])
    cpu, capability = device.startswith("CPU"), str(found.get("compute_capability"))
    base = next((arm for precision in SIXTEEN for arm in arms if arm["precision"] == precision), None)
    choice, why, lines, state = _with(found, base) if base else _without(found)
    lines += ["limits: this holds for this CPU and this model, and says nothing about a GPU. Faster ways on a CPU: "
              "make bench-inference, in a checkout."] * cpu
    fold = ["how far this goes",
            f"Measured: {found['model']} on {device}, one prompt of {tokens} token{'s' * (tokens != 1)} at a time, in "
            f"{', '.join(arm_name(arm) for arm in arms)}. Not measured: other precisions, long prompts, many requests at once.",
            "One prompt is no test of quality: the answer to another may change more, or not at all."]
    if base and base["dtype"] == "float16" and re.fullmatch(r"[1-7]\.\d", capability):
        fold.append(f"16 bits are fp16 here: a GPU of compute capability {capability} does not compute in bf16.")
    where = f"for {str(found['model']).rsplit('/', 1)[-1].split(' (')[0]} on this {'CPU' if cpu else device}"
    return show.Box(f"{choice} {where}: {why}", tuple(lines), state, tuple(fold))


def _with(found: dict[str, Any], base: Arm) -> Advice:
    """A 16-bit arm ran: the rule."""
    memory, arms = found.get("device_memory_bytes"), found["arms"]
    truth = next((arm for arm in arms if arm["precision"] == "fp32"), base)
    own, *others = (beside(arm, base, truth) for arm in (base, *(arm for arm in arms if name(arm) != name(base))))
    lines = [*(one.speed(base) for one in others), *(one.change() for one in (*others, own) if one.name != one.truth),
             _memory(found, base)]
    good = [one for one in (own, *others) if not one.flaw(memory)]
    worth = [one for one in good if one.high < WORTH]
    if good and (worth or own not in good):
        best = min(worth or good, key=_order)
        why = f"it takes {best.ratio:.2f} of the time of {own.name}" if worth else f"{own.name} {own.flaw(memory)}"
        first = f"; {best.name} puts another token first than {best.truth}" * (best.before != best.after)
        return f"Use {best.name}", why + first, lines, "pass"
    if good:
        why, more = _stays(own, others, memory)
        fits = f", and {own.name} fits" * bool(memory)
        return f"{'Keep' if more else 'Use'} {own.name}", why + fits, lines + more, "warn" if more else "pass"
    if not others:
        return f"Keep {own.name}", f"it {own.flaw(memory)}, and nothing else was measured", [*lines, BOTH], "warn"
    # With all of them loaded at once, no real answer comes to here: what is said has to be true all the same.
    lighter = [one for one in others if not one.flaw(None) and one.arm["weight_bytes"] < base["weight_bytes"]]
    best = min(lighter, key=lambda one: one.arm["weight_bytes"], default=own)
    rest = "has both room and the same answer" if any(_fits(arm, memory) for arm in arms) else "smaller has room either"
    smallest = f"; {best.name} is the smallest with the same answer" * (best is not own)
    return (f"{'Keep' if best is own else 'Use'} {best.name}", f"{own.name} {own.flaw(memory)}, and nothing {rest}{smallest}",
            lines, "warn")


def _stays(own: Beside, others: list[Beside], memory: int | None) -> tuple[str, list[str]]:
    """Why 16 bits are chosen, and what to measure if that is not sure."""
    if not others:
        return "nothing else was measured", [BOTH]
    best = min(others, key=_order)
    takes, flaw = f"{best.name} takes {best.ratio:.2f}", best.flaw(memory)
    if math.isnan(best.high):
        return "which is faster is not known", [AGAIN.format("repetitions = 100")]
    if best.high >= 1:
        return f"{takes} times as long" if best.low > 1 else f"{best.name} is not measurably faster", []
    if flaw or best.ratio >= WORTH:
        return f"{takes} of its time, {f'but {flaw}' if flaw else 'too little to change for'}", []
    return (f"{best.name} is faster, but by how much is too uncertain ({best.low:.2f} to {best.high:.2f})",
            [AGAIN.format(f"repetitions = {4 * len(own.arm['samples_ms'])}")])


def _without(found: dict[str, Any]) -> Advice:
    """No 16-bit arm ran, and what it would take is arithmetic."""
    memory, arms = found.get("device_memory_bytes"), found["arms"]
    known = [(WIDENED[arm["precision"]] * arm["weight_bytes"], arm) for arm in arms if arm["precision"] in WIDENED]
    if not known or not memory:
        return "Measure 16 bits too, before you choose", "nothing in 16 bits ran to hold the others against", [BOTH], "warn"
    most, arm = min(known, key=lambda one: one[0])
    lines = [f"memory: 16 bits take at most {_gb(most)}, going by the {_gb(arm['weight_bytes'])} of {name(arm)}; with a fifth "
             f"more for the pass itself {_gb(most * ROOM)} (arithmetic). This GPU has {_gb(memory)}."]
    if most * ROOM <= memory:
        return "Measure 16 bits too, before you choose", "they fit", [*lines, BOTH], "warn"
    best = max(arms, key=lambda one: one["weight_bytes"] * (1 if _fits(one, memory) else -1))
    lines += [f"memory: {name(best)} has little room itself; a longer prompt may not fit."] * (not _fits(best, memory))
    return f"Use {name(best)}", "16 bits may leave little room in memory", [
        *lines, f"answer: what {name(best)} changes in it is not known: nothing in 16 bits ran beside it.",
        AGAIN.format('precisions = "reference"') + "; that tells whether 16 bits fit"], "warn"


def _memory(found: dict[str, Any], base: Arm) -> str:
    memory, needs = found.get("device_memory_bytes"), base["weight_bytes"] * ROOM
    weights = {name(arm): _gb(arm["weight_bytes"]) for arm in found["arms"]}
    told = f"memory: the weights take {', '.join(f'{size} in {one}' for one, size in weights.items())}."
    if not memory:
        return f"{told} How much memory there is for them is not in this answer."
    left = f"{_gb(memory - needs)} are left for longer prompts" if needs <= memory else "a longer prompt may not fit"
    peak = max(arm["peak_memory_bytes"] for arm in found["arms"])
    return (f"{told} With a fifth more for the pass itself {name(base)} needs {_gb(needs)} of this GPU's {_gb(memory)} "
            f"(arithmetic): {left}. Measured in use, with all of these loaded: {_gb(peak)}.")


def _fits(arm: Arm, memory: int | None) -> bool:
    return not memory or arm["weight_bytes"] * ROOM <= memory


def _order(one: Beside) -> tuple[float, int]:
    """The fastest first; last what was not timed, of it the one with the most bits first."""
    return (math.inf if math.isnan(one.high) else one.ratio, -one.arm["weight_bytes"])


def _times(arm: Arm) -> list[float]:
    """Milliseconds; no pass takes less than a nanosecond, and what is said to is not believed."""
    return list(arm["samples_ms"]) if min(arm["samples_ms"], default=0) >= 1e-6 else []


def name(arm: Arm) -> str:
    """`fp16`, of the reference too when that is its type; `8-bit LLM.int8`."""
    precision = str(arm["precision"])
    return DTYPES.get(arm["dtype"], str(arm["dtype"])) if precision in SIXTEEN else PRECISIONS.get(precision, precision)


def _gb(count: float) -> str:
    return f"{count / 1e9:.2f} GB"
