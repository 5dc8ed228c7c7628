"""benchmarks/inference/harness.py and results.py: no difference where there is none, a slow first call apart, noise said."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.inference import results
from benchmarks.inference.harness import AGAIN, Machine, Sample, Samples, Ticks, measure


def takes(*ms: float) -> Callable[[], Sample]:
    """An arm that takes these milliseconds, one after another, the last for ever."""
    left = list(ms)
    return lambda: Sample(left.pop(0) if len(left) > 1 else left[0], 0)


def drifting(seed: int) -> Callable[[float], Callable[[], Sample]]:
    """Arms of one machine whose speed drifts, and that stalls in one sample of ten."""
    dice, clock = np.random.default_rng(seed), [0.0]

    def arm(factor: float) -> Callable[[], Sample]:
        def call() -> Sample:
            drift = 1 + 0.3 * np.sin(clock[0] / 1000)
            ms = 10 * factor * drift * dice.lognormal(0, 0.03) * (3 if dice.random() < 0.1 else 1)
            clock[0] += ms
            return Sample(ms, ms)
        return call

    return arm


def test_arms_take_turns_in_drawn_orders_each_followed_by_its_mirror() -> None:
    calls: list[str] = []

    def arm(name: str) -> Callable[[], Sample]:
        return lambda: (calls.append(name), Sample(1, 1))[1]

    measure({name: arm(name) for name in "ABCD"}, repetitions=400, warm_up=1)
    rounds = ["".join(calls[i:i + 4]) for i in range(0, len(calls), 4)]
    assert all(sorted(one) == list("ABCD") for one in rounds)
    assert all(a == b[::-1] for a, b in zip(rounds[::2], rounds[1::2], strict=True))
    after = Counter(before for one in rounds for before, name in pairwise(one) if name == "D")
    assert min(after[name] for name in "ABC") > 70  # 100 each, if by chance alone


def test_a_first_call_of_forty_seconds_moves_nothing() -> None:
    found = measure({"arm": takes(40_000, 10)})["arm"]
    assert found.first.ms == 40_000
    assert len(found.ms) == 100
    assert results.quantiles(found.ms) == {"p50": 10, "p95": 10, "p99": 10}


def test_an_arm_against_itself_shows_no_difference() -> None:
    """1 is in the 95% interval in at least 85 of 100 runs: a block bootstrap's intervals are known to be a little narrow."""
    held = 0
    for seed in range(100):
        arm = drifting(seed)
        found = measure({"a": arm(1), "b": arm(2), "a" + AGAIN: arm(1)})
        _, low, high = results.ratio(found["a" + AGAIN].ms, found["a"].ms)
        held += low <= 1 <= high
        assert "differs from itself" not in str(results.against_itself(found, "a"))
    assert held >= 85


def test_a_difference_of_a_tenth_is_seen_through_the_same_drift() -> None:
    arm = drifting(0)
    found = measure({"slow": arm(1), "fast": arm(0.9)})
    middle, low, high = results.ratio(found["fast"].ms, found["slow"].ms)
    assert low < 0.9 < high < 1
    assert middle == pytest.approx(0.9, abs=0.02)


def test_a_wild_arm_is_said_to_be_unknown() -> None:
    dice = np.random.default_rng(0)
    found = {name: Samples(timed=[Sample(ms, 0) for ms in dice.lognormal(0, 1, 100)]) for name in ("a", "a" + AGAIN)}
    assert "against itself" in str(results.against_itself(found, "a"))


def test_a_quiet_machine_has_no_complaints() -> None:
    assert Machine(others=0.02, stolen=0.0, calibration_ms=[0.4, 0.41, 0.42] * 30).complaints() == []


@pytest.mark.parametrize(("machine", "word"), [
    (Machine(others=0.4, stolen=0.3, calibration_ms=[0.4] * 90), "stolen by the hypervisor: 30%"),
    (Machine(others=0.0, stolen=0.0, calibration_ms=[0.4] * 50 + [0.6] * 50), "throttled"),
])  # fmt: skip
def test_a_disturbed_machine_is_said(machine: Machine, word: str) -> None:
    (said,) = machine.complaints()
    assert word in said


def test_what_is_not_mine_is_of_others(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 0 50 800 10 0 0 40 0 0\ncpu0 1 2 3\n")
    now = Ticks.now(stat)
    assert (now.busy, now.stolen, now.total) == pytest.approx((1.9, 0.4, 10.0))
    assert now.since(Ticks(0, 0, 0), mine=1.0) == pytest.approx((0.09, 0.04))
    assert Ticks.now(tmp_path / "none") == Ticks(0, 0, 0)
    assert all(math.isnan(share) for share in Ticks(0, 0, 0).since(Ticks(0, 0, 0), mine=0))


def run_of(factor: float, seed: int) -> dict[str, Any]:
    """A run whose arm `fast` takes `factor` times as long as `fp32`, on a machine of its own speed; the others' luck changes."""
    dice = np.random.default_rng(seed)
    speed = dice.uniform(5, 20)
    luck = dice.uniform(0.97, 1.03, 4)
    return {"arms": {name: {"step": {"ms": list(speed * f * dice.lognormal(0, 0.02, 100))}} for name, f in
                     (("fp32", luck[0]), ("bf16", 0.7 * luck[1]), ("int8", 0.4 * luck[2]), ("fast", factor * luck[3]))}}


@pytest.mark.parametrize(("now", "word"), [(0.5, "same"), (0.35, "better"), (0.7, "worse")])
def test_a_later_run_is_better_same_or_worse(now: float, word: str) -> None:
    found = results.later(run_of(now, 1), run_of(0.5, 2), "step")
    said, (middle, low, high) = found.pop("fast")
    assert said == word
    assert low < middle < high
    assert middle == pytest.approx(now / 0.5, rel=0.1)
    assert {said for said, _ in found.values()} == {"same"}, "what did not change, beside what did"


def test_a_slower_machine_makes_no_arm_worse() -> None:
    run = run_of(0.5, 1)
    slower = {"arms": {name: {"step": {"ms": [2 * ms for ms in arm["step"]["ms"]]}} for name, arm in run["arms"].items()}}
    assert {said for said, _ in results.later(slower, run, "step").values()} == {"same"}


def test_the_reference_itself_may_become_slower_and_alone_is_said_to() -> None:
    run, now = run_of(0.5, 1), run_of(0.5, 1)
    now["arms"]["fp32"]["step"]["ms"] = [1.4 * ms for ms in now["arms"]["fp32"]["step"]["ms"]]
    found = {name: said for name, (said, _) in results.later(now, run, "step").items()}
    assert found == {"fp32": "worse", "bf16": "same", "int8": "same", "fast": "same"}


def test_one_arm_alone_is_compared_with_nothing() -> None:
    run = {"arms": {"fast": run_of(0.5, 1)["arms"]["fast"]}}
    assert results.later(run, run, "step") == {}


def test_a_difference_that_may_be_none_is_not_called() -> None:
    assert results.verdict((1.1, 0.9, 1.3)) == "unknown"


def test_other_machines_are_not_compared() -> None:
    run = {"schema": 1, "machine": {"name": "a"}, "threads": 2, "prompt": "x"}
    assert results.comparable(run, run) is None
    assert "machine" in str(results.comparable(run, run | {"machine": {"name": "b"}}))


def test_results_are_json_with_numbers_on_one_line() -> None:
    found = {"arms": {"a": {"ms": [1.5, 2e-05, float(np.float32(3))], "said": ["x [1, 2]"]}}}
    text = results.written(found)
    assert json.loads(text) == found
    assert len(text.splitlines()) == 10
