"""Each rung's limit, to the second; and a slow installation that goes well, in which nothing is ever found wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from gpurunbook.readiness.diagnose import ladder
from gpurunbook.readiness.rungs import BY_NAME, RUNGS
from gpurunbook.readiness.snapshot import Probe, Snapshot
from gpurunbook.stages.taint import UNINITIALIZED
from tests.readiness import (
    CPU,
    NAMES,
    NODE,
    NOW,
    Object,
    ago,
    conditions,
    event,
    get,
    healthy,
    pod,
    policy,
    release,
    smoke,
    unscheduled,
    waits,
    without,
)

Stalled = Callable[[float], Snapshot]
RULES: dict[str, Stalled] = {}


def rung(name: str) -> Callable[[Stalled], Stalled]:
    def add(made: Stalled) -> Stalled:
        RULES[name] = made
        return made
    return add


def unready(s: Snapshot, name: str, at: float) -> Snapshot:
    """A pod that has been on its way for so many seconds, and so has all below it been done for longer."""
    waits(get(s, name), "ContainerCreating")
    get(s, name)["status"]["conditions"] = conditions(at, PodScheduled="True", Ready="False")
    return without(s, *(pod for pod in ("dolly-1", "gpu-smoke-1") if pod != name))


@rung("joined")
def nobody(at: float) -> Snapshot:
    return Snapshot(events=(event("Node", "gone", "NodeNotReady", "x", at=at),))


@rung("ready")
def not_ready(at: float) -> Snapshot:
    s = healthy()
    get(s, NODE)["status"]["conditions"] = conditions(at, Ready="False")
    return s


@rung("initialized")
def tainted(at: float) -> Snapshot:
    s = healthy()
    get(s, NODE)["spec"]["taints"] = [{"key": UNINITIALIZED, "effect": "NoSchedule", "timeAdded": ago(at)}]
    return s


@rung("pci-label")
def unlabelled(at: float) -> Snapshot:
    s = without(healthy(), "driver-1", "toolkit-1", "plugin-1")
    get(s, NODE)["metadata"]["labels"] = {"group": "gpu-workers"}
    return unready(s, "nfd-worker-ip-10-0-0", at)


@rung("release")
def controller_starts(at: float) -> Snapshot:
    s = healthy()
    return unready(replace(s, pods=(*s.pods, pod("gpu-operator-5c", app="gpu-operator", on=CPU))), "gpu-operator-5c", at)


@rung("driver")
def building(at: float) -> Snapshot:
    return unready(healthy(), "driver-1", at)


@rung("toolkit")
def configuring(at: float) -> Snapshot:
    return unready(healthy(), "toolkit-1", at)


@rung("device-plugin")
def registering(at: float) -> Snapshot:
    return unready(healthy(), "plugin-1", at)


def bare(at: float, capacity: str) -> Snapshot:
    s = without(healthy(), "dolly-1", "gpu-smoke-1")
    get(s, "plugin-1")["status"]["conditions"] = conditions(at, Ready="True")
    get(s, NODE)["status"] |= {"capacity": {"nvidia.com/gpu": capacity}, "allocatable": {"nvidia.com/gpu": "0"}}
    return s


@rung("capacity")
def no_gpu(at: float) -> Snapshot:
    return bare(at, "0")


@rung("allocatable")
def ill(at: float) -> Snapshot:
    return bare(at, "1")


@rung("smoke")
def computing(at: float) -> Snapshot:
    s = healthy()
    get(s, "gpu-smoke-1")["metadata"]["creationTimestamp"] = ago(at)
    waits(get(s, "gpu-smoke-1"), "ContainerCreating")
    get(s, "gpu-smoke-1")["status"] |= {"phase": "Pending", "conditions": conditions(at, PodScheduled="True")}
    return without(s, "dolly-1")


@rung("scheduled")
def unplaced(at: float) -> Snapshot:
    s = healthy()
    unscheduled(get(s, "dolly-1"), "0/3 nodes are available: 3 Insufficient cpu.", at=at)
    return s


def starting(at: float, **container: object) -> Snapshot:
    s = healthy()
    waits(get(s, "dolly-1"), "ContainerCreating")
    get(s, "dolly-1")["status"]["conditions"] = conditions(at, PodScheduled="True", Ready="False")
    get(s, "dolly-1")["status"]["containerStatuses"][0] |= container
    return s


@rung("pulled")
def pulling(at: float) -> Snapshot:
    return starting(at)


@rung("running")
def loading(at: float) -> Snapshot:
    return starting(at, imageID="sha256:1", state={"waiting": {}})


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("patience", [1.0, 0.5])
def test_a_rung_is_late_after_its_limit_and_not_before(name: str, patience: float) -> None:
    limit = BY_NAME[name].limit * patience
    names = replace(NAMES, since=NOW - timedelta(days=1))
    before = ladder(RULES[name](limit - 1), names, NOW, patience)
    assert before.findings == ()
    [step] = [step for step in before.nodes[0].steps if step.rung == name]
    assert step.state == "waiting"
    after = ladder(RULES[name](limit + 1), names, NOW, patience)
    assert [f.rung for f in after.findings] == [name]


def test_every_rung_has_its_limit_tested() -> None:
    """Whether exec answers is asked, and not waited for: that rung has no wait."""
    assert set(RULES) == {one.name for one in RUNGS} - {"exec"}


def test_a_limit_leaves_room_beyond_what_is_usual() -> None:
    assert [one.name for one in RUNGS if one.limit < 2.5 * one.usual[1]] == []


# A slow installation

def at(second: float) -> Snapshot:
    """Twelve minutes and more on AWS, as they look at a second.

    0 node joins; 20 Ready; 30 taint gone; 60 helm; 75 operator Ready; 90 NFD labels; 100 driver starts, pulls with one
    hiccup, builds until 700; 710 toolkit restarts containerd; 740 plug-in Ready; 742 GPU; 745 to 790 smoke pod;
    800 model's pod, whose pull fails once and ends at 1150; 1160 Ready.
    """
    s = healthy()

    def age(moment: float) -> float:
        return second - moment

    own, cpu = get(s, NODE), get(s, CPU)
    for one in (own, cpu):
        one["metadata"]["creationTimestamp"] = ago(age(0))
        one["status"]["conditions"] = conditions(age(20), Ready="True") if second >= 20 else conditions(age(0), Ready="False")
    if second < 30:
        own["spec"]["taints"] = [{"key": UNINITIALIZED, "effect": "NoSchedule"}]
    if second < 90:
        for label in [key for key in own["metadata"]["labels"] if key.startswith("feature.")]:
            own["metadata"]["labels"].pop(label)
    if second < 742:
        own["status"] |= {"capacity": {}, "allocatable": {}}
    pods: list[Object] = []
    events: list[Object] = []

    def shown(called: str, made: float, ready: float, *, reason: str = "ContainerCreating", message: str = "") -> None:
        if second < made:
            return
        found = get(s, called)
        found["metadata"]["creationTimestamp"] = ago(age(made))
        if second < ready:
            waits(found, reason, message)
            found["status"] |= {"phase": "Pending", "conditions": conditions(age(made), PodScheduled="True", Ready="False")}
        else:
            found["status"]["conditions"] = [*conditions(age(made), PodScheduled="True"), *conditions(age(ready), Ready="True")]
        pods.append(found)

    shown("nfd-worker-ip-10-0-0", 65, 85)
    hiccup = "ErrImagePull" if second < 120 else "ImagePullBackOff" if second < 140 else "PodInitializing"
    shown("driver-1", 100, 700, reason=hiccup, message="unexpected EOF" if hiccup != "PodInitializing" else "")
    if second >= 110:
        events.append(event("Pod", "driver-1", "Failed", "Failed to pull image: unexpected EOF", at=age(110)))
    shown("toolkit-1", 105, 710)
    shown("plugin-1", 105, 740, reason="PodInitializing" if second < 710 else "CreateContainerError" if second < 720 else
        "CrashLoopBackOff", message="context deadline exceeded")
    shown("dolly-1", 800, 1160, reason="ErrImagePull" if 900 < second < 915 else "ContainerCreating", message="EOF")
    if second >= 710:  # the validator's init container has let the plug-in's begin
        get(s, "plugin-1")["status"]["conditions"] += conditions(age(710), Initialized="True")
    if second >= 1150 and pods[-1] is get(s, "dolly-1"):
        pods[-1]["status"]["containerStatuses"][0]["imageID"] = "sha256:1"
        events.append(event("Pod", "dolly-1", "Pulled", "Successfully pulled", at=age(1150)))
    s = replace(s, pods=tuple(pods), events=tuple(events), probes=(Probe("pod-dolly-1", NOW, 0, True, True),) * (second >= 1162),
                policies=(policy(),) * (second >= 62), runtime_classes=s.runtime_classes * (second >= 100),
                releases=(release("pending-install" if second < 70 else "deployed", at=age(min(second, 70))),) * (second >= 60))
    if second >= 745:
        proof = smoke(s)
        proof["metadata"]["creationTimestamp"] = ago(age(745))
        if second < 790:
            waits(proof, "ContainerCreating")
            proof["status"] |= {"phase": "Pending", "conditions": conditions(age(745), PodScheduled="True")}
        s = replace(s, pods=(*s.pods, proof))
    return s


def test_a_slow_installation_that_goes_well_has_no_finding_at_any_second() -> None:
    reached = []
    for second in range(1200):
        whole = ladder(at(second), replace(NAMES, since=NOW - timedelta(seconds=second + 80)), NOW)
        assert [(f.cause, f.evidence) for f in whole.findings] == [], second
        held = whole.nodes[0].held()
        reached.append(held.rung if held else "")
    order = [*BY_NAME, ""]
    assert [order.index(name) for name in reached] == sorted(order.index(name) for name in reached), "it only goes up"
    assert {"ready", "initialized", "driver", "device-plugin", "smoke", "pulled", "running", ""} <= set(reached)
