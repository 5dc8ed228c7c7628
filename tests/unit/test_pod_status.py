"""A pod's status from its containers' states."""

from __future__ import annotations

from typing import Any

import pytest

from gpurunbook.targets.rehearsal import pod_status
from gpurunbook.targets.rehearsal.pod_status import ContainerState, phase, report, running, terminated, waiting
from gpurunbook.targets.rehearsal.process import Exit

RUNNING, CREATING, BACKING_OFF = running("t"), waiting("ContainerCreating"), waiting("CrashLoopBackOff", "back-off 1s")


def exited(code: int) -> dict[str, Any]:
    return terminated(Exit(code), "t", "t")


def pod(policy: str = "Always", **status: Any) -> dict[str, Any]:
    return {"metadata": {"uid": "u"}, "spec": {"restartPolicy": policy}, "status": status}


@pytest.mark.parametrize(("policy", "states", "expected"), [
    ("Always", [CREATING], "Pending"), ("Always", [RUNNING, CREATING], "Running"),
    ("Always", [exited(0)], "Running"),
    ("Always", [BACKING_OFF], "Running"), ("OnFailure", [exited(1)], "Running"),
    ("OnFailure", [exited(0)], "Succeeded"),
    ("Never", [exited(0), exited(0)], "Succeeded"), ("Never", [exited(0), exited(2)], "Failed"),
    ("Never", [exited(2), RUNNING], "Running"),
])
def test_phases(policy: str, states: list[dict[str, Any]], expected: str) -> None:
    assert phase(policy, True, states) == expected


def test_a_deleted_pods_ended_containers_stay_ended() -> None:
    assert phase("Always", True, [exited(0)], ending=True) == "Succeeded"
    assert phase("Always", True, [exited(143)], ending=True) == "Failed"


def test_before_its_init_containers_a_pod_is_pending() -> None:
    patch = report(pod(), [ContainerState("i", "x", RUNNING)], [ContainerState("c", "x")])["status"]
    assert patch["phase"] == "Pending"
    assert {c["type"]: c["status"] for c in patch["conditions"]}["Initialized"] == "False"
    assert report(pod(), [ContainerState("i", "x", exited(1))], [ContainerState("c", "x")],
                  init_failed=True)["status"]["phase"] == "Failed"


def test_ready_when_all_containers_are() -> None:
    one, two = ContainerState("a", "x", RUNNING, ready=True), ContainerState("b", "x", RUNNING)
    conditions = {c["type"]: c for c in report(pod(), [], [one, two])["status"]["conditions"]}
    assert conditions["Ready"]["status"] == "False"
    assert conditions["Ready"]["message"] == "containers with unready status: [b]"
    two.ready = True
    conditions = {c["type"]: c for c in report(pod(), [], [one, two])["status"]["conditions"]}
    assert conditions["Ready"]["status"] == conditions["ContainersReady"]["status"] == "True"
    assert conditions["Ready"]["message"] is None, "the patch removes the old one"


def test_unchanged_conditions_keep_their_time() -> None:
    known = [{"type": "Ready", "status": "False", "lastTransitionTime": "long ago"},
             {"type": "Initialized", "status": "False", "lastTransitionTime": "long ago"}]
    patch = report(pod(conditions=known, startTime="then"), [], [ContainerState("a", "x", CREATING)])
    times = {c["type"]: c["lastTransitionTime"] for c in patch["status"]["conditions"]}
    assert times["Ready"] == "long ago"
    assert times["Initialized"] != "long ago"
    assert patch["status"]["startTime"] == "then"
    assert patch["metadata"] == {"uid": "u"}, "a precondition"


@pytest.mark.parametrize(("end", "expected"), [
    (Exit(0), ("Completed", 0, None)), (Exit(3), ("Error", 3, None)), (Exit(137), ("Error", 137, 9)),
    (Exit(255), ("Error", 255, None)), (Exit(1, jailed=False), ("StartError", 128, None)),
])
def test_how_it_ended(end: Exit, expected: tuple[str, int, int | None]) -> None:
    state = terminated(end, "a", "b")["terminated"]
    assert (state["reason"], state["exitCode"], state.get("signal")) == expected


def test_a_container_that_passed_its_memory_limit() -> None:
    state = terminated(Exit(0), "a", "b", "id", oom=True)["terminated"]
    assert (state["exitCode"], state["reason"]) == (137, "OOMKilled")


@pytest.mark.parametrize(("conditions", "expected"), [
    ([{"type": "Ready", "status": "True"}], True), ([{"type": "Ready", "status": "False"}], False),
    ([{"type": "Initialized", "status": "True"}], False), ([], False)])
def test_what_an_object_says_of_being_ready(conditions: list[dict[str, Any]], expected: bool) -> None:
    assert pod_status.ready({"status": {"conditions": conditions}}) is expected


def test_back_off_doubles_to_a_minute() -> None:
    assert [pod_status.backoff(n) for n in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert pod_status.backoff(10_000) == 60


@pytest.mark.parametrize(("policy", "code", "again"), [
    ("Always", 0, True), ("Always", 1, True), ("OnFailure", 0, False), ("OnFailure", 1, True), ("Never", 1, False)])
def test_restart_policies(policy: str, code: int, again: bool) -> None:
    assert pod_status.restarts(policy, code) is again
