"""How the arms are measured: they take turns, every sample is kept, and the machine is asked whether it was quiet.

Absolute times of a busy machine are of no use; a ratio of neighbours is, where an arm against itself shows 1.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

AGAIN = " again"
"""The name of the arm that is measured twice, the second time: what differs between the two is noise."""
QUIET = {"others": 0.10, "calibration": 1.25}
"""Above these a run is called noisy.

`others`: the share of the CPUs that other programs took, with what the hypervisor stole. At a tenth, one of two threads
waits in one sample of five, and p95 tells of the neighbours. `calibration`: p95 over p5 of a loop of fixed length in one
thread, which says the same of frequency, heat and cgroup limits; below 1.1 on an idle machine.
"""


class Sample(NamedTuple):
    """One call. CPU time is of all threads of its process: it grows little when neighbours take turns on the cores."""

    ms: float
    cpu_ms: float


NONE = Sample(math.nan, math.nan)


@dataclass
class Samples:
    """What was measured of an arm, in the order measured. The first call is apart: it compiles, pages in, allocates."""

    first: Sample = NONE
    warm_up: list[Sample] = field(default_factory=list)
    timed: list[Sample] = field(default_factory=list)

    @property
    def ms(self) -> list[float]:
        return [sample.ms for sample in self.timed]


@dataclass
class Machine:
    """What was seen of the machine during the samples. `others` and `stolen` are shares of all CPUs."""

    others: float = math.nan
    stolen: float = math.nan
    calibration_ms: list[float] = field(default_factory=list)

    def complaints(self) -> list[str]:
        """Why these samples should not be believed, in words; empty on a quiet machine."""
        found = []
        if self.others > QUIET["others"]:
            found.append(f"other programs took {self.others:.0%} of the CPUs (stolen by the hypervisor: {self.stolen:.0%})")
        if self.calibration_ms:
            low, high = np.quantile(self.calibration_ms, (0.05, 0.95))
            if high / low > QUIET["calibration"]:
                found.append(f"a loop of fixed length took {low:.2f} to {high:.2f} ms: the CPU is throttled or shared")
        return found


def measure(arms: Mapping[str, Callable[[], Sample]], *, repetitions: int = 100, warm_up: int = 10, rest: float = 0,
            machine: Machine | None = None, own_cpu: Callable[[], float] = time.process_time) -> dict[str, Samples]:
    """Call every arm once in each repetition, and keep all samples.

    ABBA with more than two arms: the order of each even repetition is drawn at random and the odd one after it is its mirror. The
    mirror hits all alike with a drift of the machine; the draw gives each arm all the others as neighbours in turn (in one fixed
    order an arm measured twice stood beside itself, and warm caches made it 2% faster). The draw is the same in every run.

    Args:
        rest: seconds after each call. The threads of one arm spin for a while, and would take a core from the next.
        own_cpu: CPU seconds of this process and of all arms; what the CPUs did besides is laid to others.
    """
    found, order, dice = {name: Samples() for name in arms}, list(arms), random.Random(0)  # noqa: S311
    before, mine = Ticks.now(), own_cpu()
    for i in range(-warm_up - 1, repetitions):
        if i == 0:
            before, mine = Ticks.now(), own_cpu()
        if i % 2:
            order.reverse()
        else:
            dice.shuffle(order)
        for name in order:
            sample = arms[name]()
            time.sleep(rest)
            if i >= 0:
                found[name].timed.append(sample)
            elif i == -warm_up - 1:
                found[name].first = sample
            else:
                found[name].warm_up.append(sample)
        if machine and i >= 0:
            begun = time.perf_counter_ns()
            calibrate()
            machine.calibration_ms.append((time.perf_counter_ns() - begun) / 1e6)
    if machine:
        machine.others, machine.stolen = Ticks.now().since(before, own_cpu() - mine)
    return found


def calibrate() -> int:
    """Some 0.4 ms of arithmetic in registers and the first cache: its time moves with the clock and with neighbours only."""
    x = 1
    for _ in range(10_000):
        x = x * 1103515245 + 12345 & 0xFFFFFFFF
    return x


@dataclass
class Ticks:
    """CPU seconds since boot, all CPUs together."""

    busy: float
    stolen: float
    total: float

    @classmethod
    def now(cls, stat: Path = Path("/proc/stat")) -> Ticks:
        """Zeros where the system has no /proc: nothing is then said of others."""
        try:
            ticks = [int(word) / 100 for word in stat.read_text().split("\n", 1)[0].split()[1:9]]
        except OSError:
            return cls(0, 0, 0)
        user, nice, system, idle, wait, irq, soft, stolen = ticks
        busy = user + nice + system + irq + soft + stolen
        return cls(busy, stolen, busy + idle + wait)

    def since(self, before: Ticks, mine: float) -> tuple[float, float]:
        """Shares of all CPU time between the two: what was not `mine` (seconds), and what the hypervisor stole."""
        total = self.total - before.total
        if not total:
            return math.nan, math.nan
        return max(0.0, (self.busy - before.busy - mine) / total), (self.stolen - before.stolen) / total
