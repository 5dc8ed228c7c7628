"""Each cause: a snapshot in which it is found, at its rung and by name, and a near miss in which it is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from gpurunbook.readiness.causes import CAUSES
from gpurunbook.readiness.diagnose import ladder
from gpurunbook.readiness.rungs import BY_NAME, Ladder
from gpurunbook.readiness.snapshot import Snapshot
from gpurunbook.stages.taint import UNINITIALIZED
from tests.readiness import (
    CPU,
    NAMES,
    NODE,
    NOW,
    PLUGIN,
    ago,
    conditions,
    event,
    get,
    healthy,
    model,
    node,
    pod,
    policy,
    release,
    smoke,
    unscheduled,
    waits,
    without,
)

Break = Callable[[Snapshot], Snapshot]
DRIVER_NODE = "driver-1"
CASES: list[tuple[str, str, Break]] = []
MISSES: list[tuple[str, Break]] = []


def found(snapshot: Snapshot, patience: float = 1.0) -> Ladder:
    return ladder(snapshot, NAMES, NOW, patience)


def breaks(cause: str, rung: str) -> Callable[[Break], Break]:
    def add(change: Break) -> Break:
        CASES.append((cause, rung, change))
        return change
    return add


def misses(cause: str) -> Callable[[Break], Break]:
    def add(change: Break) -> Break:
        MISSES.append((cause, change))
        return change
    return add


def test_a_healthy_cluster_has_every_rung_done_and_no_finding() -> None:
    whole = found(healthy())
    assert whole.findings == ()
    [one] = whole.nodes
    assert [(step.rung, step.state) for step in one.steps] == [(name, "done") for name in BY_NAME]
    assert one.holds is None
    assert "Tesla T4" in next(step.evidence for step in one.steps if step.rung == "smoke")


@pytest.mark.parametrize("patience", [0.05, 1.0])
def test_patience_makes_no_finding_of_a_healthy_cluster(patience: float) -> None:
    assert found(healthy(), patience).findings == ()


# Node

@breaks("wrong-kubeconfig", "joined")
def lost(s: Snapshot) -> Snapshot:
    return replace(s, lost="certificate verify failed")


@breaks("api-throttled", "joined")
def throttled(s: Snapshot) -> Snapshot:
    return replace(s, throttled="/api/v1/nodes: 429; flow schema global-default", denied={"events": "429"})


@breaks("node-missing", "joined")
def no_node(s: Snapshot) -> Snapshot:
    return replace(s, nodes=s.nodes[1:])


@breaks("node-not-ready", "ready")
def silent(s: Snapshot) -> Snapshot:
    get(s, NODE)["status"]["conditions"] = [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown",
                                             "message": "Kubelet stopped posting node status.", "lastTransitionTime": ago(400)}]
    return s


@misses("node-not-ready")
def just_silent(s: Snapshot) -> Snapshot:
    get(s, NODE)["status"]["conditions"] = conditions(20, Ready="False")
    return s


@breaks("node-flapping", "ready")
def flapping(s: Snapshot) -> Snapshot:
    return replace(s, events=(*s.events, event("Node", NODE, "NodeNotReady", "is now: NodeNotReady", at=200),
                              event("Node", NODE, "NodeReady", "is now: NodeReady", at=150)))


@breaks("node-flapping", "ready")
def flapping_by_count(s: Snapshot) -> Snapshot:
    return replace(s, events=(event("Node", NODE, "NodeNotReady", "is now: NodeNotReady", at=30, count=9, first=2000),))


@misses("node-flapping")
def once_down(s: Snapshot) -> Snapshot:
    return replace(s, events=(*s.events, event("Node", NODE, "NodeNotReady", "is now: NodeNotReady", at=200)))


@misses("node-flapping")
def long_ago(s: Snapshot) -> Snapshot:
    return replace(s, events=(*s.events, event("Node", NODE, "NodeNotReady", "x", at=2000, count=7, first=2700)))


@breaks("pdb-blocks-drain", "ready")
def cordoned(s: Snapshot) -> Snapshot:
    get(s, NODE)["spec"]["unschedulable"] = True
    return s


@misses("pdb-blocks-drain")
def cordoned_with_a_kind_budget(s: Snapshot) -> Snapshot:
    s.budgets[0]["status"]["disruptionsAllowed"] = 1
    return cordoned(s)


@misses("pdb-blocks-drain")
def budget_of_another_namespace(s: Snapshot) -> Snapshot:
    s.budgets[0]["metadata"]["namespace"] = "other"
    return cordoned(s)


def tainted(s: Snapshot, age: float = 3000) -> Snapshot:
    get(s, NODE)["spec"]["taints"] = [{"key": UNINITIALIZED, "value": "true", "effect": "NoSchedule"}]
    get(s, NODE)["metadata"]["creationTimestamp"] = ago(age)
    return s


def lease(age: float) -> dict[str, object]:
    return {"metadata": {"name": "cloud-controller-manager", "namespace": "kube-system", "uid": "lease"},
            "spec": {"renewTime": ago(age), "leaseDurationSeconds": 15}}


@breaks("taint-controller-alive", "initialized")
def taint_with_controller(s: Snapshot) -> Snapshot:
    return replace(tainted(s), leases=(lease(3),))


@breaks("taint-no-controller", "initialized")
def taint_alone(s: Snapshot) -> Snapshot:
    return tainted(s)


@breaks("taint-no-controller", "initialized")
def taint_with_a_dead_controller(s: Snapshot) -> Snapshot:
    return replace(tainted(s), leases=(lease(500),))


@misses("taint-no-controller")
def young_taint(s: Snapshot) -> Snapshot:
    return tainted(s, 30)


# Stack

@breaks("no-pci-label", "pci-label")
def unlabelled(s: Snapshot) -> Snapshot:
    get(s, NODE)["metadata"]["labels"].pop("feature.node.kubernetes.io/pci-10de.present")
    return without(s, "driver-1", "toolkit-1", "plugin-1")


@misses("no-pci-label")
def the_other_spelling(s: Snapshot) -> Snapshot:
    unlabelled(s)
    get(s, NODE)["metadata"]["labels"]["feature.node.kubernetes.io/pci-0302_10de.present"] = "true"
    return s


@misses("no-pci-label")
def nfd_has_not_written_yet(s: Snapshot) -> Snapshot:
    s = unlabelled(s)
    get(s, NODE)["metadata"]["labels"].pop("feature.node.kubernetes.io/kernel-version.full")
    get(s, "nfd-worker-ip-10-0-0")["metadata"]["creationTimestamp"] = ago(20)
    get(s, "nfd-worker-ip-10-0-0")["status"]["conditions"] = conditions(10, Ready="True")
    return s


@breaks("release-pending", "release")
def pending(s: Snapshot) -> Snapshot:
    return replace(s, releases=(release("superseded"), release("pending-upgrade", 2, at=120)))


@misses("release-pending")
def helm_at_work(s: Snapshot) -> Snapshot:
    return replace(s, releases=(release("pending-install", at=20),))


@misses("release-pending")
def an_older_revision_pending(s: Snapshot) -> Snapshot:
    return replace(s, releases=(release("pending-install", 9), release("deployed", 10)))


@breaks("release-failed", "release")
def failed_release(s: Snapshot) -> Snapshot:
    return replace(s, releases=(release("failed"),))


@breaks("driver-crash-loop", "driver")
def driver_crashes(s: Snapshot) -> Snapshot:
    waits(get(s, "driver-1"), "CrashLoopBackOff", "back-off 5m0s", 6)
    return replace(s, logs={"pod-driver-1": "Could not resolve Linux kernel version"})


@misses("driver-crash-loop")
def driver_restarted_once(s: Snapshot) -> Snapshot:
    get(s, "driver-1")["status"]["containerStatuses"][0]["restartCount"] = 1
    return s


@misses("driver-crash-loop")
def driver_starts(s: Snapshot) -> Snapshot:
    waits(get(s, "driver-1"), "PodInitializing")
    get(s, "driver-1")["metadata"]["creationTimestamp"] = ago(600)
    return s


@breaks("toolkit-missing", "toolkit")
def no_toolkit(s: Snapshot) -> Snapshot:
    waits(get(s, "plugin-1"), "ContainerCreating")
    s = replace(without(s, "toolkit-1"), policies=(policy(toolkit=False),))
    return replace(s, events=(event("Pod", "plugin-1", "FailedCreatePodSandBox",
                                    'failed to get sandbox runtime: no runtime for "nvidia" is configured'),))


@misses("toolkit-missing")
def before_the_toolkit(s: Snapshot) -> Snapshot:
    return replace(no_toolkit(s), policies=(policy(),))


@misses("toolkit-missing")
def toolkit_of_the_image(s: Snapshot) -> Snapshot:
    get(s, NODE)["status"]["nodeInfo"]["osImage"] = "Amazon Linux 2023.9"
    return replace(without(s, "driver-1", "toolkit-1"), policies=(policy(driver=False, toolkit=False),), events=())


@breaks("two-device-plugins", "device-plugin")
def two_plugins(s: Snapshot) -> Snapshot:
    other = pod("nvidia-device-plugin-daemonset-x", space="kube-system", labels={"name": "nvidia-device-plugin-ds"})
    return replace(s, pods=(*s.pods, other))


@misses("two-device-plugins")
def the_second_is_not_ready(s: Snapshot) -> Snapshot:
    s = two_plugins(s)
    waits(get(s, "nvidia-device-plugin-daemonset-x"), "ContainerCreating")
    return s


@misses("two-device-plugins")
def on_two_nodes(s: Snapshot) -> Snapshot:
    s = two_plugins(s)
    get(s, "nvidia-device-plugin-daemonset-x")["spec"]["nodeName"] = CPU
    return s


@breaks("plugin-on-cpu-nodes", "device-plugin")
def plugin_on_cpu(s: Snapshot) -> Snapshot:
    other = pod("ds-x", space="kube-system", on=CPU, labels={"name": "nvidia-device-plugin-ds"})
    waits(other, "CrashLoopBackOff", "", 4)
    return replace(s, pods=(*s.pods, other))


@misses("plugin-on-cpu-nodes")
def plugin_idles_on_cpu(s: Snapshot) -> Snapshot:
    return replace(s, pods=(*s.pods, pod("ds-x", space="kube-system", on=CPU, labels={"name": "nvidia-device-plugin-ds"})))


@breaks("gpu-not-allocatable", "allocatable")
def unhealthy(s: Snapshot) -> Snapshot:
    get(s, NODE)["status"]["allocatable"] = {"nvidia.com/gpu": "0"}
    return s


@misses("gpu-not-allocatable")
def plugin_just_ready(s: Snapshot) -> Snapshot:
    get(s, "plugin-1")["status"]["conditions"] = conditions(10, Ready="True")
    return unhealthy(s)


# Workload

def with_smoke(s: Snapshot, phase: str, line: str) -> Snapshot:
    s = without(s, "gpu-smoke-1")
    return replace(s, pods=(*s.pods, smoke(s, phase, line)))


@breaks("cuda-broken", "smoke")
def cuda(s: Snapshot) -> Snapshot:
    return with_smoke(s, "Failed", "cuInit: 999 CUDA_ERROR_UNKNOWN")


@misses("cuda-broken")
def cuda_of_before(s: Snapshot) -> Snapshot:
    s = without(cuda(s), "dolly-1")
    get(s, "driver-1")["metadata"]["uid"] = "made anew"
    return s


@breaks("unknown", "smoke")
def smoke_fails_otherwise(s: Snapshot) -> Snapshot:
    return with_smoke(s, "Failed", "python: can't open file '/smoke/smoke.py'")


@breaks("gpu-taken", "scheduled")
def taken(s: Snapshot) -> Snapshot:
    unscheduled(get(s, "dolly-1"), "0/3 nodes are available: 1 Insufficient nvidia.com/gpu, 2 node(s) didn't match.")
    return replace(s, pods=(*s.pods, pod("miner", space="default", gpus=1, labels={"app": "miner"})))


@misses("gpu-taken")
def taker_has_ended(s: Snapshot) -> Snapshot:
    s = taken(s)
    get(s, "miner")["status"]["phase"] = "Succeeded"
    return s


@breaks("pod-unschedulable", "scheduled")
def too_much_memory(s: Snapshot) -> Snapshot:
    unscheduled(get(s, "dolly-1"), "0/3 nodes are available: 1 Insufficient memory, 2 node(s) didn't match.")
    return s


@misses("pod-unschedulable")
def just_made(s: Snapshot) -> Snapshot:
    unscheduled(get(s, "dolly-1"), "0/3 nodes are available: 1 Insufficient memory", at=10)
    return s


@breaks("image-pull-back-off", "pulled")
def no_image(s: Snapshot) -> Snapshot:
    waits(get(s, "dolly-1"), "ImagePullBackOff", "Back-off pulling image")
    return replace(s, events=(event("Pod", "dolly-1", "Failed", 'Failed to pull image "x": not found'),))


@breaks("image-too-big", "pulled")
def big_image(s: Snapshot) -> Snapshot:
    waits(get(s, "dolly-1"), "ErrImagePull", "failed to extract layer: write /var/lib: no space left on device")
    return s


@breaks("image-too-big", "pulled")
def big_image_by_pressure(s: Snapshot) -> Snapshot:
    waits(get(s, "dolly-1"), "ImagePullBackOff", "Back-off pulling image")
    get(s, NODE)["status"]["conditions"] += conditions(300, DiskPressure="True")
    return s


@misses("image-pull-back-off")
def pulling(s: Snapshot) -> Snapshot:
    waits(get(s, "dolly-1"), "ContainerCreating")
    return s


@breaks("out-of-memory", "running")
def oom(s: Snapshot) -> Snapshot:
    ended = {"terminated": {"reason": "OOMKilled", "exitCode": 137, "finishedAt": ago(60)}}
    waits(get(s, "dolly-1"), "CrashLoopBackOff", "", 3, lastState=ended, imageID="sha256:1")
    return s


@breaks("out-of-memory", "running")
def oom_and_running_again(s: Snapshot) -> Snapshot:
    status = get(s, "dolly-1")["status"]["containerStatuses"][0]
    status |= {"lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}, "restartCount": 1}
    return s


@misses("out-of-memory")
def killed_by_somebody(s: Snapshot) -> Snapshot:
    get(s, "dolly-1")["status"]["containerStatuses"][0]["lastState"] = {"terminated": {"reason": "Error", "exitCode": 137}}
    return s


@breaks("unknown", "running")
def crash_of_no_known_cause(s: Snapshot) -> Snapshot:
    waits(get(s, "dolly-1"), "CrashLoopBackOff", "", 3, imageID="sha256:1")
    return replace(s, logs={"pod-dolly-1": "Segmentation fault"})


@breaks("no-tar", "exec")
def no_tar(s: Snapshot) -> Snapshot:
    assert s.probe
    return replace(s, probe=replace(s.probe, tar=False, said='exec: "tar": executable file not found in $PATH'))


@misses("no-tar")
def tar_not_asked(s: Snapshot) -> Snapshot:
    assert s.probe
    return replace(s, probe=replace(s.probe, tar=None))


@breaks("exec-stream-cut", "exec")
def cut(s: Snapshot) -> Snapshot:
    assert s.probe
    return replace(s, probe=replace(s.probe, whole=False, code=0, said=""))


@breaks("exec-stream-cut", "exec")
def cut_with_a_code(s: Snapshot) -> Snapshot:
    assert s.probe
    return replace(s, probe=replace(s.probe, whole=False, code=1, said="error reading from error stream: unexpected EOF"))


@misses("exec-stream-cut")
def refused(s: Snapshot) -> Snapshot:
    assert s.probe
    return replace(s, probe=replace(s.probe, whole=False, code=1, said="Error from server (Forbidden): pods/exec"))


@pytest.mark.parametrize(("cause", "rung", "change"), CASES, ids=lambda x: getattr(x, "__name__", None))
def test_each_trouble_is_found_by_name_at_its_rung_and_nothing_else(cause: str, rung: str, change: Break) -> None:
    whole = found(change(healthy()))
    assert [(f.cause, f.rung) for f in whole.findings] == [(cause, rung)]
    [finding] = whole.findings
    assert finding.evidence
    assert "{" not in finding.next.replace("'{\"", "").replace(":{\"", "")
    assert finding.next == CAUSES[cause].next or "POD" not in finding.next.split()
    held = [n.holds for n in whole.nodes if n.holds and n.holds.state == "trouble"]
    assert [step.rung for step in held] == ([rung] if cause not in ("api-throttled", "plugin-on-cpu-nodes") else [])


@pytest.mark.parametrize(("cause", "change"), MISSES, ids=lambda x: getattr(x, "__name__", None))
def test_a_near_miss_is_not_that_trouble(cause: str, change: Break) -> None:
    assert cause not in [f.cause for f in found(change(healthy())).findings]


def test_every_cause_has_a_test_a_rung_and_a_next_command() -> None:
    assert {cause for cause, _, _ in CASES} == set(CAUSES)
    for cause in CAUSES.values():
        assert cause.rung in BY_NAME or cause.name == "unknown"
        assert cause.title
        assert cause.why.endswith(".")
        assert cause.next.format(node="n", namespace="s", pod="p", name="m")


def test_a_helm_of_ours_that_runs_is_no_stuck_release() -> None:
    busy = replace(NAMES, helm_at_work=True)
    assert ladder(pending(healthy()), busy, NOW).findings == ()
    assert [f.cause for f in ladder(pending(healthy()), busy, NOW + timedelta(hours=1)).findings] == ["unknown"]


def test_others_device_plugin_alone_is_seen_to_by_others() -> None:
    plain = replace(without(healthy(), "driver-1", "toolkit-1", "nfd-worker-ip-10-0-0"), releases=(), policies=(),
                    runtime_classes=())
    get(plain, NODE)["metadata"]["labels"].pop("feature.node.kubernetes.io/pci-10de.present")
    whole = found(plain)
    assert whole.findings == ()
    assert {s.rung: s.state for s in whole.nodes[0].steps} == dict.fromkeys(BY_NAME, "done")


def test_before_the_operator_a_person_is_told_what_to_do() -> None:
    bare = node()
    bare["metadata"]["labels"] = {"group": "gpu-workers", "kubernetes.io/hostname": NODE}
    bare["status"] |= {"capacity": {}, "allocatable": {}}
    whole = found(Snapshot(nodes=(bare,)))
    step = whole.nodes[0].holds
    assert step
    assert (step.rung, step.state, whole.findings) == ("pci-label", "waiting", ())
    assert step.next.startswith("gpurunbook run --from gpu_operator")


def test_what_may_not_be_read_is_unknown_with_the_right_that_is_missing() -> None:
    partly = replace(healthy(), releases=(), policies=(), denied={"releases": "secrets is forbidden", "leases": "x"})
    steps = {step.rung: step for step in found(partly).nodes[0].steps}
    assert (steps["release"].state, steps["initialized"].state) == ("unknown", "done")
    assert "secrets is forbidden" in steps["release"].evidence
    nothing = found(Snapshot(denied={"nodes": "nodes is forbidden"}))
    assert nothing.nodes[0].steps[0].state == "unknown"
    assert nothing.findings == ()


def test_what_takes_too_long_without_a_reason_is_unknown_with_the_evidence() -> None:
    slow = healthy()
    waits(get(slow, "driver-1"), "PodInitializing")
    get(slow, "driver-1")["metadata"]["creationTimestamp"] = ago(2000)
    slow = without(slow, "dolly-1", "gpu-smoke-1")
    [finding] = found(slow).findings
    assert (finding.cause, finding.rung) == ("unknown", "driver")
    assert "PodInitializing" in finding.evidence
    assert PLUGIN not in finding.evidence
    assert {s.state for s in found(slow, 10).nodes[0].steps} == {"done", "waiting", "ahead"}


def test_a_rung_above_the_one_that_holds_is_ahead_unless_it_is_done_or_in_trouble() -> None:
    states = {s.rung: s.state for s in found(driver_starts(healthy())).nodes[0].steps}
    assert states["driver"] == "waiting"
    assert states["toolkit"] == states["allocatable"] == "done"
    both = found(oom(driver_crashes(healthy())))
    assert [f.cause for f in both.findings] == ["driver-crash-loop", "out-of-memory"]


def test_one_trouble_of_many_nodes_is_told_once() -> None:
    three = taken(healthy())
    nodes = [node(f"ip-10-0-1-{i}") for i in range(3)]
    for one in nodes:
        one["status"]["conditions"] = conditions(400, Ready="False")
    whole = ladder(replace(three, nodes=(*nodes, *three.nodes)), replace(NAMES, wanted=4), NOW)
    assert [f.cause for f in whole.findings].count("gpu-taken") == 1


def test_the_model_on_another_node_needs_nothing_of_this_one() -> None:
    whole = healthy()
    moved = (*without(whole, "dolly-1").pods, model("ip-10-0-0-9"))
    whole = replace(whole, nodes=(*whole.nodes, node("ip-10-0-0-9")), pods=moved)
    steps = {step.rung: step for step in ladder(whole, replace(NAMES, wanted=2), NOW).nodes[0].steps}
    assert steps["exec"].state == "done"
    assert "ip-10-0-0-9" in steps["exec"].evidence
