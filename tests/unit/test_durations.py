"""What each rung took, from when it was done and from when a person's command for it began."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gpurunbook.readiness.durations import commands, durations

ZERO = datetime(2026, 11, 23, 5, 35, tzinfo=UTC)
HELM = ["helm", "upgrade", "--install", "gpu-operator", "chart"]


def at(seconds: float) -> datetime:
    return ZERO + timedelta(seconds=seconds)


def took(done: dict[str, float], asked: dict[str, float]) -> dict[str, tuple[float, float]]:
    found = durations([(rung, at(s)) for rung, s in reversed(done.items())], {rung: at(s) for rung, s in asked.items()})
    return {one.rung: (round(one.start, 3), round(one.seconds, 3)) for one in found}


def test_of_one_second_the_lower_rung_comes_first() -> None:
    assert took({"ready": 0, "release": 6, "driver": 6, "capacity": 6, "allocatable": 7}, {}) == {
        "release": (0, 6), "driver": (6, 0), "capacity": (6, 0), "allocatable": (6, 1)}


@pytest.mark.parametrize(("began", "seconds"), [
    (290, 10),
    (300.4, 0),     # the API rounded down when it was done
    (301, 240),     # after it was done: helm was run again, and changed nothing
    (50, 240),      # before the rung below was done: the operator waited for the node
])
def test_a_rung_that_waits_for_a_person_begins_with_the_command(began: float, seconds: float) -> None:
    found = took({"ready": 60, "release": 300, "driver": 330}, {"release": began})
    assert found == {"release": (0, seconds), "driver": (seconds, 30)}, "what a person waited is no part of the axis"


def test_a_command_is_known_by_its_stage_and_what_it_applies() -> None:
    def intent(second: float, stage: str, *argv: str) -> dict[str, Any]:
        return {"kind": "intent", "time": at(second).isoformat(), "stage": stage, "argv": list(argv)}
    assert commands([
        {"kind": "stage", "stage": "gpu_operator", "state": "started"},
        intent(1, "taint", "kubectl", "apply", "-f", "/m/model/prepull.yaml"),
        intent(2, "gpu_operator", *HELM), intent(3, "gpu_operator", *HELM),
        intent(4, "gpu_operator", "kubectl", "apply", "-f", "/r/artifacts/smoke.yaml"),
        intent(5, "model", "kubectl", "apply", "-f", "/m/model/deployment.yaml"),
        intent(6, "teardown", "helm", "uninstall", "gpu-operator"),
    ]) == {"release": at(3), "smoke": at(4), "scheduled": at(5)}
